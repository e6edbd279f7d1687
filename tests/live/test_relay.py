"""`vsr relay` as a separate process that reads from a real server and publishes to it."""

import itertools
import signal
import time
from pathlib import Path

import av
import pytest

from tests.programs import needs_nginx
from tests.rtmp import FPS, Proxy, Server, free_port, wait_for
from tests.streams import (
    Marked,
    Publisher,
    Recorder,
    RelayProcess,
    make_marked,
)

pytestmark = needs_nginx
SOON = 15.0
"""Limit that detects hangs even on a busy machine, in seconds; `bench/` measures the times."""
PAUSE = 2.0
"""Longest timestamp step of an output without pauses, in seconds; the outages here are longer."""
START = 40.0
"""Longest wait for a process to start on a busy machine, in seconds."""


def _assert_forward(viewer: Recorder) -> None:
    for kind in ("video", "audio"):
        times = [s.dts for s in viewer.of(kind)]
        assert len(times) > 10
        assert all(a < b for a, b in itertools.pairwise(times)), kind


def _assert_ended(relay: RelayProcess, took: float) -> None:
    assert took < SOON
    assert relay.process.returncode == 130, relay.said
    assert relay.report["interrupted"]
    assert "Traceback" not in relay.said


def _times(clip: Path) -> tuple[float, dict[bytes, float]]:
    """Return the time of a clip's first frame, and of each audio packet by its data (s)."""
    sounds, first = {}, []
    with av.open(str(clip)) as source:
        for packet in source.demux():
            if packet.pts is None or packet.time_base is None:
                continue
            at = float(packet.pts * packet.time_base)
            if packet.stream.type == "audio":
                sounds[bytes(packet)] = at
            else:
                first.append(at)
    return min(first), sounds


def test_a_stream_goes_through(tmp_path: Path) -> None:
    """With B-frames, as OBS sends them. A signal stops the relay in normal operation."""
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=20, b_frames=2))
    with (
        Server(tmp_path / "nginx") as server,
        RelayProcess(tmp_path, server.url("k3y"), server.url("out"), model="c-dcscn") as relay,
        Recorder(server.url("out")) as viewer,
        Publisher(server.url("k3y"), clip),
    ):
        wait_for(lambda: len(viewer.of("video")) > 6 * FPS, START, relay.said)
        _assert_ended(relay, relay.stop())
        viewer.stop()
    assert (viewer.size, viewer.codec, viewer.audio) == ((320, 180), "h264", ("aac", 48_000))
    assert viewer.seen[0].kind == "video"
    assert viewer.seen[0].key
    _assert_forward(viewer)
    shown, report = viewer.shown(), relay.report
    numbers = [number for number, _ in shown]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    frames = report["frames"]
    assert frames["in"] == frames["out"] == len(numbers)
    assert (frames["dropped"], report["live"]["repeated"], report["live"]["nudged"]) == (0, 0, 0)
    begin, sounds = _times(clip)
    picture = {round(at - begin - number / FPS, 3) for number, at in shown}
    sound = [at - sounds[data] for kind, at, data in viewer.packets if kind == "audio"]
    assert len(sound) > 100
    assert max(picture) - min(picture) <= 0.002
    assert max(abs(a - b) for a in sound for b in picture) < 0.04
    keys = [s.pts for s in viewer.of("video") if s.key]
    assert [b - a for a, b in itertools.pairwise(keys)] == pytest.approx([2.0] * (len(keys) - 1))
    assert report["output"]["rungs"] == ["c-dcscn", "bicubic"]
    assert {row["rung"] for row in report["ledger"]} <= {"c-dcscn", "bicubic"}
    assert [row["index"] for row in report["ledger"]] == list(range(len(numbers)))
    assert set(report["stages"]) == {"decode", "wait", "infer", "encode", "mux", "total"}
    assert "k3y" not in relay.said + relay.report_path.read_text()


