"""Resamples and converts the planes of decoded 4:2:0 pictures."""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from train.data.images import Pixels
from train.data.resize import downscale, keys_cubic
from train.data.video import is_full_range

Array = npt.NDArray[np.float64]
Kernel = Callable[[Array], Array]

_LIMITED: Final = 1
"""FFmpeg's tag of limited range."""


class Planes(NamedTuple):
    """One 4:2:0 picture in limited range; width and height are even."""

    y: Pixels
    u: Pixels
    v: Pixels


def limited(picture: av.VideoFrame) -> av.VideoFrame:
    """Convert the picture to 8-bit limited-range 4:2:0."""
    full = is_full_range(picture)
    if picture.format.name == "yuv420p" and not full:
        return picture
    return picture.reformat(
        format="yuv420p", src_color_range=2 if full else _LIMITED, dst_color_range=_LIMITED
    )


def planes_of(picture: av.VideoFrame) -> Planes:
    """Return copies of a 4:2:0 picture's planes."""

    def array(plane: Any) -> Pixels:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        return rows[: plane.height, : plane.width].copy()

    y, u, v = map(array, picture.planes)
    return Planes(y, u, v)


def cropped(planes: Planes, multiple: int) -> Planes:
    """Return the largest upper left part whose sides are multiples of `multiple`."""
    height, width = (n - n % multiple for n in planes.y.shape)
    y, u, v = planes
    return Planes(
        y[:height, :width], u[: height // 2, : width // 2], v[: height // 2, : width // 2]
    )


def lanczos3(x: Array) -> Array:
    """Return Lanczos' kernel with three lobes at distances `x`."""
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


@cache
def _matrix(source: int, target: int, first: float, kernel: Kernel) -> Array:
    """Return a [target, source] matrix: output i is centred at `first` + i * source / target in the
    input, whose edges are repeated."""
    step = source / target
    widen = max(step, 1.0)  # antialiasing when downscaling
    centre = first + step * np.arange(target)
    reach = int(np.ceil(3 * widen)) + 1
    taps = np.floor(centre).astype(int)[:, None] + np.arange(-reach, reach + 1)
    weights = kernel((centre[:, None] - taps) / widen)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((target, source))
    rows = np.broadcast_to(np.arange(target)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, source - 1)), weights)
    return matrix


def resample(plane: npt.NDArray[Any], factor: float, column: float, kernel: Kernel) -> Array:
    """Resize the plane by `factor`; the first new column is centred at the old column `column`."""
    height, width = plane.shape
    row = 0.5 / factor - 0.5  # rows are centred in luma and chroma alike
    down = _matrix(height, round(height * factor), row, kernel)
    across = _matrix(width, round(width * factor), column, kernel)
    return down @ plane.astype(np.float64) @ across.T


def codes(x: Array) -> Pixels:
    """Round and clip to 8 bit."""
    return np.floor(np.clip(x, 0, 255) + 0.5).astype(np.uint8)


def shrink(planes: Planes, scale: int) -> Planes:
    """Downscale the picture by `scale` (bicubic); its chroma remains sited left."""
    # chroma column i is sited at luma column 2i, in the small picture as in the large one
    column = (scale - 1) / 4
    u, v = (codes(resample(p, 1 / scale, column, keys_cubic)) for p in (planes.u, planes.v))
    return Planes(downscale(planes.y, scale), u, v)


def stacked(planes: Planes) -> Pixels:
    """Return Y, U and V stacked vertically, as PyAV expects them."""
    height, width = planes.y.shape
    return np.concatenate([plane.ravel() for plane in planes]).reshape(height * 3 // 2, width)


def rgb_from_yuv(planes: Planes, weights: tuple[float, float]) -> Array:
    """Convert to R'G'B' [3, H, W] in 0..1, or slightly beyond if the codes are out of range."""
    y = (planes.y.astype(np.float64) - 16) / 219
    u, v = ((resample(p, 2, 0.0, keys_cubic) - 128) / 224 for p in (planes.u, planes.v))
    kr, kb = weights
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.stack((red, green, blue))
