"""Averages the detail of enlarged frames over time where the picture stands still.

A network enlarges every frame alone. Where the picture stands still, an encoder's small changes
from frame to frame change the detail that a sharp network invents, and it flickers. With lr, the
luma before the network, and out, the luma after it, the filtered luma out' of frame t is

    out'[t] = out[t] + w * (out'[t-1] + U(lr[t] - lr[t-1]) - out[t])

U enlarges linearly. For each pixel of lr and all pixels made of it, w is 0.9 * max(0, 1 - m / tau),
with the mean change m of |lr[t] - lr[t-1]| over 5x5 pixels. A motion by d pixels changes lr by d
times its slope, so tau is 0.7 times the mean slope of lr[t] over these pixels, but at least 0.7 and
at most 4 codes of 8 bits. Where something moves, and at a cut, w is 0 and the frame remains as it
is. out' is kept unrounded: rounded, a remainder of two codes would never decay.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from vsr.inference.look import look_of
from vsr.inference.models import BICUBIC
from vsr.media.colour import RGB, Colour
from vsr.media.frame import Frame, Plane, now
from vsr.media.plane_format import PlaneFormat

T = TypeVar("T")
_Floats = npt.NDArray[np.float32]
_Kind = tuple[str, tuple[int, ...], tuple[int, ...], PlaneFormat, Colour]
"""Model, shapes of the luma before and after it, format and colour."""

_MAX_WEIGHT: Final = 0.9
_MAX_MOTION: Final = 0.7
"""Motion from which on w is 0, in pixels of lr."""
_TAU: Final = (0.7, 4.0)
"""Range of the mean change of lr from which on w is 0, in 8-bit codes."""
_RADIUS: Final = 2
_SIDE: Final = 2 * _RADIUS + 1
_STRIP: Final = 64
"""Number of LR rows that are enlarged at a time, so that the buffers stay in the L2 cache."""


def filters_flicker(model: str, setting: bool | None) -> bool:
    """Return whether the frames of a model are filtered, by the user's setting.

    None: networks with a sharp look are filtered. Bicubic invents no detail and never is.
    """
    if model == BICUBIC:
        return False
    return look_of(model) == "sharp" if setting is None else setting


def can_filter(colour: Colour) -> bool:
    """Return whether frames of a colour have a luma plane; RGB frames are not filtered."""
    return colour.matrix != RGB


class FlickerFilter:
    """Filters the luma of consecutive enlarged frames, of one stream. Not thread-safe.

    Chroma, alpha and RGB frames are not filtered. The frames passed in are not written to.
    """

    def __init__(self, setting: bool | None = True) -> None:
        """`setting`: which models' frames are filtered, as in `filters_flicker`."""
        self._setting = setting
        self._kind: _Kind | None = None
        self._luma: _LumaFilter | None = None
        self._buffers = _SharedBuffers()

    def another(self) -> "FlickerFilter":
        """Return a new filter that shares this one's buffers: use both from one thread."""
        found = FlickerFilter(self._setting)
        found._buffers = self._buffers
        return found

    def reset(self) -> None:
        """Begin again: the next frame is not filtered."""
        self._kind = None

    def filtered(self, before: Frame, after: Frame) -> Frame:
        """Return the enlarged frame `after`, made of `before`, with filtered luma.

        It begins again when model, size, format or colour changes. `before` is not needed
        afterwards.
        """
        luma, result = after.planes[0], after.planes[0]
        if not (filters_flicker(after.rung, self._setting) and can_filter(after.colour)):
            self.reset()
            return after
        kind = (after.rung, before.planes[0].shape, luma.shape, after.format, after.colour)
        if kind == self._kind:
            assert self._luma is not None
            result = self._luma.step(before.planes[0], luma)
        else:
            self._kind = kind
            self._luma = _LumaFilter(before.planes[0], luma, after.format.bits, self._buffers)
        after.stamps.infer_end = now()
        return replace(after, planes=(result, *after.planes[1:]))

    def process(
        self,
        items: Iterable[Frame | T],
        enlarge: Callable[[Iterable[Frame | T]], Iterator[Frame | T]],
    ) -> Iterator[Frame | T]:
        """Yield what `enlarge` makes of the items, frames filtered; other items pass through."""
        for before, item in with_originals(items, enlarge):
            if before is not None:
                assert isinstance(item, Frame)
                yield self.filtered(before, item)
            else:
                yield item


