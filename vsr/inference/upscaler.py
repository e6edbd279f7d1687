"""Enlarges frames on a backend, several at a time and in order."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np

from vsr.errors import BackendError, OutOfMemoryError
from vsr.inference.backend import Backend, Ticket, load_backend
from vsr.inference.checked import Candidate, CheckedEngine
from vsr.inference.depth import for_bit_depth
from vsr.inference.models import Model, in_fp32
from vsr.inference.tiles import (
    Span,
    crop_tile,
    empty_planes,
    pad_planes,
    paste_tile,
    plan_tiles,
    smaller_plan,
)
from vsr.media.colour import Colour
from vsr.media.frame import Frame, Planes, now
from vsr.media.plane_format import YUV420, PlaneFormat

log = logging.getLogger(__name__)
T = TypeVar("T")

REUSED: Final = "reused"
"""The `event` of a frame that reuses the result of an identical frame before it."""
_ROW_STEP: Final = 16
"""Step between the rows that are compared first: most different frames already differ in those."""
_MAX_QUEUED: Final = 64
"""Maximum number of queued items before the upscaler waits for the oldest frame."""


@dataclass
class _Job:
    """A frame whose tiles are being computed."""

    frame: Frame
    tiles_left: int
    """Number of unfinished tiles; all of them again when the frame is resubmitted."""
    planes: Planes | None = None
    duplicate_of: "_Job | None" = None
    """Earlier frame with the same samples, whose result is reused."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Description of an upscaler, without its engine."""

    name: str
    """Name of the model."""
    sha256: str
    precision: str
    scale: int
    size: tuple[int, int]
    """(width, height) of the input pictures."""
    out_size: tuple[int, int]
    tiles: int
    """Number of tiles per picture."""


def is_built(
    model: Model, backend: Backend, colour: Colour, size: tuple[int, int],
    planes: PlaneFormat = YUV420,
) -> bool:  # fmt: skip
    """Return whether an `Upscaler` of these can start without building an engine for minutes."""
    plan = plan_tiles(model, *size)
    graph = for_bit_depth(model, planes).graph(colour, planes)
    return backend.is_built(graph, (plan.width, plan.height))


