"""Outputs in separate processes, which are disconnected, stalled and killed."""

import itertools
import json
import logging
import math
import operator
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from tests.programs import needs_nginx
from tests.rtmp import (
    FPS,
    SIZE,
    Feed,
    Programme,
    Proxy,
    Server,
    Viewer,
    free_port,
    wait_for,
)
from vsr.errors import UsageError
from vsr.live.output import process
from vsr.live.output.closing import close_outputs
from vsr.live.output.delivery import Delivery
from vsr.live.output.output import Output
from vsr.live.output.packet_queue import PacketQueue
from vsr.live.output.plan import OutputStreams
from vsr.live.output.record import Record
from vsr.live.output.session import Session
from vsr.live.settings import OutputSettings
from vsr.media import location
from vsr.media.frame import Frame, Stamps, now
from vsr.media.location import mask_secrets
from vsr.media.timestamps import Packet
from vsr.report.ledger import STAGES, stage_ms

QUICK = OutputSettings(io_timeout_s=1.5, retry_s=0.1, retry_max_s=0.4)
ALL = OutputSettings(start_backlog_s=60, queue_s=60)
"""Settings for packets that are offered all at once instead of in real time."""
SECRETS = ("k3y-of-stream", "pa55word", "t0ken")


class Events:
    """Starts and ends of an output's sessions, with the reasons."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.words: list[str] = []


class Watched(Output):
    """An output that records the start and end of each session."""

    events: Events

    def _opened(self) -> None:
        kind = "reconnected" if self.was_open else "connected"
        super()._opened()
        self.events.kinds.append(kind)
        self.events.words.append("")

    def _begin_retry(self, why: str) -> None:
        again = self._reasons.has_any
        super()._begin_retry(why)
        if not again:
            self.events.kinds.append("lost")
            self.events.words.append(why)


def _output(
    url: str, programme: Programme, settings: OutputSettings = QUICK
) -> tuple[Output, Events]:
    events = Events()
    streams = OutputStreams(video=programme.video, audio=programme.audio)
    output = Watched(url, streams, settings)
    output.events = events
    return output, events


def _opened(output: Output, seconds: float = 10) -> None:
    wait_for(lambda: output.state.state == "open", seconds, f"not open: {output.state}")


def _gap(viewer: Viewer, since: float = 0.0) -> float:
    arrived = [s.arrived for s in viewer.of("video") if s.arrived >= since]
    return max(b - a for a, b in itertools.pairwise(arrived))


def _assert_forward(viewer: Viewer) -> None:
    for kind in ("video", "audio"):
        times = [s.dts for s in viewer.of(kind)]
        assert len(times) > 10
        assert all(a < b for a, b in itertools.pairwise(times))


@needs_nginx
def test_a_viewer_gets_what_is_offered(tmp_path: Path) -> None:
    programme = Programme()
    with Server(tmp_path) as server, Viewer(server.url("a")) as viewer:
        output, events = _output(server.url("a"), programme)
        output.start()
        _opened(output)
        with Feed([output.offer], programme) as feed:
            time.sleep(3)
        output.close()
        # the viewer may not have received all packets that the server accepted
        wait_for(lambda: len(viewer.seen) >= feed.offered, 5, "not all packets came")
    state, video, audio = output.state, viewer.of("video"), viewer.of("audio")
    assert (state.state, state.packets, state.dropped, state.queued) == (
        "closed",
        feed.offered,
        0,
        0,
    )
    assert events.kinds == ["connected"]
    assert (len(video), len(audio)) == (programme.frames, feed.offered - programme.frames)
    assert video[0].key
    _assert_forward(viewer)
    assert sum(s.key for s in video) == -(-len(video) // FPS)
    # the encoder's first audio packet begins 1024 samples before the first frame
    assert abs(audio[0].pts - video[0].pts + 1024 / 48_000) < 0.002
    assert abs((audio[-1].pts - audio[0].pts) - (video[-1].pts - video[0].pts)) < 0.04


@needs_nginx
def test_a_killed_server_is_found_again_and_others_go_on(tmp_path: Path) -> None:
    programme = Programme()
    with Server(tmp_path / "one") as one, Server(tmp_path / "two") as two:
        (lost, events), (kept, _) = (_output(s.url("a"), programme) for s in (one, two))
        first, other = Viewer(one.url("a")), Viewer(two.url("a"))
        for output in (lost, kept):
            output.start()
        for output in (lost, kept):
            _opened(output)
        with Feed([lost.offer, kept.offer], programme) as feed:
            time.sleep(1.5)
            one.kill()
            biggest, end = 0, time.monotonic() + 2
            while time.monotonic() < end:
                biggest = max(biggest, lost.state.queued_bytes)
                time.sleep(0.05)
            assert lost.state.state == "retrying"
            one.start()
            back = time.monotonic()
            second = Viewer(one.url("a"))
            _opened(lost, 5)
            wait_for(lambda: len(second.of("video")) > FPS, 5, "no pictures after the restart")
            resumed = second.seen[0].arrived - back
        close_outputs([lost, kept])
        for viewer in (first, second, other):
            viewer.stop()
    assert resumed < 15
    assert events.kinds == ["connected", "lost", "reconnected"]
    assert lost.state.reconnects == 1
    assert biggest < 200_000  # one second of the stream
    assert second.of("video")[0].key
    assert second.of("video")[0].dts > first.of("video")[-1].dts
    _assert_forward(second)
    assert kept.state.packets == feed.offered
    assert kept.state.dropped == 0
    assert _gap(other, since=other.seen[0].arrived + 0.5) < 5
    assert lost.state.packets + lost.state.dropped == feed.offered


def test_a_refused_connection_is_tried_again_and_told_once() -> None:
    programme = Programme()
    output, events = _output(f"rtmp://127.0.0.1:{free_port()}/live/{SECRETS[0]}", programme)
    output.start()
    pids = set()
    with Feed([output.offer], programme):
        wait_for(lambda: output.state.state == "retrying", 10, "no retry")
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            pids.add(output.pid)
            time.sleep(0.05)
    state = output.state
    output.close()
    assert state.state == "retrying"
    assert "refused" in state.last_error.lower()
    assert events.kinds == ["lost"]
    assert len(pids) == 1  # one process makes all attempts
    assert state.packets == 0
    assert state.queued_s <= 1
    assert not any(
        s in str(facts) for s in SECRETS for facts in (state, output.facts(), events.words)
    )


@needs_nginx
def test_a_stalled_link_is_given_up_and_never_felt(tmp_path: Path) -> None:
    programme = Programme()
    with Server(tmp_path) as server, Proxy(server.port, buffer=4096) as proxy:
        output, events = _output(f"rtmp://127.0.0.1:{proxy.port}/live/a", programme)
        output.start()
        _opened(output)
        with Feed([output.offer], programme) as feed:
            time.sleep(0.5)
            pid = output.pid
            proxy.stalled.set()
            stalled = time.monotonic()
            wait_for(lambda: "lost" in events.kinds, 30, "the stall was not noticed")
            noticed = time.monotonic() - stalled
            proxy.stalled.clear()
            wait_for(lambda: "reconnected" in events.kinds, 30, "it did not come back")
            assert output.pid != pid
        times = sorted(feed.took)
        output.close()
    assert noticed < QUICK.io_timeout_s + 10  # until the buffers in between are full
    assert times[int(len(times) * 0.95)] < 0.5  # `offer` never waits for the socket
    assert output.state.packets + output.state.dropped == feed.offered


@needs_nginx
def test_a_link_too_slow_for_the_stream_keeps_its_session_and_skips_to_key_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If the encoder cannot reduce its bitrate, as here."""
    programme = Programme(noise=True, bit_rate=3_000_000)
    settings = OutputSettings(io_timeout_s=20, retry_s=0.1, retry_max_s=0.4, queue_s=1.5)
    with Server(tmp_path) as server, Proxy(server.port) as proxy:
        output, events = _output(f"rtmp://127.0.0.1:{proxy.port}/live/a", programme, settings)
        output.start()
        _opened(output)
        proxy.rate = 20_000
        longest = 0.0
        with Feed([output.offer], programme):
            until = time.monotonic() + 10
            while output.state.skips < 2 and time.monotonic() < until:
                longest = max(longest, output.state.queued_s)
                time.sleep(0.02)
        output.close()
    assert output.state.skips >= 2
    assert output.state.reconnects == 0
    assert "dropping frames up to the next key frame" in caplog.text
    assert events.kinds == ["connected"]
    assert 0.5 < longest <= 1.5


