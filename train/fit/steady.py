"""Steadiness of an enlarged video: how far a small change that an encoder makes moves the picture.

In a still scene an encoder sends a coefficient of some block now and then. A network that sharpens
enlarges that change, too, and the picture flickers. The loss `sharp` can hold that down.
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
"""Side of a transform block, as H.264's larger and HEVC's most frequent one."""
_FREQUENCIES: Final = 6
"""Of the eight of a block's side, those that low and middle bit rates send."""
_SHARE: Final = 0.3
"""Of the blocks that change."""
_SIZE: Final = 2 / 255
"""Root mean square of the change of a block."""


def block_change(like: Tensor, draws: Sequence[np.random.Generator]) -> Tensor:
    """A change as an encoder's: one DCT coefficient in some blocks of 8x8, [N, 1, H, W].

    `like` is [N, C, H, W]; each of its N patches has a generator.
    """
    height, width = like.shape[-2:]
    changes = [_change(math.ceil(height / _BLOCK), math.ceil(width / _BLOCK), rng) for rng in draws]
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
    """The orthonormal DCT-II: row k is the k-th basis function, [n, n]."""
    k = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi * k[:, None] * (2 * k + 1) / (2 * n)) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows.float()


def unsteadiness(before: Tensor, after: Tensor, change: Tensor) -> Tensor:
    """How far a change of the LR picture moved the network's, in times of bicubic's; a scalar.

    `before` and `after` are [N, C, s*H, s*W], `change` [N, 1, H, W] and somewhere not 0.
    """
    plain = bicubic(change, before.shape[-1] // change.shape[-1])
    return functional.l1_loss(after, before) / plain.abs().mean()
