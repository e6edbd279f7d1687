"""A kernel for last layers (`shuffle.cu`): a 3x3 convolution with bias, ReLU and pixel shuffle.

No engine uses it. It reads NHWC halves, sums in float, and compiles for every GPU from compute
capability 7.5 on, with `compile_kernel("shuffle", arch, to, source=SOURCE)`.
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from vsr.inference.kernels.layout import Floats, Halves, Launch, fragments, tiles

SOURCE: Final = Path(__file__).with_name("shuffle.cu").read_bytes()
TILE: Final = (16, 8)
"""(width, height) of one block's output, in low-resolution pixels."""


def shuffle_launch(batch: int, height: int, width: int, outputs: int) -> Launch:
    """Return the launch of `shuffle`(x, weights, bias, int32 height, width, channels, outputs,
    factor, relu, y) on low-resolution pictures of `height` and `width`."""
    return Launch(grid=(*tiles(height, width, TILE), batch * -(-outputs // 16)))


def pack_shuffle(weight: npt.ArrayLike, bias: npt.ArrayLike) -> tuple[Halves, Floats]:
    """Pack a convolution's [outputs, channels, 3, 3] and [outputs] as (weights, bias) of `shuffle`.

    Outputs are padded with zeros to a multiple of 16. Raises ValueError if `channels` is not a
    multiple of 16.
    """
    w, b = np.asarray(weight, np.float32), np.asarray(bias, np.float32)
    if w.ndim != 4 or w.shape[1] % 16 or w.shape[2:] != (3, 3) or b.shape != w.shape[:1]:
        raise ValueError(f"no 3x3 convolution of 16, 32, ... channels: {w.shape} and {b.shape}")
    missing = -len(w) % 16
    w = np.pad(w, ((0, missing), (0, 0), (0, 0), (0, 0)))
    parts, blocks = len(w) // 16, w.shape[1] // 16
    taps = w.reshape(parts, 16, blocks, 16, 9).transpose(0, 2, 4, 3, 1)  # part, block, tap, k, n
    return fragments(taps).astype(np.float16).ravel(), np.pad(b, (0, missing))
