"""Scores a network on a benchmark folder, measured as in the papers.

LR is the image downscaled with MATLAB's bicubic; results are rounded to 8 bit; PSNR and SSIM are on
Y of BT.601, LPIPS on RGB and NIQE on Y, all with `scale` pixels shaved from every side.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from train.data.images import Pixels, images, to_input
from train.data.resize import bicubic_matrix, crop_to_multiple, downscale
from train.errors import TrainError
from train.measure.metrics import luma, psnr, ssim
from train.measure.perceptual import Perceptual

Array = npt.NDArray[np.float64]
Enlarge = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""[1, C, H, W] in 0..1 -> [1, C, s*H, s*W]."""

_SSIM_WINDOW = 11


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to upscale by `scale`: a network on luma (colour 'y') or RGB ('rgb')."""

    label: str
    enlarge: Enlarge
    colour: str
    scale: int
    network: str = ""
    """Name in the papers' tables; empty if none."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Settings for which scores are measured, and how."""

    perceptual: Perceptual = field(default_factory=Perceptual)
    grey_as_y: bool = False
    """Score a grey file's values as Y (0..255) instead of expanding them to RGB (16..235)."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The scores of one image, or their means over a folder; None if not measured."""

    psnr: float
    ssim: float
    lpips: float | None = None
    niqe: float | None = None
    others: dict[str, float] = field(default_factory=dict)
    """Ma, PI and NIMA, if measured."""


@dataclass(frozen=True)
class Pair:
    """One benchmark image and its downscaled version."""

    name: str
    low: Pixels
    high: Pixels
    grey: bool
    """Whether the file is grey (R, G and B are equal)."""


def torch_enlarge(net: nn.Module, scale: int) -> Enlarge:
    """Return an `Enlarge` that runs a torch network without gradients."""
    device = next(net.parameters()).device

    def run(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            result: npt.NDArray[np.float32] = (
                net(torch.from_numpy(x).to(device), scale).cpu().numpy()
            )
        return result

    return run


def bicubic_method(scale: int) -> Method:
    """Return MATLAB's bicubic upscaling, the first row of the papers' tables."""
    return Method(
        label="bicubic",
        enlarge=lambda x: bicubic_planes(x, scale).astype(np.float32),
        colour="rgb",
        scale=scale,
        network="bicubic",
    )


def bicubic_planes(x: npt.NDArray[np.floating], scale: int) -> Array:
    """Upscale [..., H, W] to [..., s*H, s*W] with MATLAB's bicubic."""
    down, across = (bicubic_matrix(n, n * scale) for n in x.shape[-2:])
    return down @ x.astype(np.float64) @ across.T


# one picture


def enlarged_luma(enlarge: Enlarge, lr: Pixels, colour: str) -> Array:
    """Return Y (16..235, [H, W]) of the upscaled picture; RGB is rounded to 8 bit first."""
    return _luma(_run(enlarge, lr, colour), colour)


def _run(enlarge: Enlarge, lr: Pixels, colour: str) -> Array:
    x = np.ascontiguousarray(to_input(lr, colour).transpose(2, 0, 1)[None])
    return enlarge(x)[0].astype(np.float64)


def _luma(out: Array, colour: str) -> Array:
    if colour == "y":
        return np.round(np.clip(out[0] * 219 + 16, 0, 255))
    return luma(_rgb_codes(out))


def _rgb_codes(out: Array) -> Pixels:
    return np.round(np.clip(out.transpose(1, 2, 0), 0, 1) * 255).astype(np.uint8)


def picture(out: Array, lr: Pixels, colour: str) -> Pixels:
    """Return a network's result as uint8 RGB; a luma network gets its chroma from bicubic."""
    if colour == "rgb":
        return _rgb_codes(out)
    planes = lr.astype(np.float64).transpose(2, 0, 1) / 255
    difference = planes - to_input(lr, "y")[..., 0]  # R-Y, G-Y, B-Y
    return _rgb_codes(out + bicubic_planes(difference, out.shape[-1] // lr.shape[1]))


def _grey_codes(out: Array, colour: str) -> Array:
    """Return the full-range values 0..255 of a grey result."""
    if colour == "y":
        return np.round(np.clip(out[0], 0, 1) * 255)
    return _rgb_codes(out).astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def score_pair(method: Method, pair: Pair, scoring: Scoring) -> tuple[Score, Array]:
    """Return the scores of one image, and the network's raw result for `picture`."""
    out, scale = _run(method.enlarge, pair.low, method.colour), method.scale
    if out.shape[-2:] != pair.high.shape[:2]:
        raise TrainError(
            f"{method.label} returned {out.shape[-1]}x{out.shape[-2]} instead of "
            f"{pair.high.shape[1]}x{pair.high.shape[0]}: it is not a x{scale} network"
        )
    if pair.grey and scoring.grey_as_y:
        ours, truth = _grey_codes(out, method.colour), pair.high[..., 0].astype(np.float64)
    else:
        ours, truth = _luma(out, method.colour), luma(pair.high)
    inside = (slice(scale, -scale), slice(scale, -scale))
    metrics = scoring.perceptual
    shown = (
        picture(out, pair.low, method.colour)[inside] if metrics.lpips or metrics.others else None
    )
    score = Score(
        psnr=psnr(ours, truth, scale),
        ssim=ssim(ours, truth, scale),
        lpips=metrics.lpips(shown, pair.high[inside])
        if metrics.lpips and shown is not None
        else None,
        niqe=metrics.niqe(ours[inside]) if metrics.niqe else None,
        others=metrics.others(shown) if metrics.others and shown is not None else {},
    )
    return score, out


# a folder


def benchmark_pairs(folder: Path, scale: int) -> Iterator[Pair]:
    """Yield every image that is large enough to score, with its bicubic downscaled version."""
    for path, image in images([folder], smallest=_SSIM_WINDOW + 3 * scale):
        high = crop_to_multiple(image, scale)
        with Image.open(path) as file:
            grey = file.mode[0] in "1LI"
        yield Pair(path.stem, downscale(high, scale), high, grey)


def mean_score(scores: list[Score]) -> Score:
    """Return the mean over images; except for PSNR and SSIM, over those that have the score."""

    def mean(values: list[float | None]) -> float | None:
        known = [v for v in values if v is not None and not np.isnan(v)]
        return float(np.mean(known)) if known else None

    return Score(
        psnr=float(np.mean([s.psnr for s in scores])),
        ssim=float(np.mean([s.ssim for s in scores])),
        lpips=mean([s.lpips for s in scores]),
        niqe=mean([s.niqe for s in scores]),
        others={
            name: value
            for name in scores[0].others
            if (value := mean([s.others.get(name) for s in scores])) is not None
        },
    )


def score_folder(method: Method, folder: Path, scoring: Scoring) -> tuple[Score, int]:
    """Return the mean over the images of `folder`, and the number of images."""
    pairs = benchmark_pairs(folder, method.scale)
    scores = [score_pair(method, pair, scoring)[0] for pair in pairs]
    return mean_score(scores), len(scores)


def evaluate(enlarge: Enlarge, folder: Path, scale: int, colour: str) -> dict[str, float | int]:
    """Return mean Y-PSNR (dB) and SSIM over the images of `folder`, `scale` pixels shaved."""
    method = Method(label="the network", enlarge=enlarge, colour=colour, scale=scale)
    return figures(*score_folder(method, folder, Scoring()))


def figures(mean: Score, n: int) -> dict[str, float | int]:
    """Return PSNR, SSIM and the number of images, as stored in a manifest."""
    return {"psnr": round(mean.psnr, 3), "ssim": round(mean.ssim, 4), "n": n}
