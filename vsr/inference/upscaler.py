"""Frame -> Frame on a backend: keeps several pictures under way, and loses none of them."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from vsr.errors import BackendError, OutOfMemoryError
from vsr.inference.backend import Backend, Ticket, load_backend
from vsr.inference.checked import CheckedEngine, Way
from vsr.inference.models import Model, in_fp32
from vsr.inference.tiles import Span, cut, empty, padded, paste, plan_tiles, smaller
from vsr.media.colour import Colour
from vsr.media.frame import YUV420, Frame, PlaneFormat, Planes

log = logging.getLogger(__name__)
T = TypeVar("T")

_MAX_HELD: Final = 64
"""Packets that may wait behind a frame under way before the upscaler waits for the frame."""


@dataclass
class _Job:
    """A frame whose tiles are under way."""

    frame: Frame
    waiting: int
    """Tiles that are not done; all of them when it is begun again."""
    planes: Planes | None = None


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
        patient: bool = False,
        planes: PlaneFormat = YUV420,
    ) -> None:
        """`patient`: an engine that fails while it runs is replaced, though that may take minutes.

        What it had under way is computed by the other one: in smaller batches, then smaller tiles
        where memory ran out, else in fp32, then by OpenVINO. Otherwise the error is raised.
        """
        self.model = model
        self.size = size
        self.out_size = planes.output(*size, model.scale)
        self.plan = plan_tiles(model, *size)
        self._colour, self._batch, self._patient = colour, batch, patient
        self._planes = planes
        self._forms = _forms(model, backend)
        self._engine: CheckedEngine | None = self._fitting()
        self._tickets: deque[tuple[_Job, Span, Span, Ticket]] = deque()

    def _fitting(self) -> CheckedEngine:
        """An engine that fits the device's memory: of smaller batches, then of smaller tiles."""
        size = (self.plan.width, self.plan.height)
        ways = [
            Way(
                _name(on, form),
                partial(on.compile, form.graph(self._colour, self._planes), size, self._batch),
            )
            for on, form in self._forms
        ]
        try:
            engine = CheckedEngine(ways, self.model.scale, self._planes.bits)
        except OutOfMemoryError as exc:
            if not self._shrink():
                raise
            log.debug("%s: trying %s", exc, self._cut)
        else:
            if self.tiles > 1 or self._batch > 1:
                log.debug("%s", self._cut)
            return engine
        return self._fitting()

    def _shrink(self) -> bool:
        """Take batches of one, or else smaller tiles; False where there are none."""
        if self._batch > 1:
            self._batch = 1
            return True
        plan = smaller(self.model, self.size, self.plan)
        self.plan = plan or self.plan
        return plan is not None

    @property
    def _cut(self) -> str:
        """How pictures are given to the engine, in words."""
        tiles = "1 tile" if self.tiles == 1 else f"{self.tiles} tiles"
        return f"{tiles} of {self.plan.width}x{self.plan.height}, batch {self._batch}"

    @property
    def tiles(self) -> int:
        """Tiles per picture."""
        return len(self.plan.columns) * len(self.plan.rows)

    def process(self, items: Iterable[Frame | T]) -> Iterator[Frame | T]:
        """Yield every item in order, frames enlarged; other items (packets) pass through.

        A frame's planes must stay as they are until it comes out. Raises BackendError.
        """
        order: deque[_Job | T] = deque()
        for item in items:
            if isinstance(item, Frame):
                job = self._job(item)
                order.append(job)
                self._surely(partial(self._submit, job), order)
            else:
                order.append(item)
            if len(order) > _MAX_HELD and self._tickets:
                self._surely(self._collect, order)
            yield from self._ready(order)
        while self._tickets:
            self._surely(self._collect, order)
            yield from self._ready(order)

    def _job(self, frame: Frame) -> _Job:
        height, width = frame.planes[0].shape
        if (width, height) != self.size:  # no engine's fault, and none could do it
            wanted = "x".join(map(str, self.size))
            raise BackendError(f"a luma plane of {width}x{height}, and not of {wanted}")
        if frame.format != self._planes:
            raise BackendError(f"a frame of {frame.format} for an engine of {self._planes}")
        return _Job(frame, self.tiles)

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

    def _surely(self, step: Callable[[], None], order: deque[_Job | T]) -> None:
        """Do a step; where the engine fails, what is under way is begun again on another one."""
        while True:
            try:
                step()
                return
            except BackendError as exc:
                if not self._patient:
                    raise
                log.debug("the engine failed", exc_info=True)
                # without its traceback, which would keep the engine and its memory
                failure = type(exc)(str(exc))
            self._give_up_engine(failure)
            step = partial(self._begin_again, order)

    def _give_up_engine(self, failure: BackendError) -> None:
        """Decide for another engine: of less memory or computed otherwise. Raises `failure`."""
        failed = _name(*self._forms[0])
        self._tickets.clear()
        if self._engine is not None:
            failed = self._engine.way
            del self._forms[: self._engine.given_up]
            self._engine = None
        if isinstance(failure, OutOfMemoryError) and self._shrink():
            log.warning("%s failed (%s): going on with %s", failed, failure, self._cut)
            return
        if len(self._forms) == 1:
            raise failure
        del self._forms[0]
        log.warning("%s failed (%s): using %s", failed, failure, _name(*self._forms[0]))

    def _begin_again(self, order: deque[_Job | T]) -> None:
        """Submit whatever is not done; the planes are in the frames still."""
        for job in order:
            if isinstance(job, _Job) and job.waiting:
                self._submit(job)

    def _submit(self, job: _Job) -> None:
        if self._engine is None:
            self._engine = self._fitting()
        job.waiting, job.planes = self.tiles, None
        frame = job.frame
        whole = padded(frame.planes, *self.plan.pad, self._planes)
        tile_size = (self.plan.width, self.plan.height)
        for row in self.plan.rows:
            for column in self.plan.columns:
                while len(self._tickets) >= self._engine.slots:
                    self._collect()
                tile = cut(whole, (column.start, row.start), tile_size, self._planes)
                ticket = self._engine.submit(tile)
                if not frame.stamps.infer_start:
                    frame.stamps.infer_start = ticket.started
                self._tickets.append((job, column, row, ticket))

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
            job.planes = empty(*self.out_size, job.frame.format)
        paste(job.planes, planes, column, row, self.model.scale, self._planes)


def _forms(model: Model, backend: Backend) -> list[tuple[Backend, Model]]:
    """The model on the backend; should that yield no picture, in fp32, then on OpenVINO."""
    forms = [(backend, model)]
    plain = in_fp32(model)
    if plain:
        forms.append((backend, plain))
    if backend.name != "openvino":
        forms.append((load_backend("openvino"), plain or model))
    return forms


def _name(backend: Backend, model: Model) -> str:
    return f"{model.name} on {backend.name} in {model.precision}"
