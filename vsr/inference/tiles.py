"""Cuts pictures that are too large for a network into tiles, and joins the enlarged tiles."""

from dataclasses import dataclass
from math import isqrt
from typing import Final

import numpy as np

from vsr.inference.models import Model
from vsr.media.frame import Plane, Planes
from vsr.media.plane_format import PlaneFormat

MAX_TILE_PIXELS: Final = 1280 * 720
"""Maximum tile of an x2 network, in LR pixels: beyond that, activations take gigabytes."""
_MAX_INTERPOLATION_PIXELS: Final = 2560 * 1440
"""Maximum tile of an x2 interpolation, in LR pixels: its activations are negligible."""
_MIN_TILE_PIXELS: Final = 128 * 72
"""Minimum tile, in LR pixels; a device without memory for it is not used."""
_CHROMA_MARGIN: Final = 8
"""Margin for chroma resampling around the network's receptive field, in luma pixels."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in LR luma pixels; only the picture's end may be odd."""

    start: int
    """First pixel of the tile in the picture."""
    keep: tuple[int, int]
    """(begin, end) of the part of the picture taken from this tile; the rest is overlap."""


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Cover 0..length with tiles of `tile` that overlap by at least 2 x `overlap`.

    `overlap` is even, tile <= length, and `tile` and `length` are both even or both odd, so that
    every tile starts on a chroma sample. Every kept part is at least `overlap` away from the edges
    of its tile, except at the edges of the picture.
    """
    if tile == length:
        return [Span(0, (0, length))]
    starts = [*range(0, length - tile, tile // 2 * 2 - 2 * overlap), length - tile]
    borders = [0, *(start + overlap for start in starts[1:]), length]
    return [Span(s, (a, b)) for s, a, b in zip(starts, borders[:-1], borders[1:], strict=True)]


def tile_length(length: int, limit: int, overlap: int) -> int:
    """Return the least tile length to cover `length` with the fewest tiles of at most `limit`."""
    if length <= limit:
        return length
    odd = length % 2  # an odd picture is an even one plus a column, in its last tile
    whole, limit = length - odd, (limit - odd) // 2 * 2
    count = -(-(whole - 2 * overlap) // (limit - 2 * overlap))
    return _even(-(-(whole + 2 * overlap * (count - 1)) // count)) + odd


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def _even(n: int) -> int:
    return n + n % 2


@dataclass(frozen=True)
class TilePlan:
    """How pictures of one size are cut into tiles for an engine of one size."""

    width: int
    height: int
    """`width` and `height` of a tile: the picture size of the engine."""
    columns: list[Span]
    rows: list[Span]
    pad: tuple[int, int]
    """(columns, rows) repeated at the right and bottom of the picture before cutting."""


def plan_tiles(model: Model, width: int, height: int, max_pixels: int | None = None) -> TilePlan:
    """Plan one tile if the picture is small enough for the model, else a grid.

    `max_pixels` is the maximum tile in LR pixels, instead of the usual one, if memory is scarce.
    """
    overlap = _even(model.radius + _CHROMA_MARGIN)
    tile_w, tile_h = width, height
    # at large scales, most activations have the enlarged size
    default_max = MAX_TILE_PIXELS if model.small_tiles else _MAX_INTERPOLATION_PIXELS
    max_pixels = max_pixels or default_max * 4 // max(2, model.scale) ** 2
    if model.fixed_size:
        tile_w, tile_h = model.fixed_size
        # the network fixes the tile size: reduce the overlap rather than refuse it
        overlap = min(overlap, min(tile_w, tile_h) // 16 * 2)
    elif width * height > max_pixels:
        tile_w = tile_length(width, isqrt(max_pixels * 16 // 9), overlap)
        tile_h = tile_length(height, max_pixels // tile_w, overlap)
    full_w, full_h = _full_length(width, tile_w), _full_length(height, tile_h)
    return TilePlan(
        tile_w, tile_h, spans(full_w, tile_w, overlap), spans(full_h, tile_h, overlap),
        (full_w - width, full_h - height),
    )  # fmt: skip


def smaller_plan(model: Model, size: tuple[int, int], plan: TilePlan) -> TilePlan | None:
    """Plan tiles of a quarter of the pixels; None if too small or if the model allows none."""
    pixels = plan.width * plan.height // 4
    overlap = _even(model.radius + _CHROMA_MARGIN)
    min_pixels = max(_MIN_TILE_PIXELS, (3 * overlap) ** 2 * 16 // 9)
    if model.fixed_size or not model.small_tiles or pixels <= min_pixels:
        return None
    return plan_tiles(model, *size, max_pixels=pixels)


def _full_length(length: int, tile: int) -> int:
    """Return the smallest length, at least `length`, that tiles of `tile` can cover."""
    return max(length, tile) + (max(length, tile) - tile) % 2


def pad_planes(planes: Planes, right: int, bottom: int, plane_format: PlaneFormat) -> Planes:
    """Pad planes by repeating the last column and row; `right` and `bottom` in luma pixels."""
    if not right and not bottom:
        return planes
    y, u, v = planes
    height, width = y.shape
    chroma = plane_format.chroma(width + right, height + bottom)[::-1]

    def pad(plane: Plane, rows: int, columns: int) -> Plane:
        pads = ((0, rows - plane.shape[0]), (0, columns - plane.shape[1]))
        return np.pad(plane, pads, mode="edge")

    return pad(y, height + bottom, width + right), pad(u, *chroma), pad(v, *chroma)


def crop_tile(
    planes: Planes, at: tuple[int, int], size: tuple[int, int], plane_format: PlaneFormat
) -> Planes:
    """Return a tile of `size` as views of the planes; `at` is its (column, row), both even."""
    (x, y), (width, height) = at, size
    luma, u, v = planes
    # the chroma of an odd tile is rounded up
    chroma_w, chroma_h = plane_format.chroma(width, height)
    left, top = x // plane_format.chroma_x, y // plane_format.chroma_y
    rows, columns = slice(top, top + chroma_h), slice(left, left + chroma_w)
    return luma[y : y + height, x : x + width], u[rows, columns], v[rows, columns]


def empty_planes(width: int, height: int, planes: PlaneFormat) -> Planes:
    """Allocate uninitialised planes for a picture of that size."""
    shapes = [(height, width), *[planes.chroma(width, height)[::-1]] * 2]
    y, u, v = (np.empty(shape, planes.dtype) for shape in shapes)
    return y, u, v


def paste_tile(
    target: Planes, tile: Planes, column: Span, row: Span, scale: int, plane_format: PlaneFormat
) -> None:
    """Copy the kept part of an enlarged tile into the picture; drop padding outside of it."""
    chroma_x, chroma_y = plane_format.chroma_x, plane_format.chroma_y
    steps = ((1, 1), (chroma_x, chroma_y), (chroma_x, chroma_y))
    for (across, down), whole, part in zip(steps, target, tile, strict=True):
        top, left = row.keep[0] * scale // down, column.keep[0] * scale // across
        # the picture's end is rounded up to whole chroma samples
        bottom = min(_round_up(row.keep[1] * scale, chroma_y) // down, whole.shape[0])
        right = min(_round_up(column.keep[1] * scale, chroma_x) // across, whole.shape[1])
        y, x = row.start * scale // down, column.start * scale // across
        if bottom > top and right > left:
            whole[top:bottom, left:right] = part[top - y : bottom - y, left - x : right - x]
