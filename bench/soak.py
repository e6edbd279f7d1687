"""Checks that a relay stays stable: runs a real `vsr relay` and samples it every second.

`python -m bench.soak --minutes N [--faults] [--output soak.csv]`, from the repository's root: a
publisher, nginx-rtmp, the relay and a viewer, each a process (except the viewer). Prints a table
of the first and the last minute, and whether memory, files and threads are stable.
"""

import argparse
import csv
import json
import os
import random
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.output import print_line
from bench.soak_figures import (
    COLUMNS,
    MINUTE_S,
    Sample,
    instabilities,
    relay_figures,
    resources,
    rung_changes,
    rung_shares,
    table,
)
from bench.soak_stream import Source, Watcher, make_clip
from tests.rtmp import Server, free_port, wait_for
from tests.streams import RelayProcess

_START_TIMEOUT_S: Final = 120.0
"""Timeout for a relay to go live, in seconds, including its engines."""
_RESTART_DELAY_S: Final = 3.0
"""Time before a killed process is restarted, in seconds."""
_HTTP_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Settings of a run; every field is a command-line option."""

    minutes: float
    model: str
    size: tuple[int, int]
    fps: int
    max_latency: int
    every: float
    faults: float
    """Mean interval of faults, in seconds; 0: none."""
    seed: int
    output: Path


@dataclass
class Faults:
    """Kills the publisher or the server at random times, and restarts them."""

    setup: Setup
    server: Server
    source: Source
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.setup.seed)
        self._next = self._random_interval()
        self._back: float | None = None

    def _random_interval(self) -> float:
        """Return a random interval to the next fault, long enough for a recovery in between."""
        return 20.0 + self._random.expovariate(1 / max(1.0, self.setup.faults - 20.0))

    def tick(self, seconds: float) -> None:
        """Make or end the fault that is due `seconds` after the start."""
        if self._back is not None:
            if seconds < self._back:
                return
            if self.done[-1] == "server":
                self.server.start()
            self._back = None
        self.source.revive()
        if self.setup.faults and seconds >= self._next:
            self.done.append(self._random.choice(("publisher", "server")))
            (self.source if self.done[-1] == "publisher" else self.server).kill()
            self._back = seconds + _RESTART_DELAY_S
            self._next = seconds + self._random_interval()


class Soak:
    """All the processes of one run."""

    def __init__(self, setup: Setup, folder: Path, stack: ExitStack) -> None:
        self._setup = setup
        clip = make_clip(folder / "clip.flv", setup.size, setup.fps)
        self.server = stack.enter_context(Server(folder / "nginx"))
        self._status = f"127.0.0.1:{free_port()}"
        self.relay = stack.enter_context(
            RelayProcess(
                folder, self.server.url("in"), self.server.url("out"), "--status", self._status,
                "--max-latency", str(setup.max_latency), model=setup.model,
            )
        )  # fmt: skip
        self.viewer = stack.enter_context(Watcher(self.server.url("out"), clip, setup.fps))
        self.source = stack.enter_context(Source(self.server.url("in"), clip))
        self.faults = Faults(setup, self.server, self.source)
        self.relay.await_words("live: ", _START_TIMEOUT_S)
        wait_for(lambda: self.viewer.counted, _START_TIMEOUT_S, "the viewer received no picture")

    def samples(self) -> Iterator[Sample]:
        """Yield a sample at each interval until the time is up."""
        began, k = time.monotonic(), 0
        while (seconds := time.monotonic() - began) < MINUTE_S * self._setup.minutes:
            self.faults.tick(seconds)
            code = self.relay.process.poll()
            if code is not None:
                said = self.relay.said[-2000:]
                raise SystemExit(
                    f"the relay ended with exit code {code} after {seconds:.0f} s; its log: {said}"
                )
            yield self._sample(seconds)
            k = max(k + 1, int((time.monotonic() - began) / self._setup.every))
            time.sleep(max(0.0, began + k * self._setup.every - time.monotonic()))

    def _sample(self, seconds: float) -> Sample:
        held = resources(self.relay.process.pid)  # before the requests, which start threads
        figures = relay_figures(self._fetch("metrics"))
        minute = json.loads(self._fetch("status.json"))["latency_ms"]["minute"].get("total", {})
        viewer = self.viewer
        given: dict[str, Any] = asdict(held) | {"rung": "", "fps_in": 0.0, "fps_out": 0.0} | figures
        for name in ("frames_in", "dropped", "repeated", "late", "sessions", "reconnects"):
            given[name] = int(given[name])
        for name in ("rss_mib", "fps_in", "fps_out"):
            given[name] = round(given[name], 2)
        return Sample(
            seconds=round(seconds, 3), p50_ms=minute.get("p50", 0.0), p99_ms=minute.get("p99", 0.0),
            published=self.source.sent, viewed=viewer.frames, backward=viewer.backward,
            av_change_ms=round(1000 * viewer.av_change, 3), **given,
        )  # fmt: skip

    def _fetch(self, page: str) -> str:
        with urllib.request.urlopen(
            f"http://{self._status}/{page}", timeout=_HTTP_TIMEOUT_S
        ) as answer:
            return str(answer.read(), "utf-8")

    def totals(self, samples: list[Sample]) -> dict[str, object]:
        """Return the figures of the whole run; call it after the relay's end."""
        viewer, report = self.viewer, self.relay.report
        frames, live = report["frames"], report["live"]
        return {
            "viewer's frames / published, between key frames": (
                "not measured with --faults" if self._setup.faults
                else f"{viewer.counted} / {viewer.published}"
            ),
            "the relay's frames in / out": f"{frames['in']} / {frames['out']}",
            "dropped, repeated, late": (
                f"{frames['dropped']}, {live['repeated']}, {report['deadline']['misses']}"
            ),
            "rung changes (seen in samples)": f"{live['rung_changes']} ({rung_changes(samples)})",
            "share of samples by rung": ", ".join(
                f"{name or 'none'} {share:.0%}" for name, share in rung_shares(samples).items()
            ),
            "A/V offset change, worst (ms)": f"{1000 * viewer.av_worst:.1f}",
            "packets whose DTS did not increase": viewer.backward,
            "viewer's connections": viewer.connections,
            "injected faults": ", ".join(self.faults.done) or "none",
            "total latency p50, p99, max (ms)": ", ".join(
                f"{report['stages']['total'][name]:.1f}" for name in ("p50", "p99", "max")
            ),
        }  # fmt: skip


