"""Sources of `vsr relay`: noise, no stream, HEVC, changed sizes, late audio, damaged files."""

import contextlib
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import pytest
from click.testing import CliRunner

from tests.programs import needs_nginx
from tests.relay_fuzz import HEADER, LIMIT_S, Tag, mutants, tags
from tests.rtmp import FPS, Server, free_port, wait_for
from tests.streams import ROOT, Marked, Publisher, Recorder, RelayProcess, make_marked
from vsr.cli.main import main
from vsr.live.audio import OutputAudio
from vsr.live.clock import OutputClock
from vsr.live.input.source import LiveSource
from vsr.media.frame import Frame

START = 40.0
"""Longest wait for a process to start on a busy machine, in seconds."""
SOON = 15.0
"""Limit that detects hangs even on a busy machine, in seconds; `bench/` measures the times."""
NOISE = random.Random(1).randbytes(1 << 16)
WEB = b"HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\n\r\n"
FLV = b"FLV\1\5\0\0\0\x09\0\0\0\0"
FLV_NO_SOUND = b"FLV\1\1\0\0\0\x09\0\0\0\0"


class Port:
    """A loopback port that calls a function for every client, each on a separate thread."""

    def __init__(self, treat: Callable[[socket.socket], None]) -> None:
        self._treat, self.visits = treat, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Port":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor, _ = self._listener.accept()
                self.visits += 1
                threading.Thread(target=self._one, args=(visitor,), daemon=True).start()

    def _one(self, visitor: socket.socket) -> None:
        with contextlib.suppress(OSError), visitor:
            self._treat(visitor)


def _noise(visitor: socket.socket) -> None:
    while True:
        visitor.sendall(NOISE)


def _handshake(visitor: socket.socket) -> None:
    """Complete the RTMP handshake, then send noise."""
    heard = b""
    while len(heard) < 1537:
        heard += visitor.recv(4096)
    visitor.sendall(b"\3" + 2 * heard[1:1537])
    _noise(visitor)


def _silence(visitor: socket.socket) -> None:
    while visitor.recv(4096):
        pass


def _page(visitor: socket.socket) -> None:
    visitor.recv(4096)
    visitor.sendall(WEB + b"<html>no stream here</html>")


def _drip(visitor: socket.socket) -> None:
    visitor.recv(4096)
    visitor.sendall(WEB + FLV)
    for byte in itertools.cycle(NOISE):
        visitor.sendall(bytes([byte]))
        time.sleep(0.01)


def test_noise_on_the_port_is_told_in_a_line_and_holds_nothing_up(tmp_path: Path) -> None:
    no_stream = "no server answers there, or it is not a stream"
    no_video = "sends data that is not a video"
    told = {
        ("rtmp", _noise): "no RTMP server answers there",
        ("rtmp", _handshake): "no RTMP server answers there",
        ("rtmp", _page): "cannot open rtmp://",
        ("http", _noise): no_video,
        ("http", _page): no_stream,
        ("rtsp", _page): no_video,
    }
    waits = [("rtmp", _silence), ("http", _drip)]
    with contextlib.ExitStack() as stack:
        ports: list[Port] = []

        def typed(scheme: str, treat: Callable[[socket.socket], None]) -> list[str]:
            ports.append(stack.enter_context(Port(treat)))
            port = ports[-1].port
            url, target = f"{scheme}://127.0.0.1:{port}/live/in", tmp_path / f"{port}.mkv"
            return [url, str(target), "--retry-max", "1"]

        stuck = [
            stack.enter_context(RelayProcess(tmp_path / case[0], *typed(*case))) for case in waits
        ]
        wait_for(lambda: all(port.visits for port in ports), START, "nobody came")
        usual = ("relay", "--model", "bicubic")
        ends = [CliRunner().invoke(main, [*usual, *typed(*case)]) for case in told]
        assert [one.stop() < SOON for one in stuck] == [True, True]
    for end, words in zip(ends, told.values(), strict=True):
        assert end.exit_code == 1
        assert end.stderr.startswith("vsr: error: ")
        assert end.stderr.count("\n") == 1
        assert words in end.stderr
    assert "Traceback" not in "".join(one.said for one in stuck)
    assert [one.process.returncode for one in stuck] == [130, 130]


