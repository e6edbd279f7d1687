"""Tests of how `bench/soak.py` evaluates its samples; only hours of soaking test a relay."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from bench import soak
from bench.soak_figures import (
    COLUMNS,
    Resources,
    Sample,
    first_and_last_minute,
    growth,
    instabilities,
    relay_figures,
    resources,
    rung_changes,
    rung_shares,
    table,
    wrap_difference,
)
from bench.soak_stream import CLIP_S, Watcher, make_clip
from tests.live.test_status import Relay
from tests.rtmp import wait_for
from vsr.live.status.metrics import Metrics

FPS = 5


def sample(seconds: float, **changed: Any) -> Sample:
    given: dict[str, Any] = dict.fromkeys(COLUMNS, 0) | {"rung": "a", "fds": 9, "threads": 12}
    return Sample(**given | {"rss_mib": 200.0, "seconds": seconds} | changed)


def run(seconds: int, value: Callable[[int], dict[str, Any]]) -> list[Sample]:
    return [sample(float(k), **value(k)) for k in range(seconds)]


def test_the_relays_own_metrics_are_read() -> None:
    relay = Relay()
    before = relay_figures(Metrics(relay.board).text("")[0].decode())
    assert "rung" not in before
    relay.go_live()
    relay.run([40.0] * 50)
    relay.run([700.0] * 3, rung="bicubic")
    relay.run([0.0] * 2, event="dropped")
    relay.at += 1
    relay.figures["outputs"][0]["reconnects"] = 2  # the other output has 8
    found = relay_figures(Metrics(relay.board).text("")[0].decode())
    assert (found["frames_in"], found["dropped"], found["late"]) == (55, 2, 3)
    assert (found["repeated"], found["reconnects"], found["rung"]) == (0, 10, "bicubic")
    assert found["fps_in"] == pytest.approx(55 / (55 * 0.04 + 1), rel=0.05)
    assert set(found) < set(COLUMNS)


def test_the_first_minute_is_compared_with_the_last() -> None:
    climbing = run(301, lambda k: {"rss_mib": 200 + 0.1 * k})
    first, last = first_and_last_minute(climbing)
    assert (first[0].seconds, first[-1].seconds) == (0, 60)
    assert (last[0].seconds, last[-1].seconds) == (240, 300)
    assert growth(climbing, "rss_mib") == pytest.approx((203, 227, 24 / 203))
    short = run(41, lambda _: {})
    assert [len(part) for part in first_and_last_minute(short)] == [21, 21]
    assert growth(run(3, lambda _: {"fds": 0}), "fds") == (0, 0, 0)


def test_flat_is_flat() -> None:
    """Occasional peaks are not growth: serving the status page takes a thread and a socket."""
    noisy = random.Random(3)
    flat = run(600, lambda k: {"rss_mib": 200 + noisy.uniform(-4, 4), "fds": 9 + (k % 9 == 0)})
    assert instabilities(flat) == []


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (lambda k: {"rss_mib": 200 + 0.04 * k}, "RSS grew by 10.7%, from 201.2 to 222.8 MiB"),
        (lambda k: {"fds": 9 + k // 300}, "fds changed from 9 to 10"),
        (lambda k: {"threads": 12 - k // 300}, "threads changed from 12 to 11"),
    ],
)
def test_what_is_not_flat_is_named(value: Callable[[int], dict[str, Any]], complaint: str) -> None:
    assert instabilities(run(600, value)) == [complaint]


def test_the_table_and_the_counts() -> None:
    samples = run(240, lambda k: {"rung": "b" if k in (50, 51, 200) else "a", "p99_ms": k})
    lines = table(samples, {"dropped": 7}).splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in lines}
    assert cells["rss_mib"] == ["rss_mib", "200", "200", "+0.0%", "< 5%"]
    assert cells["p99_ms"][1:4] == ["30", "209", "+596.7%"]
    assert "7" in cells["dropped"]
    assert rung_changes(samples) == 4
    assert rung_shares(samples) == {"a": 237 / 240, "b": 3 / 240}
    assert [wrap_difference(s, 16) for s in (0.5, 15.5, -15.5, 33)] == [0.5, -0.5, 0.5, 1.0]


def test_a_process_is_counted_with_its_children() -> None:
    code = (
        "import subprocess, sys, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "child = [sys.executable, '-c', 'import time; f = open(\"/dev/null\"); time.sleep(60)']\n"
        "a = subprocess.Popen(child)\n"
        "print('up', flush=True)\n"
        "sys.stdin.read(); a.kill(); a.wait()\n"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()

        def found() -> Resources:
            return resources(process.pid)

        wait_for(lambda: found().fds == 7, 10, "the child did not open its file")
        held = found()
        process.stdin.close()
    assert (held.processes, held.threads) == (2, 3)
    assert 5 < held.rss_mib < 200
    with pytest.raises(FileNotFoundError):
        resources(process.pid)
    assert resources(os.getpid()).processes >= 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("soak") / "clip.flv", (160, 90), FPS)


def packets(clip: Path) -> Iterator["av.Packet[Any]"]:
    with av.open(str(clip)) as source:  # stays open while its packets are in use
        yield from (p for p in source.demux() if p.dts is not None)


def shown(viewer: Watcher, clip: Path, turns: int, late_s: float = 0.0, lost: int = -1) -> None:
    """Simulate a connection that receives the clip `turns` times, with the video delayed by
    `late_s` seconds. The packet `lost`, 1000 * turn + its place in the clip, is missing."""
    viewer.forget()
    for turn in range(turns):
        for place, packet in enumerate(packets(clip)):
            kind, base = packet.stream.type, packet.time_base
            shift = turn * CLIP_S + (late_s if kind == "video" else 0)
            packet.pts = (packet.pts or 0) + round(shift / base)
            packet.dts = (packet.dts or 0) + round(shift / base)
            if turn * 1000 + place != lost:
                viewer.note(packet)


def test_the_viewer_knows_what_was_published(clip: Path) -> None:
    viewer = Watcher("rtmp://nowhere", clip, FPS)
    shown(viewer, clip, 2)
    frames = CLIP_S * FPS
    assert viewer.frames == 2 * frames
    assert viewer.counted == viewer.published == (2 * CLIP_S - 1) * FPS  # one keyframe per second
    assert viewer.av_worst < 0.003
    shown(viewer, clip, 1, late_s=0.04)  # another connection, compared with the first one's offset
    assert viewer.av_change == pytest.approx(0.04, abs=0.003)
    video = [k for k, p in enumerate(packets(clip)) if p.stream.type == "video"]
    before = viewer.published - viewer.counted
    shown(viewer, clip, 1, lost=video[FPS + 2])
    assert viewer.published - viewer.counted == before + 1


def test_the_viewer_sees_times_that_do_not_go_on(clip: Path) -> None:
    viewer = Watcher("rtmp://nowhere", clip, FPS)
    for place, packet in enumerate(packets(clip)):
        viewer.note(packet)
        if place in (7, 9):
            viewer.note(packet)
    assert viewer.backward == 2


def test_faults_come_by_the_seed_and_go(tmp_path: Path) -> None:
    class Ends:
        """A fake server and publisher that record calls with their times."""

        def __init__(self) -> None:
            self.log: list[tuple[str, float]] = []
            self.at = 0.0

        def kill(self) -> None:
            self.log.append(("kill", self.at))

        def start(self) -> None:
            self.log.append(("start", self.at))

        def revive(self) -> None:
            pass

    def events(seed: int) -> tuple[list[str], list[tuple[str, float]]]:
        ends: Any = Ends()
        setup = soak.parse(["--faults", "60", "--seed", str(seed), "--minutes", "60"])
        faults = soak.Faults(setup, ends, ends)
        for second in range(3600):
            ends.at = float(second)
            faults.tick(float(second))
        return faults.done, ends.log

    done, log = events(1)
    assert (done, log) == events(1) != events(2)
    assert set(done) == {"publisher", "server"}
    assert 40 < len(done) < 80
    kills = [at for what, at in log if what == "kill"]
    assert min(b - a for a, b in pairwise(kills)) >= 20
    starts = [at for what, at in log if what == "start"]
    assert len(starts) == done.count("server")
    assert all(at - 3 in kills for at in starts)


@pytest.mark.parametrize("words", [["--fps", "61"], ["--minutes", "0"], ["--size", "big"]])
def test_what_cannot_be_run_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        soak.parse(words)
    assert words[0] in capsys.readouterr().err
