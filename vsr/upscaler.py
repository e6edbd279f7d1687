"""Frame -> Frame on a backend: keeps several pictures under way, cuts large ones into tiles."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Final, TypeVar

import numpy as np

from vsr.backends import Backend, Engine, Ticket, load_backend
from vsr.checked import CheckedEngine, Way
from vsr.colour import Colour
from vsr.errors import OutOfMemoryError
from vsr.frame import Frame, Plane, Planes
from vsr.graph import PlaneFormat
from vsr.models import Model, in_fp32

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_TILE_PIXELS: Final = 1280 * 720
"""Largest picture given to an x2 network at once: activations take gigabytes beyond that."""
_LEAST_TILE_PIXELS: Final = 128 * 72
"""Where a device without memory for that is given up."""
_MAX_HELD: Final = 64
"""Packets that may wait behind a frame under way before the upscaler waits for the frame."""
_CHROMA_MARGIN: Final = 8
"""What chroma resampling looks at around the network's own receptive field, in luma pixels."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis in LR luma pixels; only the picture's end may be odd."""

    start: int
    """Where the tile begins in the picture."""
    keep: tuple[int, int]
    """The part of the picture taken from this tile; the rest is overlap."""


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Cover 0..length with tiles of `tile` that overlap by at least 2 x `overlap`.

    `overlap` is even, tile <= length, and both are even or both odd, so that every tile starts on
    a chroma sample; every kept part is at least `overlap` away from the edges of its tile, except
    at the edges of the picture.
    """
    if tile == length:
        return [Span(0, (0, length))]
    starts = [*range(0, length - tile, tile // 2 * 2 - 2 * overlap), length - tile]
    cuts = [0, *(start + overlap for start in starts[1:]), length]
    return [Span(s, (a, b)) for s, a, b in zip(starts, cuts[:-1], cuts[1:], strict=True)]


def tile_length(length: int, limit: int, overlap: int) -> int:
    """The smallest tile for `spans` that covers `length` with as few of at most `limit` as go."""
    if length <= limit:
        return length
    odd = length % 2  # an odd picture is an even one and a column more, on its last tile
    whole, limit = length - odd, (limit - odd) // 2 * 2
    count = -(-(whole - 2 * overlap) // (limit - 2 * overlap))
    return _even(-(-(whole + 2 * overlap * (count - 1)) // count)) + odd


def _even(n: int) -> int:
    return n + n % 2


@dataclass(frozen=True)
class TilePlan:
    """How pictures of one size are cut for an engine of one size."""

    width: int
    height: int
    """The engine's picture size."""
    columns: list[Span]
    rows: list[Span]
    pad: tuple[int, int]
    """(columns, rows) repeated at the right and bottom of the picture before cutting."""


def plan_tiles(model: Model, width: int, height: int, most: int | None = None) -> TilePlan:
    """One tile where the picture is small enough or the model is bicubic, else a grid.

    `most` is the largest tile in LR pixels where memory is scarcer than usual.
    """
    overlap = _even(model.radius + _CHROMA_MARGIN)
    tile_w, tile_h = width, height
    # large factors have most of their activations enlarged
    most = most or MAX_TILE_PIXELS * 4 // max(2, model.scale) ** 2
    if model.fixed_size:
        tile_w, tile_h = model.fixed_size
        # a fixed network brings its own size: give up overlap rather than refuse it
        overlap = min(overlap, min(tile_w, tile_h) // 16 * 2)
    elif model.tiled and width * height > most:
        tile_w = tile_length(width, isqrt(most * 16 // 9), overlap)
        tile_h = tile_length(height, most // tile_w, overlap)
    full_w, full_h = _full_length(width, tile_w), _full_length(height, tile_h)
    return TilePlan(
        tile_w, tile_h, spans(full_w, tile_w, overlap), spans(full_h, tile_h, overlap),
        (full_w - width, full_h - height),
    )  # fmt: skip


def _least(model: Model) -> int:
    """Pixels of the smallest 16:9 tile that is not mostly overlap."""
    overlap = _even(model.radius + _CHROMA_MARGIN)
    return max(_LEAST_TILE_PIXELS, (3 * overlap) ** 2 * 16 // 9)


def _full_length(length: int, tile: int) -> int:
    """The least length from `length` on that tiles of `tile` can cover."""
    return max(length, tile) + (max(length, tile) - tile) % 2


@dataclass
class _Job:
    """A frame whose tiles are under way."""

    frame: Frame
    planes: Planes | None
    waiting: int


def is_built(model: Model, backend: Backend, colour: Colour, size: tuple[int, int]) -> bool:
    """Whether an `Upscaler` of these would be there at once, and not after minutes of building."""
    plan = plan_tiles(model, *size)
    return backend.is_built(model.graph(colour), (plan.width, plan.height))


class Upscaler:
    """A model compiled for one picture size and colour. Not thread-safe."""

    def __init__(
        self,
        model: Model,
        backend: Backend,
        colour: Colour,
        size: tuple[int, int],
        batch: int = 1,
    ) -> None:
        self.model = model
        self.size = size
        self._format = PlaneFormat()
        self.out_size = self._format.output(*size, model.scale)
        self.plan = plan_tiles(model, *size)
        self._engine: Engine = self._fitting(backend, colour, batch)
        self._tickets: deque[tuple[_Job, Span, Span, Ticket]] = deque()

    def _fitting(self, backend: Backend, colour: Colour, batch: int) -> Engine:
        """An engine that fits the device's memory: of smaller batches, then of smaller tiles."""
        while True:
            try:
                ways = _ways(
                    self.model, backend, colour, (self.plan.width, self.plan.height), batch
                )
                engine = CheckedEngine(ways, self.model.scale)
            except OutOfMemoryError as exc:
                pixels = self.plan.width * self.plan.height // 4
                if batch > 1:
                    batch = 1
                elif self.model.tiled and not self.model.fixed_size and pixels > _least(self.model):
                    self.plan = plan_tiles(self.model, *self.size, most=pixels)
                else:
                    raise
                log.debug("%s: trying %d tiles, batch %d", exc, self.tiles, batch)
                continue
            if self.tiles > 1 or batch > 1:
                log.debug("%d tiles of %dx%d", self.tiles, self.plan.width, self.plan.height)
            return engine

    @property
    def tiles(self) -> int:
        """Tiles per picture."""
        return len(self.plan.columns) * len(self.plan.rows)

    def process(self, items: Iterable[Frame | T]) -> Iterator[Frame | T]:
        """Yield every item in order, frames enlarged; other items (packets) pass through."""
        order: deque[_Job | T] = deque()
        for item in items:
            order.append(self._submit(item) if isinstance(item, Frame) else item)
            if len(order) > _MAX_HELD and self._tickets:
                self._collect()
            yield from self._ready(order)
        while self._tickets:
            self._collect()
            yield from self._ready(order)

    def _ready(self, order: deque[_Job | T]) -> Iterator[Frame | T]:
        while order:
            head = order[0]
            if not isinstance(head, _Job):
                yield head
            elif head.waiting or head.planes is None:
                return
            else:
                yield head.frame.with_planes(head.planes, self.model.name)
            order.popleft()

    def _submit(self, frame: Frame) -> _Job:
        job = _Job(frame, None, self.tiles)
        padded = _padded(frame.planes, *self.plan.pad)
        for row in self.plan.rows:
            for column in self.plan.columns:
                while len(self._tickets) >= self._engine.slots:
                    self._collect()
                tile = _cut(padded, column.start, row.start, self.plan.width, self.plan.height)
                ticket = self._engine.submit(tile)
                if not frame.stamps.infer_start:
                    frame.stamps.infer_start = ticket.started
                self._tickets.append((job, column, row, ticket))
        return job

    def _collect(self) -> None:
        """Take the oldest ticket's result into its frame."""
        job, column, row, ticket = self._tickets.popleft()
        planes = ticket.result()
        job.frame.stamps.infer_end = max(job.frame.stamps.infer_end, ticket.finished)
        job.waiting -= 1
        if self.tiles == 1 and self.plan.pad == (0, 0):
            job.planes = planes
            return
        if job.planes is None:
            job.planes = _empty(*self.out_size, self._format)
        _paste(job.planes, planes, column, row, self.model.scale)


def _ways(
    model: Model, backend: Backend, colour: Colour, size: tuple[int, int], batch: int
) -> list[Way]:
    """The model on the backend; should that yield no picture, in fp32, then on OpenVINO."""
    forms = [(backend, model)]
    plain = in_fp32(model)
    if plain:
        forms.append((backend, plain))
    if backend.name != "openvino":
        forms.append((load_backend("openvino"), plain or model))
    return [
        Way(
            f"{model.name} on {on.name} in {form.precision}",
            partial(on.compile, form.graph(colour), size, batch),
        )
        for on, form in forms
    ]


def _padded(planes: Planes, right: int, bottom: int) -> Planes:
    """Repeat the last column and row; chroma by half as much."""
    if not right and not bottom:
        return planes
    y, u, v = planes
    height, width = y.shape
    chroma = (-(-(height + bottom) // 2), -(-(width + right) // 2))

    def grown(plane: Plane, rows: int, columns: int) -> Plane:
        pads = ((0, rows - plane.shape[0]), (0, columns - plane.shape[1]))
        return np.pad(plane, pads, mode="edge")

    return grown(y, height + bottom, width + right), grown(u, *chroma), grown(v, *chroma)


def _cut(planes: Planes, x: int, y: int, width: int, height: int) -> Planes:
    luma, u, v = planes
    # the chroma of an odd tile is rounded up
    right, bottom = x // 2 + -(-width // 2), y // 2 + -(-height // 2)
    return (
        luma[y : y + height, x : x + width],
        u[y // 2 : bottom, x // 2 : right],
        v[y // 2 : bottom, x // 2 : right],
    )


def _empty(width: int, height: int, planes: PlaneFormat) -> Planes:
    chroma = planes.chroma(width, height)[::-1]
    return (
        np.empty((height, width), np.uint8),
        np.empty(chroma, np.uint8),
        np.empty(chroma, np.uint8),
    )


def _paste(target: Planes, tile: Planes, column: Span, row: Span, scale: int) -> None:
    """Copy the kept part of an enlarged tile to its place; what lies outside is padding."""
    for step, whole, part in zip((1, 2, 2), target, tile, strict=True):
        top, left = row.keep[0] * scale // step, column.keep[0] * scale // step
        bottom = min(_even(row.keep[1] * scale) // step, whole.shape[0])
        right = min(_even(column.keep[1] * scale) // step, whole.shape[1])
        y, x = row.start * scale // step, column.start * scale // step
        if bottom > top and right > left:
            whole[top:bottom, left:right] = part[top - y : bottom - y, left - x : right - x]