@needs_nginx
def test_closing_takes_its_time_in_no_state(tmp_path: Path) -> None:
    programme = Programme()
    with (
        Server(tmp_path) as server,
        Proxy(server.port, buffer=4096) as proxy,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        urls = {
            "open": server.url("a"),
            "stalled": f"rtmp://127.0.0.1:{proxy.port}/live/b",
            "unanswered": f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/c",
            "refused": f"rtmp://127.0.0.1:{free_port()}/live/d",
        }
        settings = OutputSettings(io_timeout_s=30, retry_s=5, retry_max_s=5)
        outputs = {name: _output(url, programme, settings)[0] for name, url in urls.items()}
        for output in outputs.values():
            output.start()
        for name in ("open", "stalled"):
            _opened(outputs[name])
        wait_for(lambda: outputs["refused"].state.state == "retrying", 10, "not refused")
        with Feed([o.offer for o in outputs.values()], programme):
            proxy.stalled.set()
            time.sleep(1)
        pids = [o.pid for o in outputs.values()]
        before = {name: o.state.state for name, o in outputs.items()}
        began = time.monotonic()
        close_outputs(outputs.values())
        took = time.monotonic() - began
    assert list(before.values()) == ["open", "open", "connecting", "retrying"]
    assert took < 15
    assert [o.state.state for o in outputs.values()] == ["closed"] * 4
    assert outputs["open"].state.dropped == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids if pid)
    idle_seconds = _output(urls["refused"], programme)[0]
    idle_seconds.close()  # never started


