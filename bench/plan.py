"""Compares the forecasts of `vsr plan` with real runs.

`python -m bench.plan [CLIP] [--sizes 160x90,320x180] [--models M,...] [--frames N] [--pairs N]`,
from the repository's root, scales a clip to each size, forecasts how long `vsr run` takes, and
runs it, one right after the other. Ratios are the forecast's time by the real time: of a frame once
it runs, and of the whole with its start; below 1 the forecast was too fast. Rows are medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.output import print_line
from vsr.inference.default import DEFAULT

SAMPLE: Final = Path(__file__).parent.parent / "examples" / "sample.mp4"
SIZES: Final = "160x90,320x180,480x270,640x360"
_VSR: Final = [sys.executable, "-m", "vsr"]


@dataclass(frozen=True)
class Pair:
    """A forecast and the run that followed it: frames per second, and seconds in total."""

    expected_fps: float
    fps: float
    expected_s: float
    seconds: float


def clip_of(clip: Path, size: str, frames: int, folder: Path) -> Path:
    """Scale a clip to `size` and loop it up to `frames` frames, as H.264 without sound."""
    target = folder / f"{size}.mp4"
    command = ["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1", "-i", str(clip)]
    command += ["-vf", f"scale={size.replace('x', ':')}", "-frames:v", str(frames), "-an"]
    subprocess.run([*command, "-c:v", "libx264", str(target)], check=True)
    return target


def pair_of(source: Path, model: str, seconds: float, folder: Path) -> Pair:
    """Forecast a run, then run it."""
    # a separate cache: each forecast measures again, and the user's cache is not changed
    cache = tempfile.mkdtemp(dir=folder)
    plan = [*_VSR, "plan", str(source), "-m", model, "--json"]
    done = subprocess.run(
        [*plan, "--seconds", str(seconds)], check=True, capture_output=True, text=True,
        env={**os.environ, "XDG_CACHE_HOME": cache},
    )  # fmt: skip
    [line] = json.loads(done.stdout)["models"]
    report, began = folder / "report.json", time.perf_counter()
    run = [*_VSR, "run", str(source), str(folder / "out.mp4"), "-m", model, "-y", "-q"]
    subprocess.run([*run, "--report", str(report)], check=True)
    took = time.perf_counter() - began
    fps = json.loads(report.read_text("utf-8"))["fps"]
    return Pair(line["fps"], fps, line["seconds"], took)


def row(size: str, model: str, pairs: list[Pair]) -> str:
    """Return a row: medians, and the ratios of the forecast's time to the real time."""

    def median(name: str) -> float:
        return statistics.median(getattr(pair, name) for pair in pairs)

    rate = statistics.median(pair.fps / pair.expected_fps for pair in pairs)
    whole = sorted(pair.expected_s / pair.seconds for pair in pairs)
    spread = f"{statistics.median(whole):.2f} ({whole[0]:.2f} to {whole[-1]:.2f})"
    cells = [
        size, model, f"{median('expected_fps'):.1f}", f"{median('fps'):.1f}", f"{rate:.2f}",
        f"{median('expected_s'):.1f}", f"{median('seconds'):.1f}", spread,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(words: list[str] | None = None) -> None:
    """Print a row for each size and network."""
    parser = argparse.ArgumentParser(prog="python -m bench.plan", description=__doc__)
    parser.add_argument("clip", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--models", default=f"bicubic,{DEFAULT},dcscn-stream")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="as in vsr plan")
    given = parser.parse_args(words)
    print_line(
        "| size | network | forecast fps | real | ratio | forecast s | real | ratio (from, to) |"
    )
    print_line("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in given.sizes.split(","):
            source = clip_of(given.clip, size, given.frames, folder)
            for model in given.models.split(","):
                pairs = [pair_of(source, model, given.seconds, folder) for _ in range(given.pairs)]
                print_line(row(size, model, pairs))


if __name__ == "__main__":
    main()
