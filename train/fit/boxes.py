"""Draw flat boxes with hard edges into patches, like black bars, captions, menus, game overlays.

Bicubic downscaling softens every edge of a training picture. A network trained on nothing else
treats a hard edge between two LR pixels as a much steeper one and draws a bright line beside it.
Video has such edges wherever graphics were drawn at its resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

_MAX_BOXES: Final = 4
"""Maximum number of boxes in a patch."""
_BAR_SHARE: Final = 0.5
"""Share of the patches with boxes that get one bar along a whole side instead, 0..1."""
_BLACK_BAR_SHARE: Final = 0.6
"""Share of the bars that are black, 0..1."""


@dataclass(frozen=True)
class Box:
    """Box in patch number `patch`: rows and columns in LR pixels, ends excluded, one colour.

    `colour` is [C, 1, 1] in 0..1.
    """

    patch: int
    top: int
    bottom: int
    left: int
    right: int
    colour: Tensor


def random_boxes(lr: Tensor, share: float, rngs: Sequence[np.random.Generator]) -> list[Box]:
    """Draw boxes for about `share` of the patches `lr` [N, C, H, W], with one generator each."""
    boxes: list[Box] = []
    for patch, rng in enumerate(rngs):
        if rng.random() < share:
            draw = _bar if rng.random() < _BAR_SHARE else _free_boxes
            boxes += draw(patch, lr.shape[1:], rng)
    return boxes


def with_boxes(x: Tensor, boxes: list[Box], factor: int) -> Tensor:
    """Return a copy of `x` [N, C, factor * H, factor * W] with the boxes, or `x` without any."""
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
    black = rng.random() < _BLACK_BAR_SHARE
    colour = torch.zeros(channels, 1, 1) if black else _colour(channels, rng)
    if side < 2:
        return [Box(patch, first, first + thick, 0, width, colour)]
    return [Box(patch, 0, height, first, first + thick, colour)]


def _free_boxes(patch: int, shape: Sequence[int], rng: np.random.Generator) -> list[Box]:
    channels, height, width = shape
    boxes = []
    for _ in range(int(rng.integers(1, _MAX_BOXES + 1))):
        top, bottom = _span(height, rng)
        left, right = _span(width, rng)
        boxes.append(Box(patch, top, bottom, left, right, _colour(channels, rng)))
    return boxes


def _span(length: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return a random (first, end); its size is log-uniform, because lines and letters are thin."""
    extent = max(1, min(length, int(length ** rng.random())))
    first = int(rng.integers(length - extent + 1))
    return first, first + extent


def _colour(channels: int, rng: np.random.Generator) -> Tensor:
    """Return a random colour: grey with probability 1/2; each value is 0 or 1 in 1/3 of cases."""
    values = rng.random(channels if rng.random() < 0.5 else 1)
    colour = torch.from_numpy(np.clip(1.5 * values - 0.25, 0, 1)).float()
    return colour[:, None, None].expand(channels, 1, 1)
