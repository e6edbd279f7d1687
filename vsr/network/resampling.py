"""Makes convolution kernels for cubic enlargement, one per output phase."""

from typing import Final

import numpy as np
import numpy.typing as npt

KERNEL_RADIUS: Final = 2
"""Radius of the kernels, in samples: a cubic at any phase needs samples -2 .. +2."""
Array = npt.NDArray[np.floating]


def keys_cubic(x: Array) -> Array:
    """Evaluate Keys' cubic convolution kernel, a = -0.5 (Keys 1981, eq. 15)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def phase_filters(factor: int, offset: float) -> Array:
    """Return [factor, 5] cubic weights: output k*factor + p reads inputs k-2 .. k+2.

    `offset` is the position of output 0 on the input's grid: 0.5/factor - 0.5 if the samples of
    both grids are pixel centres.
    """
    taps = np.arange(-KERNEL_RADIUS, KERNEL_RADIUS + 1)
    position = np.arange(factor)[:, None] / factor + offset
    weights = keys_cubic(position - taps)
    return weights / weights.sum(axis=1, keepdims=True)


def enlarging_kernel(factor_y: int, factor_x: int, offset_y: float, offset_x: float) -> Array:
    """Return the [factor_y*factor_x, 1, 5, 5] kernel that enlarges a plane before DepthToSpace."""
    rows, columns = phase_filters(factor_y, offset_y), phase_filters(factor_x, offset_x)
    kernel = np.einsum("ai,bj->abij", rows, columns)
    return kernel.reshape(factor_y * factor_x, 1, *kernel.shape[2:])