def with_originals(
    items: Iterable[Frame | T], enlarge: Callable[[Iterable[Frame | T]], Iterator[Frame | T]]
) -> Iterator[tuple[Frame | None, Frame | T]]:
    """Yield (frame, enlarged frame) for what `enlarge` makes of frames, (None, item) for others.

    `enlarge`: such as `Upscaler.process`; it keeps the order and makes one frame of each.
    """
    waiting = deque[Frame]()

    def remembered() -> Iterator[Frame | T]:
        for item in items:
            if isinstance(item, Frame):
                waiting.append(item)
            yield item

    for item in enlarge(remembered()):
        yield (waiting.popleft() if isinstance(item, Frame) else None), item


class _Buffers:
    """Intermediate results for LR luma of one shape and a scale; each step overwrites them."""

    def __init__(self, shape: tuple[int, ...], scale: int) -> None:
        height, width = shape
        self.changes = np.empty((height + 2, width + 2), np.float32)
        padded = (height + 2 * _RADIUS, width + 2 * _RADIUS)
        self.padded, self.row_sums = (np.empty(padded, np.float32) for _ in range(2))
        self.slopes, self.weights = (np.empty(shape, np.float32) for _ in range(2))
        self.wide_weights = np.empty((height, scale * width), np.float32)
        self.wide_changes = np.empty((height + 2, scale * width), np.float32)
        self.strips = [np.empty((_STRIP, scale * width), np.float32) for _ in range(2)]


class _SharedBuffers:
    """Buffers for one kind of luma, made when first needed."""

    def __init__(self) -> None:
        self._kind: tuple[tuple[int, ...], int] | None = None
        self._found: _Buffers | None = None

    def of(self, shape: tuple[int, ...], scale: int) -> _Buffers:
        """Return buffers for that kind; those of another kind are dropped."""
        if self._found is None or self._kind != (shape, scale):
            self._kind, self._found = (shape, scale), _Buffers(shape, scale)
        return self._found


