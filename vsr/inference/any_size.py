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

_MAX_UPSCALERS: Final = 4
"""Number of upscalers kept for later frames of their kind, e.g. portrait and landscape pictures."""

_Kind = tuple[tuple[int, int], PlaneFormat, Colour]


class AnySizeUpscaler:
    """Enlarges frames of any kind, with one upscaler per kind, created on its first frame.

    Not thread-safe.
    """

    def __init__(self, model: Model, backend: Backend, batch: int = 1) -> None:
        self._model, self._backend, self._batch = model, backend, batch
        self._upscalers: OrderedDict[_Kind, Upscaler] = OrderedDict()

    def process(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield every frame enlarged, lazily and in order. Raises BackendError."""
        source = iter(frames)
        first_frame = next(source, None)
        while first_frame is not None:
            run = _SameKindRun(first_frame, source)
            yield from self._upscaler(_kind(first_frame)).process(run)
            first_frame = run.next_frame

    def _upscaler(self, kind: _Kind) -> Upscaler:
        upscaler = self._upscalers.pop(kind, None)
        if upscaler is None:
            size, plane_format, colour = kind
            while len(self._upscalers) >= _MAX_UPSCALERS:  # free memory before the next allocation
                self._upscalers.popitem(last=False)
            upscaler = Upscaler(
                self._model, self._backend, colour, size, self._batch,
                fall_back=True, planes=plane_format,
            )  # fmt: skip
        self._upscalers[kind] = upscaler
        return upscaler


def _kind(frame: Frame) -> _Kind:
    height, width = frame.planes[0].shape
    return (width, height), frame.format, frame.colour


class _SameKindRun:
    """Yields frames until size, format or colour changes; `next_frame` is the first other one."""

    def __init__(self, first: Frame, source: Iterator[Frame]) -> None:
        self._first_frame, self._source = first, source
        self.next_frame: Frame | None = None

    def __iter__(self) -> Iterator[Frame]:
        yield self._first_frame
        for frame in self._source:
            if _kind(frame) != _kind(self._first_frame):
                self.next_frame = frame
                return
            yield frame
