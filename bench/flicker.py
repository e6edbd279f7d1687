"""Measures the flicker filter: its time beside a network's, and the flicker of still clips.

`python -m bench.flicker [--size WxH] [--rounds N] [--model M] [--clip CLIP ...]`. Times are of one
core, on a picture that stands still (the whole picture is filtered) and on one that moves; rounds
alternate with those of the network. For each clip, its first frame with the noise of a camera is
encoded as a video at crf 23, 28 and 33 and enlarged; flicker is the mean difference of consecutive
frames in codes, as a multiple of that of bicubic.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.engines import parse_size
from train.data.images import Pixels
from train.measure.artifacts import encoded_still, flicker
from train.measure.compressed import VideoSettings, bicubic_codes, read_clip
from train.measure.planes import Planes, cropped
from vsr.inference import models
from vsr.inference.backend import load_backend
from vsr.inference.flicker import FlickerFilter
from vsr.inference.upscaler import Upscaler
from vsr.media.colour import Colour
from vsr.media.frame import Frame
from vsr.media.plane_format import PlaneFormat

SIZE: Final = (960, 540)
CRFS: Final = (23, 28, 33)
_MAX_SIDE: Final = 960
"""Largest side of a still picture; larger ones are cropped."""


def frames_of(lumas: Sequence[Pixels], bits: int = 8) -> list[Frame]:
    """Return grey frames with these lumas."""
    form, made = PlaneFormat(bits=bits), []
    for k, luma in enumerate(lumas):
        across, down = form.chroma(luma.shape[1], luma.shape[0])
        grey = np.full((down, across), 2 ** (bits - 1), form.dtype)
        made.append(
            Frame(
                planes=(luma.astype(form.dtype), grey, grey), index=k, pts=k,
                time_base=Fraction(1, 25), duration=1, format=form,
            )
        )  # fmt: skip
    return made


def time_row(model: str, size: tuple[int, int], rounds: int, bits: int) -> str:
    """Return milliseconds per frame of filter and network, measured by turns, as a table row."""
    backend, (width, height) = load_backend(), size
    found = models.find(model, None, backend)
    rng, unit = np.random.default_rng(1), 2 ** (bits - 8)
    still = unit * rng.integers(16, 235, (height, width))
    noisy = [still + unit * rng.integers(-1, 2, still.shape) for _ in range(2)]
    moving = [unit * rng.integers(16, 235, still.shape) for _ in range(2)]
    upscaler = Upscaler(found, backend, Colour(), size, planes=PlaneFormat(bits=bits))
    ways: dict[str, Callable[[], object]] = {}
    for name, lumas in (("moving", moving), ("still", noisy)):
        before = frames_of(lumas, bits)
        ways[name] = _filtering(before, [_enlarged(upscaler, frame) for frame in before])
    ways["network"] = lambda: [_enlarged(upscaler, frame) for frame in before]
    ms = _alternated(ways, rounds)
    share = statistics.median(a / b for a, b in zip(ms["still"], ms["network"], strict=True))
    middle = {name: statistics.median(values) for name, values in ms.items()}
    return (
        f"| {width}x{height} | x{found.scale} | {bits} | {middle['still']:.2f} "
        f"| {middle['moving']:.2f} | {middle['network']:.1f} | {share:.3f} |"
    )


def _enlarged(upscaler: Upscaler, frame: Frame) -> Frame:
    return next(iter(upscaler.process([frame])))


def _filtering(before: Sequence[Frame], after: Sequence[Frame]) -> Callable[[], object]:
    steady = FlickerFilter()
    return lambda: [steady.filtered(a, b) for a, b in zip(before, after, strict=True)]


def _alternated(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds per frame of each round; every call processes two frames."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for k in range(rounds + 2):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if k >= 2:  # the first ones warm up
                found[name].append(1000 * (time.perf_counter() - began) / 2)
    return found


def flicker_rows(model: str, path: Path) -> list[str]:
    """Return a table row per crf: bicubic's flicker, and the network's without and with filter."""
    y, u, v = read_clip(path, VideoSettings(window=1)).frames[0]
    half = _MAX_SIDE // 2
    still = cropped(Planes(y[:_MAX_SIDE, :_MAX_SIDE], u[:half, :half], v[:half, :half]), 4)
    backend, lines = load_backend(), []
    size = (still.y.shape[1] // 2, still.y.shape[0] // 2)
    upscaler = Upscaler(models.find(model, 2, backend), backend, Colour(), size)
    for crf in CRFS:
        _, decoded = encoded_still(still, 2, crf)
        frames = frames_of([planes.y for planes in decoded])
        bicubic = flicker([bicubic_codes(planes, 2) for planes in decoded])
        ratios = []
        for made in (upscaler.process(frames), FlickerFilter().process(frames, upscaler.process)):
            own = flicker([frame.planes[0] for frame in made])
            ratios.append(own / bicubic if bicubic else math.nan)
        lines.append(f"| {path.stem} | {crf} | {bicubic:.3f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    return lines


def main(arguments: Any = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.flicker", description=__doc__)
    parser.add_argument("--size", type=parse_size, default=SIZE, metavar="WxH")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--model", default="rt-sharp")
    parser.add_argument("--clip", type=Path, action="append", default=[])
    options = parser.parse_args(arguments)
    lines = [
        "| size | scale | bits | still ms | moving ms | network ms | still / network |",
        "|---|---|---|---|---|---|---|",
        *(time_row(options.model, options.size, options.rounds, bits) for bits in (8, 10)),
    ]
    if options.clip:
        lines += ["", "| clip | crf | bicubic | without | with |", "|---|---|---|---|---|"]
    for path in options.clip:
        lines += flicker_rows(options.model, path)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
