"""Enlarges frames whose size, format or colour changes within one stream."""

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
"""Number of upscalers kept for later frames of their kind, e.g. portrait and landscape pictures."""

_Kind = tuple[tuple[int, int], PlaneFormat, Colour]


class AnySize:
    """Enlarges frames of any kind, with one upscaler per kind, created on its first frame.

    Not thread-safe.
    """

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
            while len(self._upscalers) >= _KEPT:  # free memory before the next allocation
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
    """Yields frames until size, format or colour changes; `next` is then the first other frame."""

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