@needs_nginx
def test_nothing_tells_the_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    programme = Programme()
    key, password, token = SECRETS
    with Server(tmp_path) as server:
        url = f"rtmp://user:{password}@127.0.0.1:{server.port}/live/{key}?sign={token}"
        urls = [url, url, url.replace("/live/", "/none/"), url.replace("rtmp:", "rtmps:")]
        outputs, events = zip(*(_output(u, programme) for u in urls), strict=True)
        outputs[0].start()
        _opened(outputs[0])
        for output in outputs[1:]:
            output.start()
        for refused in events[1:3]:
            wait_for(partial(operator.contains, refused.kinds, "lost"), 10, "not refused")
        assert "Already publishing" in outputs[1].state.last_error
        for output in outputs:
            for name in ("cmdline", "environ"):
                if output.pid and Path("/proc").exists():
                    text = Path(f"/proc/{output.pid}/{name}").read_bytes().decode(errors="replace")
                    assert not any(s in text for s in SECRETS)
        outputs[1].close()
        os.kill(outputs[0].pid, signal.SIGKILL)
        wait_for(lambda: "reconnected" in events[0].kinds, 10, "not back")
    wait_for(lambda: "lost" in events[3].kinds, 10, "TLS with a server that is gone")
    close_outputs(outputs)
    names = [t.name for t in threading.enumerate()]
    said = [caplog.text, *capfd.readouterr(), str([e.words for e in events]), str(names)]
    said += [str(o.facts()) for o in outputs]
    assert "retrying" in caplog.text
    assert not any(s in text for s in SECRETS for text in said)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("cannot open rtmp://u:pw@h:1/app/key?a=b", "cannot open rtmp://h:1/app/***?***"),
        ("Server error: key is taken", "Server error: *** is taken"),
        ("monkey in app/key?a=b, user u:pw", "monkey in app/***?***, user ***:***"),
    ],
)
def test_foreign_words_are_masked(words: str, shown: str) -> None:
    assert mask_secrets(words, "rtmp://u:pw@h:1/app/key?a=b") == shown


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtmp://u:pw@h:1/app/k3y?a=b", "rtmp://h:1/app/***?***"),
        ("rtmp://h/app/k3y/", "rtmp://h/app/***"),
        ("RTMPS://h/app/k3y", "RTMPS://h/app/***"),
    ],
)
def test_urls_are_shown_without_their_secrets(url: str, name: str) -> None:
    assert location.url_for_messages(url) == name
    assert "k3y" not in mask_secrets(f"cannot open {url} k3y", url)


