"""Measures what a long run loses when it is killed, and the cost of segments.

`python -m bench.resume [--minutes 10] [--kills 5] [--pairs 3] [--model bicubic]`, from the
repository's root: a generated clip is upscaled, once without interruption and once killed by
SIGKILL repeatedly. Prints the frames that each kill loses, whether the videos are bit-equal, and
the ratios of time, memory and size of runs with and without segments, which alternate.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import av
import numpy as np

from tests.clips import Clip, make_clip
from vsr.files.journal_lines import folder_of

_RATE: Final = 25
_SIZE: Final = (176, 144)
_ONCE: Final = 250
"""Number of frames of the clip that is looped."""


def looped(folder: Path, minutes: float) -> Path:
    """Write a clip of `minutes` minutes with sound, by looping a generated one."""
    once = make_clip(folder / "once.mkv", Clip(size=_SIZE, frames=_ONCE))
    target = folder / "in.mkv"
    times = round(minutes * 60 * _RATE / _ONCE)
    command = ["ffmpeg", "-v", "error", "-stream_loop", str(times - 1), "-i", str(once)]
    subprocess.run([*command, "-map", "0", "-c", "copy", str(target)], check=True)
    return target


def command(source: Path, target: Path, *words: str) -> list[str]:
    """Return the command line of a run."""
    start = [sys.executable, "-m", "vsr", "run", str(source), str(target), *words]
    return [*start, "--progress", "none"]


def packets(path: Path) -> str:
    """Return a hash of all packets of the video."""
    digest = sha256()
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            digest.update(bytes(packet))
    return digest.hexdigest()


def frames_kept(target: Path) -> int:
    """Return the number of frames in the journal of an unfinished output."""
    journal = folder_of(target) / "journal.jsonl"
    if not journal.exists():
        return 0
    return sum(json.loads(line).get("frames", 0) for line in journal.open() if '"file"' in line)


def kill_at(source: Path, target: Path, model: str, seconds: float) -> tuple[int, int]:
    """Kill a run after `seconds`; return the number of frames it had done, and of those kept."""
    words = [*command(source, target, "-m", model)[:-1], "json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        end, done = time.monotonic() + seconds, 0
        for line in run.stdout:
            done = json.loads(line)["frame"]
            if time.monotonic() > end:
                break
        run.kill()
    return done, frames_kept(target)


@dataclass(frozen=True)
class Cost:
    """The cost of one run."""

    seconds: float
    cpu_s: float
    peak_kib: int
    """Largest resident memory of the process or one of its children, in KiB."""
    size: int
    """Size of the output, in bytes."""


def measured(source: Path, target: Path, *words: str) -> Cost:
    """Run once to the end; return the cost."""
    began = time.perf_counter()
    run = subprocess.Popen(command(source, target, "-y", *words))
    _, status, used = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        raise SystemExit(f"the run failed with {run.returncode}")
    seconds, cpu = time.perf_counter() - began, used.ru_utime + used.ru_stime
    return Cost(seconds, cpu, used.ru_maxrss, target.stat().st_size)


def compare(source: Path, folder: Path, model: str, pairs: int) -> None:
    """Print the cost ratios of runs with and without segments, which alternate."""
    found: dict[str, list[Cost]] = {"20": [], "0": []}
    for _ in range(pairs):
        for segment, rows in found.items():
            words = ("-m", model, "--segment", segment)
            rows.append(measured(source, folder / f"cost-{segment}.mkv", *words))
    cut, whole = (np.array([astuple(row) for row in rows]) for rows in found.values())
    ratio, one = np.median(cut / whole, axis=0), np.median(whole, axis=0)
    sys.stdout.write(
        f"with segments of 20 s / without: time {ratio[0]:.3f}, CPU time {ratio[1]:.3f}, "
        f"peak RSS {ratio[2]:.3f}, size {ratio[3]:.4f} "
        f"(without: {one[0]:.1f} s, {one[1]:.1f} CPU s, {one[2] / 1024:.0f} MiB)\n"
    )


def killed(source: Path, folder: Path, model: str, kills: int, seed: int) -> None:
    """Print the frames that every kill loses, and whether the video equals an undisturbed run's."""
    began = time.monotonic()
    subprocess.run(command(source, folder / "once.mkv", "-m", model, "-y"), check=True)
    whole = time.monotonic() - began
    sys.stdout.write(f"uninterrupted: {whole:.1f} s\n")
    target, rng, kept = folder / "out.mkv", random.Random(seed), 0
    for _ in range(kills):
        done, now = kill_at(source, target, model, rng.uniform(0.05, 0.25) * whole)
        if target.exists():
            sys.stdout.write("finished before it could be killed\n")
            break
        lost = kept + done - now
        sys.stdout.write(
            f"killed: resumed after {kept} frames, {done} more finished, {lost} of them lost\n"
        )
        kept = now
    if not target.exists():
        subprocess.run(command(source, target, "-m", model), check=True)
    same = packets(target) == packets(folder / "once.mkv")
    sys.stdout.write(f"bit-equal video packets: {same}\n")


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", default="bicubic")
    parser.add_argument(
        "--kills", type=int, default=5, help="number of kills; 0: only measure the cost"
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vsr-resume-") as name:
        folder = Path(name)
        source = looped(folder, args.minutes)
        if args.kills:
            killed(source, folder, args.model, args.kills, args.seed)
        if args.pairs:
            compare(source, folder, args.model, args.pairs)


if __name__ == "__main__":
    main()
