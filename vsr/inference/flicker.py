"""Averages the detail of enlarged frames over time where the picture stands still.

A network enlarges every frame alone. Where the picture stands still, an encoder's small changes
from frame to frame change the detail that a sharp network invents, and it flickers. With lr, the
luma before the network, and out, the luma after it, the filtered luma out' of frame t is

    out'[t] = out[t] + w * (out'[t-1] + U(lr[t] - lr[t-1]) - out[t])

U enlarges linearly. w is 0.8 * max(0, 1 - m / 4) for each pixel of lr and the same for all pixels
made of it; m is the mean of |lr[t] - lr[t-1]| over 5x5 pixels, in 8-bit codes. Where anything
moves, and at a cut, w is 0 and the frame remains as it is.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from vsr.inference.models import BICUBIC, manifest
from vsr.media.colour import RGB, Colour
from vsr.media.frame import Frame, Plane, now
from vsr.media.plane_format import PlaneFormat

T = TypeVar("T")
_Integers = npt.NDArray[np.signedinteger[Any]]
_Kind = tuple[str, tuple[int, ...], tuple[int, ...], PlaneFormat, Colour]
"""Model, shapes of the luma before and after it, format and colour."""

_MAX_WEIGHT: Final = 0.8
_MAX_CHANGE: Final = 4
"""Mean change of lr from which on w is 0, in 8-bit codes."""
_RADIUS: Final = 2
_SIDE: Final = 2 * _RADIUS + 1
_STRIP: Final = 64
"""Number of LR rows that are enlarged at a time: it limits the buffers, and rows of which all
pixels have w = 0 are only copied."""


def filters_flicker(model: str, setting: bool | None) -> bool:
    """Return whether the frames of a model are filtered, by the user's setting.

    None: networks with a sharp look are filtered. Bicubic invents no detail and never is.
    """
    if model == BICUBIC:
        return False
    return _is_sharp(model) if setting is None else setting


def can_filter(colour: Colour) -> bool:
    """Return whether frames of a colour have a luma plane; RGB frames are not filtered."""
    return colour.matrix != RGB


def _is_sharp(model: str) -> bool:
    forms = manifest().get(model, {}).values()
    return any("sharp" in form.get("good_for", "") for form in forms)


class FlickerFilter:
    """Filters the luma of consecutive enlarged frames, of one stream. Not thread-safe.

    Chroma, alpha and RGB frames are not filtered. The frames passed in are not written to.
    """

    def __init__(self, setting: bool | None = True) -> None:
        """`setting`: which models' frames are filtered, as in `filters_flicker`."""
        self._setting = setting
        self._kind: _Kind | None = None
        self._luma: _LumaFilter | None = None
        self._unfiltered = self._filtered = np.empty((0, 0), np.uint8)
        """Luma of the last frame: as the network made it, and filtered."""

    def reset(self) -> None:
        """Begin again: the next frame is not filtered."""
        self._kind = None

    def filtered(self, before: Frame, after: Frame) -> Frame:
        """Return the enlarged frame `after`, made of `before`, with filtered luma.

        It begins again when model, size, format or colour changes. For a repeated frame, the result
        is that of the previous one. `before` is not needed afterwards.
        """
        luma, result = after.planes[0], after.planes[0]
        if not (filters_flicker(after.rung, self._setting) and can_filter(after.colour)):
            self.reset()
            return after
        kind = (after.rung, before.planes[0].shape, luma.shape, after.format, after.colour)
        if kind != self._kind:
            self._kind = kind
            self._luma = _LumaFilter(before.planes[0], luma.shape, after.format.bits)
        elif luma is self._unfiltered or np.array_equal(luma, self._unfiltered):
            result = self._filtered  # of a repeated frame
        else:
            assert self._luma is not None
            result = self._luma.step(before.planes[0], luma, self._filtered)
        self._unfiltered, self._filtered = luma, result
        after.stamps.infer_end = now()
        return replace(after, planes=(result, *after.planes[1:]))

    def process(
        self,
        items: Iterable[Frame | T],
        enlarge: Callable[[Iterable[Frame | T]], Iterator[Frame | T]],
        segment_of: Callable[[Frame], int] | None = None,
    ) -> Iterator[Frame | T]:
        """Yield what `enlarge` makes of the items, frames filtered; other items pass through.

        `enlarge`: such as `Upscaler.process`; it keeps the order and makes one frame of each. The
        first frame of each segment, by the number that `segment_of` returns, is not filtered.
        """
        waiting = deque[Frame]()
        number: int | None = None

        def remembered() -> Iterator[Frame | T]:
            for item in items:
                if isinstance(item, Frame):
                    waiting.append(item)
                yield item

        for item in enlarge(remembered()):
            if not isinstance(item, Frame):
                yield item
                continue
            own = 0 if segment_of is None else segment_of(item)
            if own != number:
                number = own
                self.reset()
            yield self.filtered(waiting.popleft(), item)