def _file(path: Path) -> list[tuple[str, float, bool]]:
    """Return the kind, pts (s) and key frame flag of every packet."""
    with av.open(str(path)) as container:
        return [
            (p.stream.type, p.pts * float(p.time_base), p.is_keyframe)
            for p in container.demux()
            if p.pts is not None
        ]


def test_packets_come_out_as_they_went_in_and_stay_as_they_were(tmp_path: Path) -> None:
    programme = Programme(b_frames=2)
    paths = [tmp_path / "one.mkv", tmp_path / "two.ts", tmp_path / "three.flv"]
    outputs = [_output(str(path), programme, ALL)[0] for path in paths]
    offered: list[tuple[str, float, bool]] = []
    for _ in range(2 * FPS):
        for packet, kind in programme.next():
            facts = (packet.pts, packet.dts, packet.time_base, packet.duration, bytes(packet))
            for output in outputs:
                output.offer(packet, kind)
            assert facts == (
                packet.pts, packet.dts, packet.time_base, packet.duration, bytes(packet),
            )  # fmt: skip
            assert packet.pts is not None
            offered.append((kind, packet.pts * float(packet.time_base), packet.is_keyframe))
    for output in outputs:
        output.start()
        _opened(output)
    close_outputs(outputs, 5)
    early = [kind for kind, *_ in offered].index("video")  # audio before the first key frame
    offered = offered[early:]
    for path, output in zip(paths, outputs, strict=True):
        assert (output.state.packets, output.state.dropped) == (len(offered), early)
        with av.open(str(path)) as container:
            pictures = sum(1 for _ in container.decode(video=0))
            assert container.streams.video[0].codec_context.width == SIZE[0]
        got = _file(path)
        for kind in ("video", "audio"):
            sent, came = ([f for f in facts if f[0] == kind] for facts in (offered, got))
            assert [key for *_, key in came] == [key for *_, key in sent]
            shift = [g[1] - s[1] for g, s in zip(came, sent, strict=True)]
            assert max(shift) - min(shift) <= 0.001  # FLV and Matroska store milliseconds
        assert pictures == sum(kind == "video" for kind, *_ in offered)


def test_late_sound_of_before_a_session_does_not_end_it(tmp_path: Path) -> None:
    """FLV accepts no packet that is earlier than the first one."""
    programme, path = Programme(), tmp_path / "out.flv"
    output, events = _output(str(path), programme, ALL)
    late, shown = deque[Packet](), 0
    for k in range(2 * FPS):
        for packet, kind in programme.next():
            if kind == "video":
                output.offer(packet, kind)
                shown += 1
            else:
                late.append(packet)
        if k > FPS // 2 and late:
            output.offer(late.popleft(), "audio")
    output.start()
    _opened(output)
    output.close(5)
    assert events.kinds == ["connected"]
    assert sum(kind == "video" for kind, *_ in _file(path)) == shown


def test_times_that_stand_still_or_run_back_do_not_end_a_session(tmp_path: Path) -> None:
    programme = Programme()
    path = tmp_path / "out.ts"
    output, events = _output(str(path), programme, ALL)
    for k in range(FPS):
        for packet, kind in programme.next():
            assert packet.dts is not None
            if kind == "video" and k % 5 == 4:
                packet.pts = packet.dts = packet.dts - 4000  # a frame lasts 3600
            output.offer(packet, kind)
    output.start()
    _opened(output)
    output.close(5)
    assert events.kinds == ["connected"]
    with av.open(str(path)) as container:
        times = [p.dts for p in container.demux(video=0) if p.dts is not None]
    assert len(times) == FPS
    assert all(a < b for a, b in itertools.pairwise(times))


def test_a_transport_stream_goes_out_over_udp() -> None:
    programme = Programme()
    url = f"udp://127.0.0.1:{free_port()}"
    with Viewer(url) as viewer:
        output, _ = _output(url, programme)
        output.start()
        _opened(output)
        with Feed([output.offer], programme):
            wait_for(lambda: len(viewer.of("video")) > 10, 10, f"nothing came: {viewer.error}")
        output.close()
    _assert_forward(viewer)