@needs_nginx
def test_a_stream_that_nobody_publishes_and_an_application_that_is_missing(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=1))
    usual = ("relay", "--model", "bicubic", "--retry-max", "1")
    with Server(tmp_path / "nginx", "idle_streams off;") as server:
        absent, key = server.url("absent"), f"rtmp://127.0.0.1:{server.port}/k3y"
        nobody = CliRunner().invoke(main, [*usual, absent, str(tmp_path / "out.mkv")])
        refused = CliRunner().invoke(main, [*usual, str(clip), key])
        capitals = server.url("a").replace("rtmp", "RTMP")
        sent = CliRunner().invoke(main, [*usual, str(clip), capitals])
    assert "nobody publishes this stream, or no RTMP server answers there" in nobody.stderr
    assert "is the URL rtmp://HOST/APPLICATION/KEY?" in refused.stderr
    assert "k3y" not in refused.stderr
    assert sent.exit_code == 0, sent.stderr


def test_an_output_that_answers_noise_holds_no_other_back(tmp_path: Path) -> None:
    clip, target = make_marked(tmp_path / "in.flv", Marked(seconds=2)), tmp_path / "out.mkv"
    with Port(_noise) as noise, Port(_silence) as silent:
        urls = [f"rtmp://127.0.0.1:{p.port}/live/k3y" for p in (noise, silent)]
        with RelayProcess(tmp_path, str(clip), *urls, str(target)) as relay:
            relay.process.wait(START)
    assert relay.process.returncode == 3, relay.said  # the worst output decides the code
    assert "k3y" not in relay.said
    assert relay.said.count(f"{2 * FPS} frames were not sent, 0 were sent") == 2
    noisy, quiet, good = relay.report["live"]["outputs"]
    assert (noisy["pictures_dropped"], quiet["pictures_dropped"]) == (2 * FPS, 2 * FPS)
    assert (good["pictures"], good["pictures_dropped"]) == (2 * FPS, 0)
    assert relay.report["frames"]["out"] == 2 * FPS
    assert noisy["last_error"]
    assert noisy["packets"] == quiet["packets"] == 0
    assert good["dropped"] == 0
    with av.open(str(target)) as out:
        assert sum(1 for _ in out.decode(video=0)) == 2 * FPS


SERVE = """
import sys, time, av
url, clip = sys.argv[1:]
with av.open("[f=flv:listen=1]" + url, "w", format="tee") as out, av.open(clip) as source:
    streams = [out.add_stream_from_template(s, opaque=True) for s in source.streams]
    began = time.monotonic()
    for packet in source.demux():
        if packet.dts is not None:
            time.sleep(max(0.0, began + float(packet.dts * packet.time_base) - time.monotonic()))
            packet.stream = streams[packet.stream.index]
            out.mux_one(packet)
"""
"""FFmpeg as an RTMP server for one client; it sends codecs that nginx's module does not support."""


def test_hevc_over_rtmp_is_taken(tmp_path: Path) -> None:
    """In the format of Enhanced RTMP; the server exits at the end of the clip."""
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=4, codec="libx265"))
    port, target = free_port(), tmp_path / "out.mkv"
    url = f"rtmp://127.0.0.1:{port}/live/k3y"
    with (
        subprocess.Popen(
            [sys.executable, "-c", SERVE, url, str(clip)], stderr=subprocess.DEVNULL
        ) as server,
        RelayProcess(tmp_path, url, str(target), "--retry-max", "1") as relay,
    ):
        try:
            relay.process.wait(START)
        finally:
            server.kill()
    assert relay.process.returncode == 1
    assert "Connection refused; stopped after attempt 1 (--retry-max)" in relay.said
    assert relay.report["input"]["codec"] == "hevc"
    assert relay.report["frames"]["in"] > 0
    assert relay.report["frames"]["dropped"] == 0
    with av.open(str(target)) as out:
        assert [s.codec_context.name for s in out.streams] == ["h264", "aac"]
        assert sum(1 for _ in out.decode(video=0)) >= relay.report["frames"]["in"]


def _joined(path: Path, clips: Sequence[Path]) -> Path:
    """Write clips end to end into one FLV file, each with its codec headers."""
    found: list[Tag] = []
    shift = 0
    for clip in clips:
        part = [tag for tag in tags(clip.read_bytes()) if tag.kind != 18]
        for tag in part:
            tag.time += shift
        found += part
        shift = max(tag.time for tag in part) + 1000 // FPS
    path.write_bytes(FLV + b"".join(tag.packed() for tag in found))
    return path


