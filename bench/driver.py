"""Measures the cost of the driver of a run with many workers: CPU time, memory, bytes per task.

`python -m bench.driver [--workers 500] [--tasks 2000] [--ms 5] [--kilobytes 256]`, from the
repository's root. The workers are simulated: each returns a segment of `--kilobytes` `--ms` after
it received a clip. Everything else is the driver of `vsr run --cluster` without the network: clips
are cut from a real file and read, segments are written, synchronised and recorded.
"""

import argparse
import heapq
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from tests.clips import Clip as ClipFacts
from tests.clips import make_clip
from vsr.files.crew import Message
from vsr.files.dispatch import Dispatch
from vsr.files.journal import Journal
from vsr.files.journal_lines import Segment
from vsr.files.worker import Place, SegmentResult
from vsr.media.clips import Clip, ClipCutter, Cuts
from vsr.media.reading import Reading
from vsr.report.ledger import Ledger

_RATE: Final = 25
_FRAMES: Final = 5
"""Frames per segment: clips are small, as only the number of tasks matters."""
_PLACE: Final = Place(
    host="made-up", device="none", backend="none", model="none", model_sha256="", precision="fp32",
    scale=2, out_size=(0, 0), tiles=1, versions={},
)  # fmt: skip


class SimulatedCrew:
    """Simulated workers that answer after a delay: see `vsr.files.crew.Crew`."""

    has_several_devices = True

    def __init__(self, workers: int, seconds: float, segment: bytes) -> None:
        self._free = list(range(workers))
        self._seconds, self._segment = seconds, segment
        self._due: list[tuple[float, int, Clip, Path, bytes]] = []
        self.max_in_flight = self.bytes_read = 0
        """Maximum number of tasks in flight, and bytes of clips read."""

    def idle(self) -> Sequence[int]:
        """Return the workers without a task."""
        return list(self._free)

    def send(self, worker: int, clip: Clip, target: Path) -> None:
        """Give a worker a clip; read its bytes, as a crew that sends it must."""
        self._free.remove(worker)
        packets = clip.path.read_bytes()
        self.bytes_read += len(packets)
        due = time.monotonic() + self._seconds
        heapq.heappush(self._due, (due, worker, clip, target, packets))
        self.max_in_flight = max(self.max_in_flight, len(self._due))

    def messages(self, timeout: float) -> Iterator[Message]:
        """The segments that are due."""
        if self._due:
            time.sleep(max(0.0, min(timeout, self._due[0][0] - time.monotonic())))
        while self._due and self._due[0][0] <= time.monotonic():
            _, worker, clip, target, _ = heapq.heappop(self._due)
            target.write_bytes(self._segment)
            self._free.append(worker)
            yield Message(worker, "done", self._done(clip, target))

    def place(self, worker: int) -> Place:
        """Return the same place for all workers."""
        return _PLACE

    def resize(self, by: int) -> None:
        """Their number stays."""

    def stop(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _done(self, clip: Clip, target: Path) -> SegmentResult:
        segment = Segment(
            number=clip.number, follows=clip.follows, file=target.name, frames=_FRAMES,
            first_pts=0, last_pts=0, last_duration=1, reorder=0, bytes=len(self._segment),
            sha256="", concealed=0, lost=0, ms=0.0,
        )  # fmt: skip
        return SegmentResult(segment=segment, ledger=Ledger(), stopped=False)


def looped(folder: Path, frames: int) -> Path:
    """Write a clip of about `frames` frames; return its path."""
    once = make_clip(folder / "once.mkv", ClipFacts(size=(160, 90), frames=250, audio=()))
    target = folder / "in.mkv"
    command = ["ffmpeg", "-v", "error", "-stream_loop", str(frames // 250), "-i", str(once)]
    subprocess.run([*command, "-c", "copy", str(target)], check=True)
    return target


def measure(folder: Path, args: Any) -> str:
    """Run the driver; return its cost as text."""
    source = looped(folder, args.tasks * _FRAMES)
    cuts = Cuts.of(Fraction(0), _FRAMES, Fraction(_RATE))
    cutter = ClipCutter(str(source), Reading(), cuts, args.tasks * _FRAMES)
    journal = Journal(folder / "out.mkv", {}, gaps=True)
    crew = SimulatedCrew(args.workers, args.ms / 1000, bytes(args.kilobytes * 1024))
    clips = cutter.clips(journal.folder, lambda _: True)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    Dispatch(crew, clips, journal, threading.Event(), lambda _: None).run()
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    tasks = len(journal.segments)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    grown = (after.ru_maxrss - before.ru_maxrss) / 1024
    journal.remove()
    return (
        f"{tasks} tasks, at most {crew.max_in_flight} in flight: {tasks / seconds:.0f} tasks/s, "
        f"{1000 * used / tasks:.2f} ms of CPU time per task, {100 * used / seconds:.0f} % of a "
        f"core, peak memory +{grown:.0f} MiB (now {after.ru_maxrss / 1024:.0f}), "
        f"{crew.bytes_read / seconds / 1e6:.1f} MB/s out, "
        f"{tasks * args.kilobytes * 1024 / seconds / 1e6:.1f} MB/s in\n"
    )


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--ms", type=float, default=5.0)
    parser.add_argument("--kilobytes", type=int, default=256)
    with tempfile.TemporaryDirectory(prefix="vsr-driver-") as name:
        sys.stdout.write(measure(Path(name), parser.parse_args()))


if __name__ == "__main__":
    main()
