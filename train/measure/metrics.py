"""PSNR and SSIM as the papers measure them: on Y of BT.601 (16..235), borders shaved."""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

_LUMA = np.array([65.481, 128.553, 24.966])  # MATLAB's rgb2ycbcr, for RGB in 0..1


def luma(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return Y of BT.601 in 16..235, float, of uint8 RGB [H, W, 3]; a grey [H, W] already is Y."""
    if image.ndim == 2:
        return image.astype(np.float64)
    return image.astype(np.float64) / 255 @ _LUMA + 16


def _shaved(image: npt.NDArray[np.float64], border: int) -> npt.NDArray[np.float64]:
    return image[border:-border, border:-border] if border else image


def psnr(ours: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], border: int = 0) -> float:
    """Return the PSNR in dB of two [H, W] images in 0..255, `border` pixels shaved on each side."""
    difference = _shaved(ours, border) - _shaved(truth, border)
    mse = float(np.mean(difference**2))
    return float("inf") if mse == 0 else 10 * np.log10(255**2 / mse)


_RADIUS = 5
"""Radius of the window in pixels: its size is 11 x 11."""


def _blur(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Apply a Gaussian of sigma 1.5 over 11 x 11 pixels, only where it fits into the image."""
    blurred: npt.NDArray[np.float64] = gaussian_filter(image, 1.5, radius=_RADIUS)
    return blurred[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def ssim(ours: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], border: int = 0) -> float:
    """Return the mean SSIM of two [H, W] images in 0..255, `border` pixels shaved on each side.

    Wang et al. 2004, section III-B and -C: 11 x 11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03,
    as in the authors' ssim_index.m (windows inside the image only). Raises ValueError if less than
    11 pixels per side are left after shaving.
    """
    a, b = _shaved(ours, border), _shaved(truth, border)
    if min(a.shape) <= 2 * _RADIUS:
        raise ValueError(f"SSIM needs 11 x 11 pixels, not {a.shape[1]}x{a.shape[0]}")
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance = _blur(a * b) - product
    variances = _blur(a * a + b * b) - squares  # only their sum is needed
    top = (2 * product + c1) * (2 * covariance + c2)
    bottom = (squares + c1) * (variances + c2)
    return float(np.mean(top / bottom))