def test_rtsp_is_published() -> None:
    programme = Programme()
    port, got = free_port(), []

    def receive() -> None:
        url, options = (
            f"rtsp://127.0.0.1:{port}/live",
            {"rtsp_flags": "listen", "listen_timeout": "10"},
        )
        with av.open(url, options=options, timeout=(10, 10)) as source:
            for packet in source.demux():
                got.append((packet.stream.type, packet.dts))
                if len(got) > 20:
                    return

    receiver = threading.Thread(target=receive, daemon=True)
    receiver.start()
    output, _ = _output(f"rtsp://127.0.0.1:{port}/live", programme)
    output.start()
    with Feed([output.offer], programme):
        receiver.join(12)
    output.close()
    assert {kind for kind, _ in got} == {"video", "audio"}


def test_a_process_ends_with_its_parent_and_heeds_no_terminal() -> None:
    code = """
import sys, time
from tests.rtmp import Programme
from vsr.live.output.output import Output
from vsr.live.output.plan import OutputStreams
o = Output(sys.argv[1], OutputStreams(video=Programme().video, audio=None))
o.start()
while not o.pid:
    time.sleep(0.01)
print(o.pid, flush=True)
time.sleep(60)
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(10)
        url = f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/a"
        parent = subprocess.Popen(
            [sys.executable, "-c", code, url],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        )
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        connection, _ = silent.accept()  # from now on FFmpeg blocks
        with connection:
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(pid, number)
            time.sleep(0.2)
            assert _runs(pid)
            assert os.getpgid(pid) != os.getpgid(parent.pid)
            parent.kill()
            parent.wait()
            parent.stdout.close()
            wait_for(lambda: not _runs(pid), 2, "the process outlived its parent")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("number", "why"),
    [(signal.SIGKILL, "exited unexpectedly"), (signal.SIGSTOP, "no data accepted for 1.5 s")],
)
def test_a_dead_or_hung_process_is_replaced(tmp_path: Path, number: int, why: str) -> None:
    programme = Programme()
    output, events = _output(str(tmp_path / "out.ts"), programme)
    output.start()
    _opened(output)
    assert output.pid is not None
    with Feed([output.offer], programme):
        os.kill(output.pid, number)
        wait_for(lambda: events.kinds == ["connected", "lost", "reconnected"], 10, "not replaced")
    output.close()
    assert why in events.words[1]


def test_no_packet_is_forgotten_by_a_process_that_ends_while_it_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counts that one thread has taken are written before the other's final report."""
    taken, sent = threading.Event(), deque([(0.0, 0.1, 0.0)] * 3)

    class Slow(process.Copier):
        def __init__(self) -> None:
            self.packets, self.bytes, self._sent = 3, 30, sent

        def facts(self) -> dict[str, object]:
            found = super().facts()
            if threading.current_thread() is other:
                taken.set()
                time.sleep(0.2)
            return found

    reader, writer = os.pipe()
    monkeypatch.setattr(process, "_REPORT_FD", writer)
    copier = Slow()
    other = threading.Thread(target=process._report_counts, args=(copier,))
    other.start()
    assert taken.wait(10)
    process._report_counts(copier)  # the process would end after this
    told = os.read(reader, 4096).splitlines()
    other.join()
    os.close(reader)
    os.close(writer)
    assert [len(json.loads(line)["sent"]) for line in told] == [3, 0]


def test_a_defect_ends_a_session_and_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programme = Programme()
    output, events = _output(str(tmp_path / "out.ts"), programme)
    output.start()
    _opened(output)
    with monkeypatch.context() as patched:
        patched.setattr(Session, "poll", lambda *_: {}["a defect"])
        wait_for(lambda: events.kinds == ["connected", "lost"], 10, "not lost")
    with Feed([output.offer], programme):
        wait_for(lambda: events.kinds[2:] == ["reconnected"], 20, "not replaced")
    output.close()
    assert events.words[1] == "KeyError: 'a defect'"


