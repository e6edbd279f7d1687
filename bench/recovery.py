"""Measures how soon a relay's viewers see the source again after a fault: a table.

`python -m bench.recovery [--times N]`, from the repository's root. Needs nginx with its RTMP
module. A killed process is restarted after three seconds; the time runs from the restart to the
first frame of the source that a viewer receives.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.output import print_line
from bench.start import first_picture
from tests.flash_beep import Clip, Process, make_clip
from tests.rtmp import Server
from tests.streams import RelayProcess

_CLIP: Final = Clip(seconds=60)
_BEFORE_FAULT_S: Final = 3.0
_PROBE_S: Final = 8.0
"""Time, in seconds, for a viewer that probes a stream as long as players do."""
_DOWN_S: Final = 3.0
_WATCHED_S: Final = 16.0
_TIMEOUT_S: Final = 60.0


class Bench:
    """Runs a publisher, the source's server, a relay and the output's server."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._clip = make_clip(folder / "clip.flv", _CLIP)
        self.source = stack.enter_context(Server(folder / "source"))
        self.output = stack.enter_context(Server(folder / "output"))
        self.publish()
        relay = RelayProcess(folder / "relay", self.source.url("in"), self.output.url("out"))
        self._relay = stack.enter_context(relay)
        self._relay.await_words("connected")

    def publish(self) -> None:
        """Publish the clip from its beginning."""
        words = ("publish", self.source.url("in"), self._clip, 0.0, _CLIP.seconds)
        self.publisher = self._stack.enter_context(Process(*words))

    def view(self) -> Process:
        """Watch the output."""
        return self._stack.enter_context(Process("view", self.output.url("out"), _WATCHED_S))


def kill_publisher(bench: Bench) -> float:
    """Kill the publisher; return the seconds until its next pictures are seen."""
    viewer = bench.view()
    time.sleep(_PROBE_S)
    bench.publisher.process.kill()
    time.sleep(_DOWN_S)
    bench.publish()
    return _again(viewer, time.monotonic())


def kill_source_server(bench: Bench) -> float:
    """Kill the server that the relay reads from, and the publisher."""
    viewer = bench.view()
    time.sleep(_PROBE_S)
    bench.source.kill()
    bench.publisher.process.kill()
    time.sleep(_DOWN_S)
    bench.source.start()
    bench.publish()
    return _again(viewer, time.monotonic())


def kill_output_server(bench: Bench) -> float:
    """Kill the server that the relay publishes to, which disconnects its viewers."""
    bench.output.kill()
    time.sleep(_DOWN_S)
    bench.output.start()
    back = time.monotonic()
    return first_picture(bench.output.url("out")) - back


FAULTS: Final[dict[str, Callable[[Bench], float]]] = {
    "publisher killed": kill_publisher,
    "the source's server killed": kill_source_server,
    "the output's server killed": kill_output_server,
}


def _again(viewer: Process, back: float) -> float:
    """Return the seconds from `back` until the restarted clip is seen; its numbers are lower."""
    view = viewer.view(_TIMEOUT_S)
    before = max(n for n, wall in zip(view.numbers, view.walls, strict=True) if wall < back)
    seen = zip(view.numbers, view.walls, strict=True)
    return next(wall for number, wall in seen if wall >= back and number < before) - back


def main(words: list[str] | None = None) -> None:
    """Print a row for each fault."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args(words)
    print_line("| killed for 3 s | recovery s (median, min, max) |\n| --- | --- |")
    for name, fault in FAULTS.items():
        took = []
        for _ in range(given.times):
            with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
                bench = Bench(Path(folder), stack)
                time.sleep(_BEFORE_FAULT_S)
                took.append(fault(bench))
        print_line(f"| {name} | {statistics.median(took):.2f}, {min(took):.2f}, {max(took):.2f} |")


if __name__ == "__main__":
    main()
