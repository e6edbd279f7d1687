"""Packs weights in the order of the kernels' matrix fragments, and computes the launch grid.

A matrix instruction reads its 16x8 weights B from the 32 lanes of a warp: with q = lane // 4 and
t = lane % 4, a lane holds rows 2t, 2t+1, 2t+8 and 2t+9 of column q (PTX ISA, mma.m16n8k16).
Two such pieces side by side are the 16x16 weights of one tap: 8 halves, one 16-byte load, per
lane. The host packs them once, so that the kernels need no shared memory for weights.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Halves = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float32]

CHANNELS: Final = 64
GROUPS: Final = 4
THREADS: Final = 128
"""Threads per block."""
RESIDUAL_E_TILE: Final = (14, 10)
"""(width, height) in pixels of the output of one block of `residual_e`."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A launch: blocks along x, y and z, and threads per block; no dynamic shared memory."""

    grid: tuple[int, int, int]
    threads: int = THREADS


def residual_e_launch(batch: int, height: int, width: int) -> Launch:
    """Return blocks and threads of `residual_e`(x, weights, bias, int32 height, int32 width, y)."""
    return Launch(grid=(*tiles(height, width, RESIDUAL_E_TILE), batch))


def pack_residual_e(
    first: tuple[npt.ArrayLike, npt.ArrayLike],
    second: tuple[npt.ArrayLike, npt.ArrayLike],
    point: tuple[npt.ArrayLike, npt.ArrayLike],
) -> tuple[Halves, Floats]:
    """Pack each convolution's (weight, bias) into weights [22528] and bias [192] of `residual_e`.

    Inputs are in the layout of torch and ONNX: weights [64, 16, 3, 3] twice and [64, 64, 1, 1],
    biases [64]. Weights are rounded to half. Raises ValueError for other shapes.
    """
    grouped = (CHANNELS, CHANNELS // GROUPS, 3, 3)
    parts = [_pack_grouped(_as_shape(weight, grouped)) for weight, _ in (first, second)]
    parts.append(_pack_pointwise(_as_shape(point[0], (CHANNELS, CHANNELS, 1, 1))))
    bias = [_as_shape(bias, (CHANNELS,)) for _, bias in (first, second, point)]
    return np.concatenate([part.ravel() for part in parts]).astype(np.float16), np.concatenate(bias)


def tiles(height: int, width: int, tile: tuple[int, int]) -> tuple[int, int]:
    """Return how many tiles of (width, height) cover a picture, along x and y."""
    return -(-width // tile[0]), -(-height // tile[1])


def _as_shape(value: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    array = np.asarray(value, np.float32)
    if array.shape != shape:
        raise ValueError(f"residual-E weights have shape {array.shape}, expected {shape}")
    return array


def _pack_grouped(weight: Floats) -> npt.NDArray[Any]:
    """Pack [64, 16, 3, 3] -> [group, tap, lane, 8]."""
    taps = weight.reshape(GROUPS, 16, 16, 9).transpose(0, 3, 2, 1)  # group, tap, k, n
    return fragments(taps)


def _pack_pointwise(weight: Floats) -> npt.NDArray[Any]:
    """Pack [64, 64, 1, 1] -> [slice of outputs, group of inputs, lane, 8].

    Columns are ordered so that the two accumulators of a lane, columns 2t and 2t+1 of each piece,
    are four consecutive channels: column c of piece j is channel 4 * (c // 2) + 2 * j + c % 2.
    """
    column, piece = np.arange(16) % 8, np.arange(16) // 8
    order = 4 * (column // 2) + 2 * piece + column % 2
    blocks = weight.reshape(GROUPS, 16, GROUPS, 16)[:, order]  # slice, n, group, k
    return fragments(blocks.transpose(0, 2, 3, 1))


def fragments(weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pack [..., k=16, n=16] -> [..., lane=32, 8]: rows 2t, 2t+1, 2t+8, 2t+9 of both pieces."""
    lane = np.arange(32)[:, None, None, None]
    piece = np.arange(2)[:, None, None]
    lower, e = np.arange(2)[:, None], np.arange(2)
    k, n = 8 * lower + 2 * (lane % 4) + e, 8 * piece + lane // 4
    return weights[..., k, n].reshape(*weights.shape[:-2], 32, 8)