def soak(setup: Setup) -> list[str]:
    """Run, write the CSV during the run, print the table, and return why it was not flat."""
    os.environ["PYTHONFAULTHANDLER"] = "1"  # a relay that crashes prints its traceback
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        run = Soak(setup, Path(folder), stack)
        with setup.output.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for sample in run.samples():
                samples.append(sample)
                writer.writerow(asdict(sample))
                file.flush()
        took = run.relay.stop()
        totals = run.totals(samples) | {"SIGTERM to exit (s)": f"{took:.2f}"}
    print_line(
        f"{setup.model}, {setup.size[0]}x{setup.size[1]} at {setup.fps} fps, {setup.minutes:g} min"
    )
    print_line(f"\n{table(samples, totals)}\n")
    return instabilities(samples)


def parse_size(text: str) -> tuple[int, int]:
    """Parse `320x180` as (320, 180)."""
    width, height = map(int, text.split("x"))
    return width, height


def parse(words: list[str] | None = None) -> Setup:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--model", default="c-dcscn")
    parser.add_argument("--size", type=parse_size, default=(320, 180), metavar="WxH")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--max-latency", type=int, default=500, metavar="MS")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between samples")
    parser.add_argument(
        "--faults", type=float, nargs="?", const=90.0, default=0.0, metavar="SECONDS",
        help="kill the publisher or the server at this mean interval (default: 90)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("soak.csv"), metavar="CSV")
    setup = Setup(**vars(parser.parse_args(words)))
    if not (0 < setup.fps <= 60 and setup.minutes > 0 and setup.every > 0):
        parser.error("--minutes and --every must be above 0, --fps 1 to 60")
    return setup


def main(words: list[str] | None = None) -> None:
    """Parse, run, and print whether all is flat; exit with 1 if not."""
    setup = parse(words)
    found = soak(setup)
    print_line(f"not stable: {'; '.join(found)}" if found else "stable")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