class _LumaFilter:
    """Computes the formula for planes of one size, with buffers for its intermediate results.

    Integers have 16 bits for planes of 8 bits, else 32. w is a fraction of `_fraction` bits. The
    products fit: where w is not 0, the changes of lr in the 5x5 pixels add up to less than 100
    8-bit codes, and the more they are, the smaller w.
    """

    def __init__(self, lr: Plane, out_shape: tuple[int, ...], bits: int) -> None:
        """Begin with a first frame, whose luma before enlarging is `lr`."""
        height, width = lr.shape
        self._scale = scale = out_shape[0] // height
        self._dtype = dtype = np.dtype(np.int16 if bits == 8 else np.int32)
        self._fraction, self._shift = (7, 8) if bits == 8 else (14, 17)
        self._max_sum = _MAX_CHANGE * _SIDE**2 << bits - 8
        self._max_code = 2**bits - 1
        self._lr, self._next = lr.astype(dtype), np.empty(lr.shape, dtype)
        self._changes = np.empty((height + 2, width + 2), dtype)
        self._sizes = np.empty((height + 2 * _RADIUS, width + 2 * _RADIUS), dtype)
        self._row_sums = np.empty((height + 2 * _RADIUS, width), dtype)
        self._sums = np.empty(lr.shape, dtype)
        wide = (height, scale * width)
        self._weights = np.empty(wide, dtype)
        self._wide_changes = np.empty((height + 2, scale * width), dtype)
        self._buffers = [np.empty((_STRIP, scale * width), dtype) for _ in range(2)]

    def step(self, lr: Plane, out: Plane, last: Plane) -> Plane:
        """Return the filtered luma of the next frame; `last` is the previous filtered luma.

        All of [height, width], uint8 or uint16 in the range of their bits; `lr` before enlarging.
        """
        np.copyto(self._next, lr)
        inner = self._changes[1:-1, 1:-1]
        np.subtract(self._next, self._lr, out=inner)
        self._lr, self._next = self._next, self._lr
        self._weigh(inner)
        if not self._sums.any():
            return out
        self._widen()
        height, scale = len(lr), self._scale
        result = np.empty_like(out, order="C")
        for start in range(0, height, _STRIP):
            rows = slice(start, min(start + _STRIP, height))
            if self._sums[rows].any():
                for phase in range(scale):
                    self._mix(rows, phase, (out, last, result))
            else:
                enlarged = slice(scale * rows.start, scale * rows.stop)
                result[enlarged] = out[enlarged]
        _repeat_edge(result, (scale * height, scale * lr.shape[1]))
        return result

    def _weigh(self, changes: _Integers) -> None:
        """Compute w for every pixel of lr into `_sums`, from the changes since the last frame."""
        height, width = changes.shape
        sizes, rows, sums = self._sizes, self._row_sums, self._sums
        np.abs(changes, out=sizes[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS])
        _fill_border(sizes, _RADIUS)
        np.add(sizes[:, :width], sizes[:, 1 : width + 1], out=rows)
        for k in range(2, _SIDE):
            rows += sizes[:, k : width + k]
        np.add(rows[:height], rows[1 : height + 1], out=sums)
        for k in range(2, _SIDE):
            sums += rows[k : height + k]
        np.subtract(self._max_sum, sums, out=sums)
        np.clip(sums, 0, self._max_sum, out=sums)
        sums *= round(_MAX_WEIGHT * 2 ** (self._fraction + self._shift) / self._max_sum)
        sums += 1 << self._shift - 1
        sums >>= self._shift

    def _widen(self) -> None:
        """Enlarge w and the changes horizontally; the changes become 2 * scale as large."""
        scale, changes = self._scale, self._changes
        _fill_border(changes, 1)
        for phase in range(scale):
            self._weights[:, phase::scale] = self._sums
            near, far, step = _taps(phase, scale)
            wide = near * changes[:, 1:-1]
            wide += far * changes[:, 1 + step : changes.shape[1] - 1 + step]
            self._wide_changes[:, phase::scale] = wide

    def _mix(self, rows: slice, phase: int, planes: tuple[Plane, Plane, Plane]) -> None:
        """Compute the output rows number `phase` of `scale` that are made of the rows of lr."""
        count, width = rows.stop - rows.start, self._weights.shape[1]
        area = (slice(self._scale * rows.start + phase, self._scale * rows.stop, self._scale),
                slice(width))  # fmt: skip
        out, last, result = (plane[area] for plane in planes)
        change, work = (buffer[:count] for buffer in self._buffers)
        near, far, step = _taps(phase, self._scale)
        np.multiply(self._wide_changes[rows.start + 1 : rows.stop + 1], near, out=change)
        neighbours = self._wide_changes[rows.start + 1 + step : rows.stop + 1 + step]
        np.multiply(neighbours, far, out=work)
        change += work
        change += 2 * self._scale**2
        change //= 4 * self._scale**2
        np.subtract(last, out, out=work, dtype=self._dtype)
        work += change
        work *= self._weights[rows]
        work += 1 << self._fraction - 1
        work >>= self._fraction
        work += out
        np.clip(work, 0, self._max_code, out=work)
        np.copyto(result, work, casting="unsafe")


def _taps(phase: int, scale: int) -> tuple[int, int, int]:
    """Return linear interpolation as (weight, the other pixel's weight, step to that pixel).

    `phase`: number of the pixel among the `scale` that are made of one; the weights' sum is
    2 * scale.
    """
    offset = 2 * phase + 1 - scale
    return 2 * scale - abs(offset), abs(offset), 1 if offset > 0 else -1


def _fill_border(plane: _Integers, width: int) -> None:
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
