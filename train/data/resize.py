"""Resample bicubically exactly as the super-resolution papers do (MATLAB's `imresize`).

The kernel is Keys' cubic with a = -0.5, widened by the factor when shrinking (antialias), with
normalised weights and repeated edge samples. torch's and OpenCV's bicubic differ (a = -0.75, no
antialias).
"""

import numpy as np
import numpy.typing as npt


def keys_cubic(x: npt.NDArray[np.float64], a: float = -0.5) -> npt.NDArray[np.float64]:
    """Return Keys' cubic convolution kernel (Keys 1981, eq. 15 for a = -0.5) at distances `x`."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def bicubic_matrix(source: int, target: int, mirror: bool = False) -> npt.NDArray[np.float64]:
    """Return the matrix [target, source] that resamples a line of `source` to `target` samples.

    Beyond the ends of the line, the edge sample is repeated, as in MATLAB when the benchmarks were
    made, or with `mirror` the line is mirrored, as in MATLAB today.
    """
    factor = target / source
    widen = min(factor, 1.0)  # < 1 widens the kernel: antialias when shrinking
    centre = (np.arange(target) + 0.5) / factor - 0.5
    reach = int(np.ceil(2 / widen)) + 1
    taps = np.floor(centre).astype(int)[:, None] + np.arange(-reach, reach + 1)
    weights = keys_cubic((centre[:, None] - taps) * widen)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((target, source))
    rows = np.broadcast_to(np.arange(target)[:, None], taps.shape)
    if mirror:
        taps = np.mod(taps, 2 * source)
        taps = np.minimum(taps, 2 * source - 1 - taps)
    np.add.at(matrix, (rows, np.clip(taps, 0, source - 1)), weights)
    return matrix


def _round_u8(x: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    # MATLAB rounds halves away from zero; the small bias corrects float errors just below .5
    return np.floor(np.clip(x, 0, 255) + 0.5 + 1e-9).astype(np.uint8)


def resize_u8(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Resize uint8 [H, W] or [H, W, C] vertically, then horizontally, each rounded to 8 bit."""
    down = bicubic_matrix(image.shape[0], height)
    across = bicubic_matrix(image.shape[1], width)
    tall = _round_u8(np.tensordot(down, image.astype(np.float64), axes=(1, 0)))
    wide = np.tensordot(tall.astype(np.float64), across, axes=(1, 1))  # [H, (C,) W]
    return _round_u8(np.moveaxis(wide, -1, 1))


def crop_to_multiple(image: npt.NDArray[np.uint8], scale: int) -> npt.NDArray[np.uint8]:
    """Crop bottom and right so that height and width are multiples of `scale`."""
    height, width = (n - n % scale for n in image.shape[:2])
    return image[:height, :width]


def downscale(image: npt.NDArray[np.uint8], scale: int) -> npt.NDArray[np.uint8]:
    """Return the LR of an HR image whose sides are multiples of `scale`, as published for Set5."""
    return resize_u8(image, image.shape[0] // scale, image.shape[1] // scale)
