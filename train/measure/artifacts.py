"""Measures what PSNR misses in an upscaled video: flicker, flat-area noise, patterns, bright lines.

Pictures are Y in code values (16..235), as `train.measure.compressed` makes them.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from train.data.images import LUMA, Pixels, to_input
from train.data.resize import downscale
from train.measure.compressed import Clip, bicubic_codes, compress, enlarged_codes
from train.measure.evaluate import Method
from train.measure.planes import Array, Planes, shrink

_STILL_FRAMES = 12
_NOISE_STD = 4.0
"""Standard deviation of the simulated camera noise, in codes: with less, x264 repeats one frame."""
_BAR_WIDTH = 8
"""Width of the black bar, LR pixels."""
_BLOCK_SIZE = 32
"""Side of a block, in pixels; patterns are measured per block, as their phase may vary."""
_BT601 = 6
"""Matrix tag of BT.601 (H.273)."""


def flicker(frames: Sequence[Pixels]) -> float:
    """Return the mean absolute difference of consecutive pictures, in codes."""
    pairs = pairwise(frames)
    return float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs]))


def moving_flicker(clip: Clip, method: Method, crf: int = 28, frames: int = 6) -> dict[str, float]:
    """Return the flicker of a clip's first frames: the truth, bicubic and the method (`ours`).

    Moving pictures differ from one another anyway: only the excess over the truth is flicker.
    """
    whole = clip.frames[:frames]
    decoded, _ = compress([shrink(f, method.scale) for f in whole], clip, crf, "medium")
    return {
        "truth": flicker([planes.y for planes in whole]),
        "bicubic": flicker([bicubic_codes(planes, method.scale) for planes in decoded]),
        "ours": flicker([enlarged_codes(planes, method, clip.weights) for planes in decoded]),
    }


def still_flicker(
    method: Method,
    still: Planes,
    crf: int = 28,
    after: Callable[[Sequence[Pixels], Sequence[Pixels]], Sequence[Pixels]] | None = None,
) -> tuple[float, float]:
    """Return flicker of (the method, bicubic) on a still picture with noise, encoded as a video.

    The only differences are the camera noise and what the encoder leaves of it. `after`: filter of
    the method's pictures, called with all LR and all enlarged pictures.
    """
    clip, decoded = encoded_still(still, method.scale, crf)
    ours: Sequence[Pixels] = [enlarged_codes(p, method, clip.weights) for p in decoded]
    if after is not None:
        ours = after([planes.y for planes in decoded], ours)
    return flicker(ours), flicker([bicubic_codes(planes, method.scale) for planes in decoded])


def encoded_still(still: Planes, scale: int, crf: int) -> tuple[Clip, list[Planes]]:
    """Return the still picture as a clip, and its LR frames with camera noise, encoded by x264."""
    clip = Clip([still], Fraction(25), _BT601)
    small, rng = shrink(still, scale), np.random.default_rng(1)
    frames = [small._replace(y=_with_camera_noise(small.y, rng)) for _ in range(_STILL_FRAMES)]
    return clip, compress(frames, clip, crf, "medium")[0]


def _with_camera_noise(y: Pixels, rng: np.random.Generator) -> Pixels:
    return np.clip(np.rint(y + rng.normal(0, _NOISE_STD, y.shape)), 16, 235).astype(np.uint8)


def flat_noise(method: Method, side: int = 32) -> float:
    """Return the standard deviation, in codes, of the method on a flat patch of the worst grey.

    Borders of 8 LR pixels are left out, as zero padding affects them in every network.
    """
    inside, worst = slice(8 * method.scale, -8 * method.scale), 0.0
    channels = 1 if method.colour == "y" else 3
    for level in np.linspace(0, 1, 17):
        x = np.full((1, channels, side, side), level, np.float32)
        worst = max(worst, float(method.enlarge(x)[0, :, inside, inside].std(axis=(1, 2)).max()))
    return worst * 219


def overshoot_beside_bar(method: Method, picture: Pixels) -> float:
    """Return how much too bright the picture is beside a black bar, in codes of 0..255.

    The bar is drawn into `picture` [H, W, 3], uint8, at LR size, like letterboxes and overlays, so
    that its edge is between two LR pixels; H and W are multiples of the scale. The result is the
    largest excess of luma in the four pixels beside the bar, as a mean over rows; the picture's top
    and bottom borders are left out.
    """
    scale = method.scale
    small, large = downscale(picture, scale), picture.copy()
    small[:, :_BAR_WIDTH], large[:, : _BAR_WIDTH * scale] = 0, 0
    x = to_input(small, method.colour).transpose(2, 0, 1)[None]
    ours = method.enlarge(np.ascontiguousarray(x, np.float32))[0].transpose(1, 2, 0)
    grey = ours @ LUMA if method.colour == "rgb" else ours[..., 0]
    truth = to_input(large, "y")[..., 0]
    beside = slice(_BAR_WIDTH * scale, _BAR_WIDTH * scale + 4)
    excess = (grey - truth)[8 * scale : -8 * scale, beside]
    return float(excess.max(1).mean() * 255)


def grid_pattern(picture: Pixels) -> float:
    """Return the amplitude, in codes, of patterns with period 2, as a x2 pixel shuffle causes them.

    It is the largest root mean square, over blocks of 32x32, of the three patterns (-1)^x, (-1)^y
    and (-1)^(x+y). Detail contains such patterns too: compare with the truth.
    """
    y = picture.astype(np.float64)
    across, down = _alternating(y), _alternating(y.T).T
    both = _alternating(down)
    return max(_amplitude(across, (0, 1)), _amplitude(down, (1, 0)), _amplitude(both, (1, 1)))


def _alternating(y: Array) -> Array:
    """Return the alternating part along rows, without linear slopes; it has two columns fewer."""
    return (2 * y[:, 1:-1] - y[:, :-2] - y[:, 2:]) / 4


def _amplitude(y: Array, way: tuple[int, int]) -> float:
    height, width = (n - n % _BLOCK_SIZE for n in y.shape)
    rows, columns = np.indices((height, width))
    signed = y[:height, :width] * (1 - 2 * ((way[0] * rows + way[1] * columns) % 2))
    blocks = signed.reshape(
        height // _BLOCK_SIZE, _BLOCK_SIZE, width // _BLOCK_SIZE, _BLOCK_SIZE
    ).mean((1, 3))
    return float(np.sqrt(np.mean(blocks**2)))