class _LumaFilter:
    """Computes the formula for planes of one size."""

    def __init__(self, lr: Plane, out: Plane, bits: int, buffers: _SharedBuffers) -> None:
        """Begin with a first frame: its luma before and after enlarging."""
        height, width = lr.shape
        self._scale = scale = out.shape[0] // height
        self._unit = float(2 ** (bits - 8))
        self._max_code = float(2**bits - 1)
        self._b = buffers.of(lr.shape, scale)
        self._lr = lr.astype(np.float32)
        self._last = out[: scale * height, : scale * width].astype(np.float32)
        """The previous out', unrounded."""

    def step(self, lr: Plane, out: Plane) -> Plane:
        """Return the filtered luma of the next frame.

        `lr`: luma [height, width] before enlarging; `out`: luma after it; both uint8 or uint16 in
        the range of their bits.
        """
        np.subtract(lr, self._lr, out=self._b.changes[1:-1, 1:-1])
        np.copyto(self._lr, lr)
        self._weigh()
        self._widen()
        height, scale = len(lr), self._scale
        result = np.empty_like(out, order="C")
        for start in range(0, height, _STRIP):
            rows = slice(start, min(start + _STRIP, height))
            if self._b.weights[rows].any():
                for phase in range(scale):
                    self._mix(rows, phase, out, result)
            else:
                enlarged = slice(scale * rows.start, scale * rows.stop)
                result[enlarged] = out[enlarged]
                self._last[enlarged] = out[enlarged, : self._last.shape[1]]
        _repeat_edge(result, (scale * height, scale * lr.shape[1]))
        return result

    def _weigh(self) -> None:
        """Compute w for every pixel of lr."""
        tau, w, inner = (
            self._b.slopes,
            self._b.weights,
            self._b.padded[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS],
        )
        inner[:] = 0.0
        np.abs(np.diff(self._lr, axis=0), out=inner[:-1])
        inner[:, :-1] += np.abs(np.diff(self._lr, axis=1))
        self._box_sum(tau)
        tau *= 0.5 * _MAX_MOTION / _SIDE**2
        np.clip(tau, *(limit * self._unit for limit in _TAU), out=tau)
        np.abs(self._b.changes[1:-1, 1:-1], out=inner)
        self._box_sum(w)
        w /= tau
        w *= -_MAX_WEIGHT / _SIDE**2
        w += _MAX_WEIGHT
        np.maximum(w, 0.0, out=w)

    def _box_sum(self, sums: _Floats) -> None:
        """Sum `padded`, whose border is filled first, over 5x5 pixels."""
        (height, width), padded, rows = sums.shape, self._b.padded, self._b.row_sums
        _fill_border(padded, _RADIUS)
        rows = rows[:, :width]
        np.add(padded[:, :width], padded[:, 1 : width + 1], out=rows)
        for k in range(2, _SIDE):
            rows += padded[:, k : width + k]
        np.add(rows[:height], rows[1 : height + 1], out=sums)
        for k in range(2, _SIDE):
            sums += rows[k : height + k]

    def _widen(self) -> None:
        """Enlarge w and the changes horizontally."""
        scale, changes = self._scale, self._b.changes
        _fill_border(changes, 1)
        for phase in range(scale):
            self._b.wide_weights[:, phase::scale] = self._b.weights
            near, far, step = _taps(phase, scale)
            wide = near * changes[:, 1:-1]
            wide += far * changes[:, 1 + step : changes.shape[1] - 1 + step]
            self._b.wide_changes[:, phase::scale] = wide

    def _mix(self, rows: slice, phase: int, out: Plane, result: Plane) -> None:
        """Compute the output rows number `phase` of `scale` that are made of the rows of lr."""
        count, (_, width) = rows.stop - rows.start, self._b.wide_weights.shape
        area = (slice(self._scale * rows.start + phase, self._scale * rows.stop, self._scale),
                slice(width))  # fmt: skip
        mixed, work = (buffer[:count] for buffer in self._b.strips)
        near, far, step = _taps(phase, self._scale)
        np.multiply(self._b.wide_changes[rows.start + 1 : rows.stop + 1], near, out=mixed)
        neighbours = self._b.wide_changes[rows.start + 1 + step : rows.stop + 1 + step]
        np.multiply(neighbours, far, out=work)
        mixed += work
        mixed += self._last[area]
        np.copyto(work, out[area])
        mixed -= work
        mixed *= self._b.wide_weights[rows]
        mixed += work
        np.clip(mixed, 0.0, self._max_code, out=self._last[area])
        np.rint(self._last[area], out=work)
        np.copyto(result[area], work, casting="unsafe")


def _taps(phase: int, scale: int) -> tuple[float, float, int]:
    """Return linear interpolation as (weight, the other pixel's weight, step to that pixel).

    `phase`: number of the pixel among the `scale` that are made of one.
    """
    offset = (2 * phase + 1 - scale) / (2 * scale)
    return 1 - abs(offset), abs(offset), 1 if offset > 0 else -1


def _fill_border(plane: _Floats, width: int) -> None:
    """Repeat the edge of the inner pixels in a border of that width."""
    plane[:, :width] = plane[:, width : width + 1]
    plane[:, -width:] = plane[:, -width - 1 : -width]
    plane[:width] = plane[width]
    plane[-width:] = plane[-width - 1]


def _repeat_edge(plane: Plane, size: tuple[int, int]) -> None:
    """Fill the row and column after `size` (height, width), if any; see `PlaneFormat.output`."""
    height, width = size
    plane[:height, width:] = plane[:height, width - 1 : width]
    plane[height:] = plane[height - 1]