@needs_nginx
def test_a_stream_over_rtmp_changes_its_size_on_the_way(tmp_path: Path) -> None:
    kinds = (
        Marked(seconds=6, first=0),
        Marked(seconds=1, first=300, size=(320, 180)),
        Marked(seconds=1, first=400, size=(96, 54)),
        Marked(seconds=2, first=500),
    )
    clips = [make_marked(tmp_path / f"{k}.flv", kind) for k, kind in enumerate(kinds)]
    whole = _joined(tmp_path / "whole.flv", clips)
    with (
        Server(tmp_path / "nginx") as server,
        RelayProcess(
            tmp_path, server.url("in"), server.url("out"), "--stream-timeout", "1"
        ) as relay,
        Recorder(server.url("out")) as viewer,
        Publisher(server.url("in"), whole) as publisher,
    ):
        publisher.process.wait(START)
        relay.await_words("repeating the last frame", START)
        assert relay.stop() < SOON
        viewer.stop()
    assert "changes size to 320x180 mid-stream: its frames are resized to 160x90" in relay.said
    assert viewer.size == (320, 180)
    shown = [number for number, _ in viewer.shown()]
    assert shown == sorted(shown)  # a busy machine may drop frames, but never reorder them
    for part in (range(150), range(300, 325), range(400, 425), range(500, 550)):
        assert set(part) & set(shown)
    report = relay.report
    assert report["live"]["sessions"] == 1
    assert {"resized"} <= {row["event"] for row in report["ledger"]}
    assert viewer.pause() < SOON
    for kind in ("video", "audio"):
        assert all(a.dts < b.dts for a, b in itertools.pairwise(viewer.of(kind)))