class Upscaler:
    """Enlarges frames of one size and colour with one model. Not thread-safe."""

    def __init__(
        self,
        model: Model,
        backend: Backend,
        colour: Colour,
        size: tuple[int, int],
        batch: int = 1,
        fall_back: bool = False,
        planes: PlaneFormat = YUV420,
        reuse: bool = False,
    ) -> None:
        """With `fall_back`, an engine that fails while running is replaced, which may take minutes.
        The next engine computes the unfinished frames: if memory ran out, with batches of 1, then
        smaller tiles; else in fp32, then on OpenVINO. Without it, the error is raised.

        With `reuse`, a frame with the same samples as the previous one is not computed again; both
        then share their planes, which must not be written to.
        """
        self.model = model = for_bit_depth(model, planes)
        self.size = size
        self.out_size = planes.output(*size, model.scale)
        self.plan = plan_tiles(model, *size)
        self._colour, self._batch, self._fall_back = colour, batch, fall_back
        self._planes, self._reuse = planes, reuse
        self._last: _Job | None = None
        self._candidates = _candidates(model, backend)
        self._engine: CheckedEngine | None = self._compile_within_memory()
        self._tickets: deque[tuple[_Job, Span, Span, Ticket]] = deque()

    @property
    def outline(self) -> Outline:
        """Description of this upscaler."""
        model = self.model
        return Outline(
            name=model.name, sha256=model.sha256, precision=model.precision, scale=model.scale,
            size=self.size, out_size=self.out_size, tiles=self.tiles,
        )  # fmt: skip

    def _compile_within_memory(self) -> CheckedEngine:
        """Compile an engine; if memory runs out, retry with batches of 1, then smaller tiles."""
        size = (self.plan.width, self.plan.height)
        graphs = [model.graph(self._colour, self._planes) for _, model in self._candidates]
        candidates = [
            Candidate(_engine_name(*each), partial(each[0].compile, graph, size, self._batch))
            for each, graph in zip(self._candidates, graphs, strict=True)
        ]
        try:
            engine = CheckedEngine(candidates, self.model.scale, self._planes.bits)
        except OutOfMemoryError as exc:
            if not self._shrink():
                raise
            log.debug("%s: trying %s", exc, self._layout)
        else:
            if self.tiles > 1 or self._batch > 1:
                log.debug("%s", self._layout)
            return engine
        return self._compile_within_memory()

    def _shrink(self) -> bool:
        """Switch to batches of 1, else to smaller tiles; return False if neither is possible."""
        if self._batch > 1:
            self._batch = 1
            return True
        plan = smaller_plan(self.model, self.size, self.plan)
        self.plan = plan or self.plan
        return plan is not None

    @property
    def _layout(self) -> str:
        """Number and size of the tiles, and the batch, as text."""
        tiles = "1 tile" if self.tiles == 1 else f"{self.tiles} tiles"
        return f"{tiles} of {self.plan.width}x{self.plan.height}, batch {self._batch}"

    @property
    def tiles(self) -> int:
        """Number of tiles per picture."""
        return len(self.plan.columns) * len(self.plan.rows)

    def process(self, items: Iterable[Frame | T]) -> Iterator[Frame | T]:
        """Yield every item in order, frames enlarged; other items (packets) pass through.

        A frame's planes must not change until its result is yielded; with `reuse`, also not
        afterwards, because the next frame is compared with them. Raises BackendError.
        """
        queue: deque[_Job | T] = deque()
        for item in items:
            if isinstance(item, Frame):
                job = self._new_job(item)
                queue.append(job)
                if job.duplicate_of is None:
                    self._with_fallback(partial(self._submit, job), queue)
            else:
                queue.append(item)
            if len(queue) > _MAX_QUEUED and self._tickets:
                self._with_fallback(self._collect, queue)
            yield from self._finished(queue)
        while self._tickets:
            self._with_fallback(self._collect, queue)
            yield from self._finished(queue)

    def _new_job(self, frame: Frame) -> _Job:
        height, width = frame.planes[0].shape
        if (width, height) != self.size:  # no fallback engine could help
            w, h = self.size
            raise BackendError(f"luma plane is {width}x{height}, expected {w}x{h}")
        if frame.format != self._planes:
            raise BackendError(f"frame is {frame.format}, expected {self._planes}")
        job = _Job(frame, self.tiles)
        if not self._reuse:
            return job
        if self._last is not None and _same_samples(frame.planes, self._last.frame.planes):
            job.duplicate_of, job.tiles_left = self._last, 0
            frame.event = frame.event or REUSED
        else:
            self._last = job
        return job

    def _finished(self, queue: deque[_Job | T]) -> Iterator[Frame | T]:
        while queue:
            head = queue[0]
            if not isinstance(head, _Job):
                yield head
            elif head.duplicate_of is not None:  # yielded before
                assert head.duplicate_of.planes is not None
                head.frame.stamps.infer_start = head.frame.stamps.infer_end = now()
                yield head.frame.with_planes(head.duplicate_of.planes, self.model.name)
            elif head.tiles_left or head.planes is None:
                return
            else:
                yield head.frame.with_planes(head.planes, self.model.name)
            queue.popleft()

    def _with_fallback(self, step: Callable[[], None], queue: deque[_Job | T]) -> None:
        """Run a step; if the engine fails, compute all unfinished frames again on another one."""
        while True:
            try:
                step()
                return
            except BackendError as exc:
                if not self._fall_back:
                    raise
                log.debug("the engine failed", exc_info=True)
                # without its traceback, which would keep the engine's memory allocated
                failure = type(exc)(str(exc))
            self._choose_fallback(failure)
            step = partial(self._resubmit, queue)

    def _choose_fallback(self, failure: BackendError) -> None:
        """Choose an engine with less memory, or the next candidate; else raise `failure`."""
        failed = self._engine.name if self._engine else _engine_name(*self._candidates[0])
        self._tickets.clear()
        if self._engine is not None:
            del self._candidates[: self._engine.rejected]
            self._engine = None
        if isinstance(failure, OutOfMemoryError) and self._shrink():
            log.warning("%s failed (%s): retrying with %s", failed, failure, self._layout)
            return
        if len(self._candidates) == 1:
            raise failure
        del self._candidates[0]
        log.warning("%s failed (%s): using %s", failed, failure, _engine_name(*self._candidates[0]))

    def _resubmit(self, queue: deque[_Job | T]) -> None:
        """Submit all unfinished frames again; they still hold their planes."""
        for job in queue:
            if isinstance(job, _Job) and job.tiles_left:
                self._submit(job)

    def _submit(self, job: _Job) -> None:
        if self._engine is None:
            self._engine = self._compile_within_memory()
        job.tiles_left, job.planes = self.tiles, None
        frame = job.frame
        padded = pad_planes(frame.planes, *self.plan.pad, self._planes)
        tile_size = (self.plan.width, self.plan.height)
        for row in self.plan.rows:
            for column in self.plan.columns:
                while len(self._tickets) >= self._engine.slots:
                    self._collect()
                tile = crop_tile(padded, (column.start, row.start), tile_size, self._planes)
                ticket = self._engine.submit(tile)
                if not frame.stamps.infer_start:
                    frame.stamps.infer_start = ticket.started
                self._tickets.append((job, column, row, ticket))

    def _collect(self) -> None:
        """Wait for the oldest ticket and store its result in its job."""
        job, column, row, ticket = self._tickets.popleft()
        planes = ticket.result()
        job.frame.stamps.infer_end = max(job.frame.stamps.infer_end, ticket.finished)
        job.tiles_left -= 1
        if self.tiles == 1 and self.plan.pad == (0, 0):
            job.planes = planes
            return
        if job.planes is None:
            job.planes = empty_planes(*self.out_size, job.frame.format)
        paste_tile(job.planes, planes, column, row, self.model.scale, self._planes)


def _candidates(model: Model, backend: Backend) -> list[tuple[Backend, Model]]:
    """List the engines to try, in order: the model on the backend, in fp32, and on OpenVINO."""
    candidates = [(backend, model)]
    fp32 = in_fp32(model)
    if fp32:
        candidates.append((backend, fp32))
    if backend.name != "openvino":
        candidates.append((load_backend("openvino"), fp32 or model))
    return candidates


def _engine_name(backend: Backend, model: Model) -> str:
    return f"{model.name} on {backend.name} in {model.precision}"


def _same_samples(first: Planes, second: Planes) -> bool:
    """Return whether all samples are equal."""
    pairs = list(zip(first, second, strict=True))
    sampled = all(np.array_equal(a[::_ROW_STEP], b[::_ROW_STEP]) for a, b in pairs)
    return sampled and all(np.array_equal(a, b) for a, b in pairs)