@pytest.mark.parametrize("leaves", [True, False])
def test_the_end_of_a_pipe_is_told_as_what_it_is(
    leaves: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = os.pipe()
    programme = Programme()
    output, _ = _output(f"pipe:{writer}", programme)
    output.start()
    _opened(output)
    os.close(writer)
    assert output.pid is not None
    os.close(reader) if leaves else os.kill(output.pid, signal.SIGKILL)
    with Feed([output.offer], programme):
        wait_for(lambda: output.state.state == "closed", 10, "not closed")
    why = "the reader closed the pipe" if leaves else "the output process exited unexpectedly"
    assert output.state.last_error == why
    assert why in caplog.text
    output.close()
    if not leaves:
        os.close(reader)


def test_a_key_in_foreign_words_is_told_to_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/{SECRETS[0]}"
    monkeypatch.setattr(Session, "fault", lambda _: f"cannot open {url}")
    output, events = _output(url, Programme())
    output.start()
    wait_for(lambda: events.words, 10, "nothing told")
    output.close()
    assert "cannot open rtmp://" in events.words[0]
    assert SECRETS[0] not in f"{events.words} {output.facts()} {caplog.text}"


def test_a_reader_of_a_pipe_may_pause() -> None:
    """The reader may pause longer than a server, because a pipe has no second session."""
    reader, writer = os.pipe()
    programme = Programme()
    output, events = _output(f"pipe:{writer}", programme)
    output.start()
    _opened(output)
    with Feed([output.offer], programme):
        wait_for(lambda: output.state.queued_s > 0.1, 30, "all is taken")
        time.sleep(2 * QUICK.io_timeout_s)
        before = output.state.packets
        os.set_blocking(reader, False)
        wait_for(lambda: _drained(reader) and output.state.packets > before + 50, 10, "it ended")
    output.close()
    os.close(reader)
    os.close(writer)
    assert events.kinds == ["connected"]


def _frame(index: int, event: str = "") -> Frame:
    at = now()
    stamps = Stamps(read=at, decoded=at, infer_start=at, infer_end=at, encode_start=at, encoded=at)
    empty = np.empty((0, 0), np.uint8)
    return Frame(
        planes=(empty, empty, empty), index=index, pts=index, time_base=Fraction(1, FPS),
        duration=1, stamps=stamps, event=event,
    )  # fmt: skip


def test_a_picture_is_done_when_its_slowest_output_has_sent_it() -> None:
    done: list[Frame] = []
    for first, second, sent in ((3.0, 5.0, 5.0), (None, 4.0, 4.0), (4.0, None, 4.0)):
        frame = _frame(0)
        delivery = Delivery(frame, 2, done.append)
        for at in (first, second):
            assert frame not in done
            delivery.dropped() if at is None else delivery.sent(at)
        assert done.pop() is frame
        assert frame.stamps.sent == sent
    nobody = Delivery(frame := _frame(1), 1, done.append)
    nobody.dropped()
    assert math.isnan(frame.stamps.sent)
    row = dict(zip(STAGES, stage_ms(frame), strict=True))
    assert math.isnan(row["mux"])
    assert math.isnan(row["total"])
    assert row["decode"] == 0


def _drained(pipe: int) -> bool:
    """Read all data that a pipe holds, and return True."""
    with suppress(BlockingIOError):
        os.read(pipe, 1 << 20)
    return True


def test_what_waits_for_a_slow_output_is_in_its_times_and_in_the_total(tmp_path: Path) -> None:
    """The reader of a pipe opens it late: the latency of the frames includes that wait."""
    programme, late = Programme(), 0.7
    pipe, done = tmp_path / "out.ts", list[Frame]()
    os.mkfifo(pipe)
    output, _ = _output(str(pipe), programme, ALL)
    output.start()
    wait_for(lambda: output.pid, 10, "no process")
    for k in range(10):
        for packet, kind in programme.next():
            if kind == "audio":
                output.offer(packet, kind)
            else:
                frame = _frame(k, "repeated" if k == 9 else "")
                output.offer(packet, kind, Delivery(frame, 1, done.append))
    offered = now()
    time.sleep(late)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        wait_for(lambda: _drained(reader) and len(done) == 10, 20, "not sent")
    finally:
        output.close()
        os.close(reader)
    assert [frame.index for frame in done] == list(range(10))
    assert all(frame.stamps.sent > offered + late for frame in done)
    assert all(stage_ms(frame)[-1] > 1000 * late for frame in done)
    facts = output.facts()
    assert facts["queue_ms"]["max"] > 1000 * late
    assert facts["send_ms"]["max"] < 1000 * late
    assert (facts["pictures"], facts["pictures_dropped"]) == (9, 0)  # one is a repeated frame


def test_pictures_that_an_output_never_sends_are_its_own(tmp_path: Path) -> None:
    programme, done = Programme(), list[Frame]()
    urls = (f"rtmp://127.0.0.1:{free_port()}/live/a", str(tmp_path / "out.ts"))
    outputs = [_output(url, programme, ALL)[0] for url in urls]
    for output in outputs:
        output.start()
    _opened(outputs[1])
    for k in range(FPS):
        for packet, kind in programme.next():
            delivery = Delivery(_frame(k), 2, done.append) if kind == "video" else None
            for output in outputs:
                output.offer(packet, kind, delivery)
    close_outputs(outputs, 3)
    assert len(done) == FPS
    assert not any(math.isnan(frame.stamps.sent) for frame in done)  # the other output sent them
    counts = [(o.state.pictures, o.state.pictures_dropped) for o in outputs]
    assert counts == [(0, FPS), (FPS, 0)]
    assert outputs[0].facts()["queue_ms"] == {}


def test_packets_for_an_output_that_has_ended_count_as_dropped(tmp_path: Path) -> None:
    programme = Programme()
    output, _ = _output(str(tmp_path / "out.ts"), programme)
    output.close()
    offered = [packet for _ in range(5) for packet in programme.next()]
    for packet, kind in offered:
        output.offer(packet, kind)
    assert output.state.dropped == len(offered)


def test_what_cannot_be_published_to_is_refused() -> None:
    programme = Programme()
    with pytest.raises(
        UsageError, match=r"cannot publish to gopher://; use one of rtmp://"
    ) as info:
        _output(f"gopher://host/{SECRETS[0]}", programme)
    assert SECRETS[0] not in str(info.value)
    with pytest.raises(UsageError, match=r"neither a URL.*nor a file"):
        _output("out.txt", programme)


def _put(queue: PacketQueue, *records: tuple[float, bool]) -> None:
    for at, begins in records:
        queue.put(Record(b"x" * 10, begins, at))


def test_a_queue_that_nobody_takes_from_keeps_what_one_may_begin_with() -> None:
    queue = PacketQueue(4.0, 1000, 1.0)
    _put(queue, (0.0, False), (0.1, False))
    assert (len(queue), queue.dropped) == (0, 2)
    _put(queue, (0.2, True), (0.7, False), (0.9, True), (1.1, False))
    assert (len(queue), queue.dropped) == (4, 2)
    _put(queue, (1.3, False))  # the first key frame is too old now
    assert (len(queue), queue.dropped, queue.bytes) == (3, 4, 30)
    _put(queue, (2.0, False), (2.1, False))
    assert (len(queue), queue.dropped, queue.needs_key_frame) == (0, 9, False)
    queue.begin_session()
    assert queue.needs_key_frame
    _put(queue, (2.2, False), (2.3, True))
    assert (len(queue), queue.needs_key_frame) == (1, False)


@pytest.mark.parametrize("times", [[0.0, 2.0, 4.1], [0.0] * 101])
def test_a_queue_overflows_by_time_or_bytes_and_begins_anew(times: list[float]) -> None:
    queue = PacketQueue(4.0, 1000, 1.0)
    queue.begin_session()
    _put(queue, (0.0, True), *((at, False) for at in times[1:]))
    assert queue.skips == 1
    assert (len(queue), queue.bytes, queue.dropped) == (0, 0, len(times))
    assert queue.needs_key_frame
    _put(queue, (4.5, False))
    assert (len(queue), queue.dropped) == (0, len(times) + 1)
    queue.end_session()
    _put(queue, (5.0, False), (5.1, True))
    assert len(queue) == 1


def test_a_session_that_ends_leaves_the_last_key_frame_for_the_next() -> None:
    queue = PacketQueue(4.0, 1000, 1.0)
    queue.begin_session()
    _put(queue, (0.0, True), (0.1, False), (0.2, True), (0.3, False))
    assert queue.take() is not None
    queue.end_session()
    assert (len(queue), queue.dropped) == (2, 1)