def test_a_recording_over_http_that_is_cut_off_is_told(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=4)).read_bytes()
    answers = iter([clip[: len(clip) // 2]])

    def serve(visitor: socket.socket) -> None:
        visitor.recv(4096)
        body = next(answers, b"")
        head = f"200 OK\r\nContent-Length: {len(clip)}" if body else "404 Not Found"
        visitor.sendall(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)

    target = tmp_path / "out.mkv"
    with Port(serve) as port:
        url = f"http://127.0.0.1:{port.port}/in.flv?key=k3y"
        words = (url, str(target), "--realtime", "--retry-max", "2")
        with RelayProcess(tmp_path, *words) as relay:
            relay.process.wait(START)
    assert relay.process.returncode == 1
    assert "repeating the last frame, retrying" in relay.said
    assert "404 Not Found; stopped after attempt 2 (--retry-max)" in relay.said
    assert "k3y" not in relay.said
    assert FPS < relay.report["frames"]["in"] < 3 * FPS


def _relayed(folder: Path, **files: bytes) -> Iterator[tuple[RelayProcess, dict[str, list[float]]]]:
    """Relay files to their ends; yield each relay and its output's packet times by kind (s)."""
    targets = {name: folder / f"{name}.mkv" for name in files}
    with contextlib.ExitStack() as stack:
        relays = {}
        for name, data in files.items():
            source = folder / f"{name}-in.flv"
            source.write_bytes(data)
            relay = RelayProcess(folder / name, str(source), str(targets[name]))
            relays[name] = stack.enter_context(relay)
        for name, relay in relays.items():
            relay.process.wait(START)
            assert relay.process.returncode == 0, relay.said
            times: dict[str, list[float]] = {"video": [], "audio": []}
            with av.open(str(targets[name])) as out:
                for packet in out.demux():
                    if packet.pts is not None and packet.time_base is not None:
                        times[packet.stream.type].append(float(packet.pts * packet.time_base))
            yield relay, times


def test_sound_goes_on_where_it_leaps_before_the_pictures(tmp_path: Path) -> None:
    data = make_marked(tmp_path / "in.flv", Marked(seconds=3)).read_bytes()
    files = {}
    for leap_s in (3600, 2_147_483):
        found = tags(data)
        place = next(k for k, tag in enumerate(found) if tag.kind == 8 and tag.time > 1500)
        for tag in found[place:]:
            tag.time += 1000 * leap_s
        files[str(leap_s)] = data[:HEADER] + b"".join(tag.packed() for tag in found)
    for relay, times in _relayed(tmp_path, **files):
        assert relay.report["live"]["jumps"] == 1
        assert relay.report["live"]["outputs"][0]["reconnects"] == 0
        for kind in times:
            assert times[kind][-1] == pytest.approx(3, abs=0.2)
            assert max(b - a for a, b in itertools.pairwise(times[kind])) < 0.2
            assert all(a < b for a, b in itertools.pairwise(times[kind]))


def test_sound_that_cannot_be_decoded_leaves_silence(tmp_path: Path) -> None:
    """Its header is lost or of an unsupported kind. Many players stop if the audio stops."""
    data = make_marked(tmp_path / "in.flv", Marked(seconds=3)).read_bytes()
    found = [tag for tag in tags(data) if tag.kind != 18]
    head = next(tag for tag in found if tag.kind == 8)
    without = FLV + b"".join(tag.packed() for tag in found if tag is not head)
    head.data[2:4] = b"\xfa\x10"
    unknown = FLV + b"".join(tag.packed() for tag in found)
    for _, times in _relayed(tmp_path, without=without, unknown=unknown):
        assert len(times["video"]) == 3 * FPS
        assert times["audio"][-1] > 2.5


def test_sound_that_comes_up_on_the_way_ends_no_source(tmp_path: Path) -> None:
    """The file header does not announce it, so probing did not wait and PyAV has no stream."""
    found = tags(make_marked(tmp_path / "in.flv", Marked(seconds=7)).read_bytes())
    head = next(tag for tag in found if tag.kind == 8)
    late = [tag for tag in found if tag.kind == 9 or (tag.kind == 8 and tag.time > 6000)]
    place = next(k for k, tag in enumerate(late) if tag.kind == 8)
    late.insert(place, Tag(8, late[place].time, head.data))
    path = tmp_path / "late.flv"
    path.write_bytes(FLV_NO_SOUND + b"".join(tag.packed() for tag in late))
    with contextlib.closing(LiveSource(str(path), 5.0)) as source:
        assert source.audio is None
        assert sum(isinstance(item, Frame) for item in source) == 7 * FPS


def test_the_clock_gives_no_time_to_sound_that_leaps_ahead() -> None:
    clock = OutputClock(0.04)
    clock.place_frame(10.0, 0.0)
    assert clock.place_audio(13.0) == pytest.approx(3.0)
    assert clock.place_audio(3610.0) is None
    clock.place_frame(3610.0, 0.04)
    assert clock.place_audio(3610.5) == pytest.approx(0.54, abs=0.01)


def test_sound_of_unknown_layout_becomes_stereo() -> None:
    unknown = av.CodecContext.create("aac", "r")
    assert isinstance(unknown, av.AudioCodecContext)
    assert unknown.layout.nb_channels == 0
    context = OutputAudio(unknown).context
    assert (context.layout.name, context.rate) == ("stereo", 48_000)


def test_no_damaged_file_ends_or_holds_up_a_relay(tmp_path: Path) -> None:
    """Relay 12 damaged files, or 200 with VSR_ALL_FUZZ=1."""
    number = 200 if os.environ.get("VSR_ALL_FUZZ") == "1" else 12
    kinds = (
        Marked(seconds=1.2, b_frames=1),
        Marked(seconds=1.2, sound="libmp3lame", rate=44_100),
        Marked(seconds=1.2, codec="libx265"),
        Marked(seconds=1.2, sound=None),
    )
    valid = [make_marked(tmp_path / f"{k}.flv", kind) for k, kind in enumerate(kinds)]
    folder = tmp_path / "mutants"
    folder.mkdir()
    for k, data in enumerate(mutants(number, *(path.read_bytes() for path in valid))):
        (folder / f"{k:03}.flv").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "tests.relay_fuzz", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=number * LIMIT_S / 4, check=False,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {rows[-1:]}: {done.stderr[-3000:]}"
    assert len(rows) == number
    ends = Counter(became for _, _, _, became, _ in rows)
    assert ends.keys() <= {"ended", "refused"}, [row for row in rows if row[3] not in ends]
    assert ends["ended"] > number / 2
    for name, pictures, _, became, words in rows:
        assert "\n" not in words
        assert "unexpectedly" not in words, name
        assert (pictures > 0) == (became == "ended"), (name, words)
