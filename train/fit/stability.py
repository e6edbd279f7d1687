"""Measure temporal stability: the response of the enlarged picture to small encoder changes.

In a still scene an encoder occasionally updates a coefficient of a block. A sharpening network
amplifies that change, and the picture flickers. The loss `sharp` can include a penalty for it.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.nets.common import bicubic

_BLOCK: Final = 8
"""Side of a transform block in pixels: H.264's larger and HEVC's most frequent size."""
_FREQUENCIES: Final = 6
"""Number of lowest frequencies, of eight per direction, sent at low and medium bit rates."""
_SHARE: Final = 0.3
"""Share of the blocks that change, 0..1."""
_SIZE: Final = 2 / 255
"""Root mean square of the change within a block, for values in 0..1."""


def block_change(like: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Return a change as of an encoder: one DCT coefficient in some 8x8 blocks, [N, 1, H, W].

    `like` is [N, C, H, W]; `rngs` has a generator for each of its N patches.
    """
    height, width = like.shape[-2:]
    changes = [_change(math.ceil(height / _BLOCK), math.ceil(width / _BLOCK), rng) for rng in rngs]
    return torch.stack(changes)[:, None, :height, :width].to(like)


def _change(rows: int, columns: int, rng: np.random.Generator) -> Tensor:
    shape, basis = (rows, columns), dct(_BLOCK)
    down, across = (basis[torch.from_numpy(rng.integers(_FREQUENCIES, size=shape))] for _ in "yx")
    amount = rng.choice((-1, 1), shape) * (rng.random(shape) < _SHARE) * _SIZE * _BLOCK
    blocks = (
        torch.from_numpy(amount).float()[..., None, None] * down[..., None] * across[:, :, None]
    )
    return blocks.permute(0, 2, 1, 3).reshape(rows * _BLOCK, columns * _BLOCK)


@cache
def dct(n: int) -> Tensor:
    """Return the orthonormal DCT-II matrix [n, n]; row k is the k-th basis function."""
    k = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi * k[:, None] * (2 * k + 1) / (2 * n)) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows.float()


def instability(before: Tensor, after: Tensor, change: Tensor) -> Tensor:
    """Return the network's mean absolute output change relative to bicubic enlargement's, a scalar.

    `before` and `after` are [N, C, s*H, s*W]; `change`, of the LR picture, is [N, 1, H, W], not 0.
    """
    plain = bicubic(change, before.shape[-1] // change.shape[-1])
    return functional.l1_loss(after, before) / plain.abs().mean()
