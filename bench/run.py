"""Compares `vsr run` with its slowest stage, and checks that memory does not grow with length.

`python bench/run.py [CLIP] [--model M] [--frames N] [--memory-clip LONG]` prints the frame rate of
decoding, inference and encoding alone and of the whole, all on the same frames; the figures that
count are the ratios. Rounds alternate, so that a noisy machine disturbs all alike.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import vsr
from vsr.inference import models
from vsr.inference.backend import load_backend
from vsr.inference.upscaler import Upscaler
from vsr.media.encoder import EncoderSettings
from vsr.media.frame import Frame, Stamps
from vsr.media.sink import Sink
from vsr.media.source import Source

SAMPLE = Path(__file__).parent.parent / "examples" / "sample.mp4"
EARLY, LATE = 200, 1394


class Stages:
    """Runs each stage alone on the same frames of one clip."""

    def __init__(self, clip: Path, model: str, frames: int, folder: Path) -> None:
        self.clip, self.model, self.folder = clip, model, folder
        source = Source(str(clip))
        info = source.info
        self.decoded = list(islice((f for f in source if isinstance(f, Frame)), frames))
        backend = load_backend()
        found = models.find(model, None, backend)
        self.upscaler = Upscaler(found, backend, info.colour, (info.width, info.height))
        self.video = info.output_for(self.upscaler.out_size)
        self.enlarged = [f for f in self.upscaler.process(self.decoded) if isinstance(f, Frame)]
        source.close()

    def decode(self) -> None:
        """Decode to planes, nothing else."""
        source = Source(str(self.clip))
        frames = islice((f for f in source if isinstance(f, Frame)), len(self.decoded))
        for _ in frames:
            pass
        source.close()

    def infer(self) -> None:
        """Enlarge frames from memory."""
        fresh = (replace(frame, stamps=Stamps()) for frame in self.decoded)
        for _ in self.upscaler.process(fresh):
            pass

    def encode(self) -> None:
        """Encode and mux frames from memory."""
        with Sink(self.folder / "encode.mp4", self.video, EncoderSettings()) as sink:
            for frame in self.enlarged:
                sink.write(frame)
            sink.drain()
            sink.close()

    def whole(self) -> float:
        """Run `vsr.upscale`; return its frames per second, from the first frame to the trailer."""
        report = vsr.upscale(
            self.clip, self.folder / "whole.mp4", model=self.model,
            max_frames=len(self.decoded), overwrite=True,
        )  # fmt: skip
        return report.fps


def seconds(function: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def resident_mib() -> float:
    """Return the current resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def watch_memory(clip: str, model: str, found: "multiprocessing.Queue[dict[int, float]]") -> None:
    """Upscale and report the peak resident memory up to each mark; runs in a child process."""
    peak, marks = 0.0, {}

    def look(progress: vsr.Progress) -> None:
        nonlocal peak
        peak = max(peak, resident_mib())
        if progress.frames in (EARLY, LATE):
            marks[progress.frames] = peak

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.mp4"
        vsr.upscale(clip, target, model=model, preset="ultrafast", on_progress=look)
    found.put(marks)


def report_memory(clip: Path, model: str) -> None:
    """Print peak RSS at both marks and their ratio."""
    context = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue[dict[int, float]] = context.Queue()
    process = context.Process(target=watch_memory, args=(str(clip), model, found))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"the run failed with exit code {process.exitcode}")
    marks = found.get(timeout=5)
    print_line(
        f"peak RSS {marks[EARLY]:.0f} MiB at frame {EARLY}, {marks[LATE]:.0f} MiB at frame {LATE}"
    )
    print_line(f"ratio {marks[LATE] / marks[EARLY]:.3f} ({model})")


def print_line(line: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report_speed(clip: Path, model: str, frames: int, rounds: int) -> None:
    """Print the median rate of every stage and of the whole, and their ratio in each round."""
    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(clip, model, frames, Path(folder))
        count = len(stages.decoded)
        alone = {"decode": stages.decode, "infer": stages.infer, "encode": stages.encode}
        rates: dict[str, list[float]] = {name: [] for name in (*alone, "whole")}
        for _ in range(rounds):
            for name, stage in alone.items():
                rates[name].append(count / seconds(stage))
            rates["whole"].append(stages.whole())
    print_line(f"{clip.name}, {model}, {count} frames, {rounds} rounds (median frames per second)")
    for name, values in rates.items():
        print_line(f"{name:<8} {statistics.median(values):8.1f}")
    slowest = [min(rates[name][k] for name in alone) for k in range(rounds)]
    ratios = [whole / slow for whole, slow in zip(rates["whole"], slowest, strict=True)]
    spread = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print_line(f"vsr run / slowest stage: {statistics.median(ratios):.2f} ({spread})")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--model", default=models.DEFAULT)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-clip", type=Path, help=f"clip of at least {LATE} frames")
    parser.add_argument("--memory-model", default="bicubic")
    arguments = parser.parse_args()
    report_speed(arguments.clip, arguments.model, arguments.frames, arguments.rounds)
    if arguments.memory_clip:
        report_memory(arguments.memory_clip, arguments.memory_model)


if __name__ == "__main__":
    main()
