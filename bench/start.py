"""Measures the time from `vsr relay` to a viewer's first picture, and its CPU time.

`python -m bench.start [MODEL...] [--starts N] [--gop S]`, from the repository's root. Needs nginx
with its RTMP module. nginx sends a new viewer nothing before the source's next key frame, and a
viewer probes a stream before it shows anything. A second viewer, of the source itself, therefore
starts with every relay and measures that part of the time. Starts are at random times between two
key frames.
"""

import argparse
import random
import resource
import statistics
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av

from bench.output import print_line
from tests.rtmp import Server
from tests.streams import Marked, Publisher, RelayProcess, make_marked

_CLIP_S: Final = 120.0
_SIZE: Final = (320, 180)
_PUBLISHER_START_S: Final = 3.0
"""Time for the publisher to start, in seconds."""
_TIMEOUT_S: Final = 60.0
_AUTO: Final = "auto"
"""Name in place of a model: the relay chooses the model."""


def first_picture(url: str) -> float:
    """Watch a URL with little probing; return the time (monotonic) of its first decoded picture."""
    until = time.monotonic() + _TIMEOUT_S
    options = {"rtmp_live": "live", "analyzeduration": "100000", "tcp_nodelay": "1"}
    while time.monotonic() < until:
        with (
            suppress(av.error.FFmpegError, OSError, IndexError),  # IndexError: no video yet
            av.open(url, options=options, timeout=(_TIMEOUT_S, _TIMEOUT_S)) as source,
        ):
            for _ in source.decode(video=0):
                return time.monotonic()
    raise SystemExit(f"no picture within {_TIMEOUT_S:g} s")


@dataclass(frozen=True)
class Start:
    """The times of one start, in seconds."""

    first: float
    """Time to a viewer's first picture of the relay."""
    source: float
    """Time to the first picture of a viewer of the source that starts together with the relay."""
    cpu: float
    """CPU time of the relay until its end, right after the first picture."""


def start(model: str, server: Server, folder: Path) -> Start:
    """Start a relay once."""
    chosen = None if model == _AUTO else model
    out, before = server.url(f"out{time.monotonic_ns()}"), _children_s()
    seen: list[float] = []
    beside = threading.Thread(target=lambda: seen.append(first_picture(server.url("in"))))
    began = time.monotonic()
    beside.start()
    with RelayProcess(folder / model, server.url("in"), out, model=chosen) as relay:
        first = first_picture(out) - began
        relay.stop()
    beside.join()
    return Start(first, seen[0] - began, _children_s() - before)


def _children_s() -> float:
    """Return the CPU time of child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(words: list[str] | None = None) -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    parser.add_argument("models", nargs="*", default=["bicubic", "c-dcscn", _AUTO])
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--gop", type=float, default=1.0, help="seconds between key frames")
    given = parser.parse_args(words)
    print_line("| model | first picture s (median, min, max) | of the source itself | CPU s |")
    print_line("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name, Server(Path(name) / "nginx") as server:
        folder = Path(name)
        clip = Marked(seconds=_CLIP_S, size=_SIZE, gop_s=given.gop)
        with Publisher(server.url("in"), make_marked(folder / "in.flv", clip)):
            time.sleep(_PUBLISHER_START_S)
            for model in given.models:
                found = []
                for _ in range(given.starts):
                    time.sleep(random.uniform(0.0, given.gop))
                    found.append(start(model, server, folder))
                first, source = ([getattr(s, name) for s in found] for name in ("first", "source"))
                cpu = statistics.median(s.cpu for s in found)
                print_line(f"| {model} | {_spread(first)} | {_spread(source)} | {cpu:.2f} |")


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f}, {min(seconds):.2f}, {max(seconds):.2f}"


if __name__ == "__main__":
    main()
