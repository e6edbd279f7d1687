"""Times `vsr run` and VapourSynth with vs-mlrt's OpenVINO plugin: same int8 network, same x264.

`python -m bench.peers [--python PYTHON] [--frames N] [--pairs N]`, from the repository's root. The
peer needs a Python of its own (3.12 or newer, for its wheels) with `pip install vapoursynth
vapoursynth-mlrt-ov vapoursynth-bestsource`, and the `ffmpeg` program, which encodes what its
`vspipe` writes. Both are timed from start to end, in turns; the peer's index of the clip is made
before. A ratio is our time by the peer's.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from bench.output import print_line
from bench.plan import SAMPLE, clip_of
from vsr.inference.models import ENGINES, manifest

MODELS: Final = {"c-dcscn": 1.0, "dcscn": 1.0, "carn-m": 1 / 3}
"""Network -> share of the frames that it enlarges: the heaviest is slow."""
_SIZE: Final = "320x180"
_QUALITY: Final = ["-preset", "veryfast", "-crf", "23"]
_LUMA: Final = """
y = core.resize.Point(core.std.ShufflePlanes(clip, 0, vs.GRAY), format=vs.GRAYS)
y = core.ov.Model([y], network_path={network!r}, device="CPU")
y = core.resize.Point(y, format=vs.GRAY8)
chroma = core.resize.Bicubic(clip, y.width, y.height)
clip = core.std.ShufflePlanes([y, chroma, chroma], [0, 1, 2], vs.YUV)
"""
_RGB: Final = """
clip = core.resize.Bicubic(clip, format=vs.RGBS, matrix_in=6)
clip = core.ov.Model([clip], network_path={network!r}, device="CPU")
clip = core.resize.Bicubic(clip, format=vs.YUV420P8, matrix=6)
"""
_SCRIPT: Final = """import vapoursynth as vs
core = vs.core
clip = core.bs.VideoSource({clip!r}, cachemode=4, cachepath={index!r})
{enlarge}
clip.set_output()
"""


def missing(python: str) -> str | None:
    """Return the error message of what the peer lacks in that Python; None if it is complete."""
    try:
        asked = "import vapoursynth as vs; vs.core.ov.Model; vs.core.bs.VideoSource"
        done = subprocess.run([python, "-c", asked], capture_output=True, check=False, text=True)
        subprocess.run(["ffmpeg", "-version"], capture_output=True, check=True)
    except OSError as exc:
        return str(exc)
    return (done.stderr.strip().splitlines() or ["unknown error"])[-1] if done.returncode else None


def script_of(model: str, clip: Path, folder: Path) -> Path:
    """Write the peer's script, which runs our int8 network unchanged."""
    entry = manifest()[model]["x2"]
    network = str(ENGINES / entry["int8"]["file"])
    enlarge = (_LUMA if entry["colour"] == "y" else _RGB).format(network=network)
    path = folder / f"{model}.vpy"
    text = _SCRIPT.format(clip=str(clip), index=str(folder / "index"), enlarge=enlarge)
    path.write_text(text, "utf-8")
    return path


def run_peer(python: str, script: Path) -> None:
    """Enlarge and encode with the peer."""
    pipe = [str(Path(python).with_name("vspipe")), "-c", "y4m", str(script), "-"]
    encode = ["ffmpeg", "-v", "error", "-y", "-i", "-", "-c:v", "libx264", *_QUALITY]
    with subprocess.Popen(pipe, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as pictures:
        subprocess.run(
            [*encode, str(script.with_suffix(".mp4"))], stdin=pictures.stdout, check=True
        )
    if pictures.returncode:
        raise SystemExit(f"vspipe failed ({pictures.returncode})")


def run_ours(model: str, clip: Path, folder: Path) -> None:
    """Enlarge and encode with `vsr run`."""
    run = [sys.executable, "-m", "vsr", "run", str(clip), str(folder / "ours.mp4"), "-y", "-q"]
    quality = [word.replace("-preset", "--preset").replace("-crf", "--crf") for word in _QUALITY]
    subprocess.run([*run, "-m", model, "--precision", "int8", *quality], check=True)


def seconds(function: Callable[[], None]) -> float:
    """Return the wall time of a call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main(words: list[str] | None = None) -> None:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="Python that has VapourSynth")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--frames", type=int, default=450)
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args(words)
    if (why := missing(given.python)) is not None:
        print_line(f"SKIPPED: {given.python} has no VapourSynth with vs-mlrt: {why}")
        return
    print_line("| network | frames | peer s | ours s | ratio (from, to) |")
    print_line("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in given.models.split(","):
            frames = max(1, round(given.frames * MODELS[model]))
            clip = clip_of(SAMPLE, _SIZE, frames, folder)
            script = script_of(model, clip, folder)
            run_peer(given.python, script)
            functions = (
                partial(run_peer, given.python, script),
                partial(run_ours, model, clip, folder),
            )
            pairs = [(seconds(functions[0]), seconds(functions[1])) for _ in range(given.pairs)]
            print_line(row(model, frames, pairs))


def row(model: str, frames: int, pairs: list[tuple[float, float]]) -> str:
    """Return a row: medians of the pairs (peer, ours), and the ratio of our time to the peer's."""
    theirs, own = (statistics.median(pair[k] for pair in pairs) for k in range(2))
    ratios = sorted(own / other for other, own in pairs)
    spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return f"| {model} | {frames} | {theirs:.1f} | {own:.1f} | {spread} |"


if __name__ == "__main__":
    main()
