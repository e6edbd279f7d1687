"""Enlarges frames whose size, format or colour change on the way."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from vsr.inference.backend import Backend
from vsr.inference.models import Model
from vsr.inference.upscaler import Upscaler
from vsr.media.colour import Colour
from vsr.media.frame import Frame
from vsr.media.plane_format import PlaneFormat

_KEPT: Final = 4
"""Upscalers that are kept for frames of their kind to come, such as upright and lying pictures."""

_Kind = tuple[tuple[int, int], PlaneFormat, Colour]


class AnySize:
    """An upscaler for every kind of frame, made when the first one comes. Not thread-safe."""

    def __init__(self, model: Model, backend: Backend, batch: int = 1) -> None:
        self._model, self._backend, self._batch = model, backend, batch
        self._upscalers: OrderedDict[_Kind, Upscaler] = OrderedDict()

    def process(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield every frame enlarged, lazily and in order. Raises BackendError."""
        flow = iter(frames)
        ahead = next(flow, None)
        while ahead is not None:
            alike = _Alike(ahead, flow)
            yield from self._upscaler(_kind(ahead)).process(alike)
            ahead = alike.next

    def _upscaler(self, kind: _Kind) -> Upscaler:
        found = self._upscalers.pop(kind, None)
        if found is None:
            size, form, colour = kind
            while len(self._upscalers) >= _KEPT:  # before another one takes memory
                self._upscalers.popitem(last=False)
            found = Upscaler(
                self._model, self._backend, colour, size, self._batch, fall_back=True, planes=form
            )
        self._upscalers[kind] = found
        return found


def _kind(frame: Frame) -> _Kind:
    height, width = frame.planes[0].shape
    return (width, height), frame.format, frame.colour


class _Alike:
    """Yields frames while size, format and colour are equal; then `next` is the first other one."""

    def __init__(self, first: Frame, flow: Iterator[Frame]) -> None:
        self._first, self._flow = first, flow
        self.next: Frame | None = None

    def __iter__(self) -> Iterator[Frame]:
        yield self._first
        for frame in self._flow:
            if _kind(frame) != _kind(self._first):
                self.next = frame
                return
            yield frame