def test_a_killed_publisher_is_waited_for_and_never_missed_by_viewers(tmp_path: Path) -> None:
    """The publisher returns once before the timeout, on the same connection, and once after."""
    before = make_marked(tmp_path / "1.flv", Marked(seconds=20))
    again = make_marked(tmp_path / "2.flv", Marked(seconds=20, first=300))
    other = make_marked(tmp_path / "3.flv", Marked(seconds=20, first=600, size=(320, 180)))
    with (
        Server(tmp_path / "nginx") as server,
        RelayProcess(
            tmp_path, server.url("in"), server.url("out"),
            "--stream-timeout", "2", "--slate-after", "1",
        ) as relay,
        Recorder(server.url("out")) as viewer,
    ):  # fmt: skip
        publisher = Publisher(server.url("in"), before)
        wait_for(lambda: len(viewer.of("video")) > 2 * FPS, START, relay.said)
        backs = []
        for clip, gone in ((again, 0.8), (other, 3.5)):
            publisher.kill()
            time.sleep(gone)
            began = time.monotonic()
            publisher = Publisher(server.url("in"), clip)
            first = 300 * len(backs) + 300

            def is_back(first: int = first) -> bool:
                return any(first <= number < 900 for number, _ in viewer.shown()[-200:])

            wait_for(is_back, START, relay.said)
            backs.append(time.monotonic() - began)
            time.sleep(2)
        publisher.kill()
        relay.await_words("sent no data for 2 s", START, 2)
        _assert_ended(relay, relay.stop(signal.SIGINT))
        viewer.stop()
    assert max(backs) < SOON, backs
    _assert_forward(viewer)
    report, shown = relay.report, viewer.shown()
    assert viewer.pause() < SOON
    assert report["live"]["sessions"] in (2, 3)  # 3 if the first return comes too late
    assert report["live"]["repeated"] > 4 * FPS
    assert 0.5 * report["frames"]["in"] < report["frames"]["out"]  # all, if fast enough
    for kind in ("video", "audio"):  # repeated frames and silence keep the usual rate
        times = [at for got, at, _ in viewer.packets if got == kind]
        steps = [b - a for a, b in itertools.pairwise(times)]
        assert max(steps) < PAUSE
        assert sorted(steps)[len(steps) // 2] == pytest.approx(
            1 / FPS if kind == "video" else 1024 / 48_000, abs=0.002
        )
        # output times follow the wall clock: the viewer's delay stays what it was at first
        came = [s.arrived for s in viewer.of(kind)]
        assert abs((times[-1] - times[0]) - (came[-1] - came[0])) < 3  # outages of 4.3 s
    assert {number // 300 for number, _ in shown} >= {0, 1, 2}
    assert viewer.size == (320, 180)


def test_a_dead_output_comes_back_and_the_other_never_pauses(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=40))
    with (
        Server(tmp_path / "a") as good,
        Server(tmp_path / "b") as bad,
        RelayProcess(tmp_path, good.url("in"), good.url("out"), bad.url("s3cret")) as relay,
        Recorder(good.url("out")) as kept,
        Recorder(bad.url("s3cret")) as first,
        Publisher(good.url("in"), clip),
    ):
        wait_for(lambda: len(first.of("video")) > 2 * FPS, START, relay.said)
        bad.kill()
        since = time.monotonic()
        time.sleep(4)
        bad.start()
        back = time.monotonic()
        with Recorder(bad.url("s3cret")) as second:
            wait_for(lambda: len(second.of("video")) > FPS, START, relay.said)
            resumed = second.seen[0].arrived - back
            assert second.of("video")[0].key
            assert second.of("video")[0].dts > first.of("video")[-1].dts
            bad.kill()
            relay.await_words("; retrying", START, 2)
        _assert_ended(relay, relay.stop())
        kept.stop()
    assert resumed < SOON
    assert kept.pause(since) < SOON
    _assert_forward(kept)
    report = relay.report
    steps = [b - a for (a, _), (b, _) in itertools.pairwise(kept.shown())]
    assert min(steps) >= 0  # a slow machine repeats or drops frames
    assert steps.count(0) <= report["live"]["repeated"]
    assert sum(step - 1 for step in steps if step) <= report["frames"]["dropped"]
    one, two = report["live"]["outputs"]
    assert (one["dropped"], one["reconnects"], two["reconnects"]) == (0, 0, 1)
    assert relay.said.count("lost") + relay.said.count("; retrying") <= 4
    assert "s3cret" not in relay.said + relay.report_path.read_text()


def test_a_stalled_source_is_noticed_and_a_jam_leaves_no_delay_behind(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=40))
    with (
        Server(tmp_path / "nginx") as server,
        Proxy(server.port) as proxy,
        RelayProcess(
            tmp_path, f"rtmp://127.0.0.1:{proxy.port}/live/in", server.url("out"),
            "--stream-timeout", "3",
        ) as relay,
        Recorder(server.url("out")) as viewer,
        Publisher(server.url("in"), clip),
    ):  # fmt: skip
        wait_for(lambda: len(viewer.of("video")) > 2 * FPS, START, relay.said)
        proxy.stalled.set()
        time.sleep(2)
        proxy.stalled.clear()
        time.sleep(3)
        proxy.stalled.set()
        stalled = time.monotonic()
        relay.await_words("sent no data for 3 s", START)
        noticed = time.monotonic() - stalled
        proxy.stalled.clear()
        relay.await_words("source reconnected", START)
        count = len(viewer.of("video"))
        wait_for(lambda: len(viewer.of("video")) > count + FPS, START, relay.said)
        proxy.stalled.set()
        time.sleep(1)
        _assert_ended(relay, relay.stop())
        viewer.stop()
    assert noticed < 3 + SOON
    assert viewer.pause() < SOON
    _assert_forward(viewer)
    live = relay.report["live"]
    assert live["skipped"] > FPS / 2
    assert "arrived in a burst after a pause" in relay.said
    assert "too late, even for bicubic" not in relay.said
    assert live["sessions"] == 2
    shown = viewer.shown()
    delays = [s.arrived - at for s, (_, at) in zip(viewer.of("video"), shown, strict=True)]
    assert abs(delays[-1] - delays[0]) < 3  # stalled for 5 s


def test_a_source_that_never_comes_is_waited_for_until_a_signal(tmp_path: Path) -> None:
    with Server(tmp_path / "nginx") as server:
        urls = {
            "silent": server.url("n0body"),
            "refused": f"rtmp://user:pa55@127.0.0.1:{free_port()}/live/n0body?sign=t0ken",
        }
        relays = {
            name: RelayProcess(tmp_path / name, url, server.url("out"))
            for name, url in urls.items()
        }
        try:
            relays["refused"].await_words("retrying", START)
            time.sleep(2)
            for relay in relays.values():
                _assert_ended(relay, relay.stop())
                assert relay.report["frames"]["in"] == 0
                assert "nothing was published" in relay.said
                for secret in ("n0body", "pa55", "t0ken"):
                    assert secret not in relay.said + relay.report_path.read_text()
        finally:
            for relay in relays.values():
                relay.__exit__()
    lines = relays["refused"].said.splitlines()
    assert "Connection refused; retrying" in lines[0]
    assert len(lines) <= 4  # the same error is logged once
