"""Flat boxes with hard edges, drawn into patches: black bars, captions, menus, game displays.

Bicubic reduction rounds every edge of a training picture off, so a network that saw nothing else
takes an edge between two LR pixels for a far steeper one and draws a bright line beside it. Video
has such edges wherever something was drawn at its own size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

_MOST: Final = 4
"""Boxes in a patch, at most."""
_BARS: Final = 0.5
"""Of the patches that get boxes, those that get one bar along a whole side."""
_BLACK: Final = 0.6
"""Of the bars, those that are black."""


@dataclass(frozen=True)
class Box:
    """Rows top..bottom and columns left..right of a patch in LR pixels, in one colour [C, 1, 1]."""

    patch: int
    top: int
    bottom: int
    left: int
    right: int
    colour: Tensor


def drawn_boxes(lr: Tensor, share: float, draws: Sequence[np.random.Generator]) -> list[Box]:
    """Boxes for about `share` of the patches `lr` [N, C, H, W], each by its own generator."""
    boxes: list[Box] = []
    for patch, rng in enumerate(draws):
        if rng.random() < share:
            some = _bar if rng.random() < _BARS else _several
            boxes += some(patch, lr.shape[1:], rng)
    return boxes


def painted(x: Tensor, boxes: list[Box], factor: int) -> Tensor:
    """A copy of [N, C, factor * H, factor * W] with the boxes; `x` itself where there are none."""
    if not boxes:
        return x
    x = x.clone()
    for box in boxes:
        rows = slice(factor * box.top, factor * box.bottom)
        x[box.patch, :, rows, factor * box.left : factor * box.right] = box.colour.to(x)
    return x


def _bar(patch: int, shape: Sequence[int], rng: np.random.Generator) -> list[Box]:
    channels, height, width = shape
    side = int(rng.integers(4))
    length = height if side < 2 else width
    thick = int(rng.integers(1, max(2, length // 2 + 1)))
    first = 0 if side % 2 == 0 else length - thick
    black = rng.random() < _BLACK
    colour = torch.zeros(channels, 1, 1) if black else _colour(channels, rng)
    if side < 2:
        return [Box(patch, first, first + thick, 0, width, colour)]
    return [Box(patch, 0, height, first, first + thick, colour)]


def _several(patch: int, shape: Sequence[int], rng: np.random.Generator) -> list[Box]:
    channels, height, width = shape
    boxes = []
    for _ in range(int(rng.integers(1, _MOST + 1))):
        top, bottom = _span(height, rng)
        left, right = _span(width, rng)
        boxes.append(Box(patch, top, bottom, left, right, _colour(channels, rng)))
    return boxes


def _span(length: int, rng: np.random.Generator) -> tuple[int, int]:
    """Thin ones are as frequent as thick ones: lines and letters are thin."""
    extent = max(1, min(length, int(length ** rng.random())))
    first = int(rng.integers(length - extent + 1))
    return first, first + extent


def _colour(channels: int, rng: np.random.Generator) -> Tensor:
    """Grey in one of two cases; each value is 0 or 1 in one of three."""
    values = rng.random(channels if rng.random() < 0.5 else 1)
    colour = torch.from_numpy(np.clip(1.5 * values - 0.25, 0, 1)).float()
    return colour[:, None, None].expand(channels, 1, 1)
