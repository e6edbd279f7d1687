"""PSNR and SSIM as the papers measure them: on Y of BT.601 (16..235), borders shaved."""

import numpy as np
import numpy.typing as npt

_LUMA = np.array([65.481, 128.553, 24.966])  # MATLAB's rgb2ycbcr, for RGB in 0..1


def luma(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Y of BT.601 in 16..235, float, of a uint8 RGB [H, W, 3]; a grey [H, W] is Y already."""
    if image.ndim == 2:
        return image.astype(np.float64)
    return image.astype(np.float64) / 255 @ _LUMA + 16


def _shaved(image: npt.NDArray[np.float64], border: int) -> npt.NDArray[np.float64]:
    return image[border:-border, border:-border] if border else image


def psnr(ours: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], border: int = 0) -> float:
    """PSNR in dB of two [H, W] images in 0..255 after shaving `border` pixels from each side."""
    difference = _shaved(ours, border) - _shaved(truth, border)
    mse = float(np.mean(difference**2))
    return float("inf") if mse == 0 else 10 * np.log10(255**2 / mse)


def _gaussian(size: int = 11, sigma: float = 1.5) -> npt.NDArray[np.float64]:
    x = np.arange(size) - size // 2
    line = np.exp(-(x**2) / (2 * sigma**2))
    return line / line.sum()


def _blur(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    kernel = _gaussian()
    rows = np.apply_along_axis(np.convolve, 0, image, kernel, mode="valid")
    return np.apply_along_axis(np.convolve, 1, rows, kernel, mode="valid")


def ssim(ours: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], border: int = 0) -> float:
    """Mean SSIM (Wang et al. 2004: 11x11 Gaussian of 1.5, K1 0.01, K2 0.03, valid region)."""
    a, b = _shaved(ours, border), _shaved(truth, border)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(np.mean(top / bottom))
