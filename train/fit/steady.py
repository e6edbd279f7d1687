"""Steadiness of an enlarged video: how far a small change that an encoder makes moves the picture.

In a still scene an encoder sends a coefficient of some block now and then. A network that sharpens
enlarges that change, too, and the picture flickers. The loss `sharp` can hold that down.
"""

import math
from functools import cache
from typing import Final

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


def block_change(like: Tensor) -> Tensor:
    """A change as an encoder's: one DCT coefficient in some blocks of 8x8, [N, 1, H, W].

    `like` is [N, C, H, W]. Drawn by torch's generator.
    """
    height, width = like.shape[-2:]
    rows, columns = (math.ceil(n / _BLOCK) for n in (height, width))
    shape = (len(like), rows, columns)
    which = torch.randint(_FREQUENCIES, (2, *shape))
    sign = 2.0 * torch.randint(2, shape) - 1
    amount = _SIZE * _BLOCK * sign * (torch.rand(shape) < _SHARE)
    basis = dct(_BLOCK)
    blocks = amount[..., None, None] * basis[which[0]][..., :, None] * basis[which[1]][..., None, :]
    change = blocks.permute(0, 1, 3, 2, 4).reshape(len(like), 1, rows * _BLOCK, columns * _BLOCK)
    return change[..., :height, :width].to(like)


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
