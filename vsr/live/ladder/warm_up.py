"""Warms up engines and measures their time per frame."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Final

import numpy as np

from vsr.errors import InterruptedRunError
from vsr.inference.backend import Backend
from vsr.inference.models import Model
from vsr.inference.upscaler import Upscaler
from vsr.media.colour import Colour
from vsr.media.frame import Frame, Planes, Stamps, now
from vsr.media.plane_format import YUV420, PlaneFormat

_WARM_UPS: Final = 4
"""Minimum number of timed runs: the first ones choose kernels and allocate memory."""
_TIMED_S: Final = 0.05
"""Minimum total time of the runs, in seconds: long enough to find a run without other load on the
system, and short because viewers wait."""
_LONG_TIMED_S: Final = 0.3
"""The same, beside a live stream, whose frames disturb most runs."""
STOPPED: Final = "stopped while the networks were loaded"


def measure_cost(model: Model, backend: Backend, size: tuple[int, int], colour: Colour) -> float:
    """Load a network for frames of a size (width, height); return the time per frame (s)."""
    return time_per_frame(Upscaler(model, backend, colour, size), trial_frame(size), lambda: False)


def time_per_frame(
    upscaler: Upscaler,
    picture: Frame,
    is_stopped: Callable[[], bool],
    beside_stream: bool = False,
) -> float:
    """Warm up an engine on a frame; return the time of the fastest run (s).

    `beside_stream`: whether it takes longer, to find a run that no live frame disturbs. Raises
    InterruptedRunError if `is_stopped` returns true in between.
    """
    times: list[float] = []
    min_total_s = _LONG_TIMED_S if beside_stream else _TIMED_S
    while len(times) < _WARM_UPS or sum(times) < min_total_s:
        if is_stopped():
            raise InterruptedRunError(STOPPED)
        began = now()
        upscale_one(replace(picture, stamps=Stamps()), upscaler)
        times.append(now() - began)
    return min(times)


def trial_frame(size: tuple[int, int], form: PlaneFormat = YUV420) -> Frame:
    """Create a frame with a gradient, so that an engine with blank output is detected."""
    y, u, v = grey_planes(*size, form)
    unit = 2 ** (form.bits - 8)
    y[:] = unit * (32 + np.add.outer(np.arange(len(y)), np.arange(len(y[0]))) % 192)
    return Frame(planes=(y, u, v), index=0, pts=0, time_base=Fraction(1), duration=0, format=form)


def upscale_one(frame: Frame, upscaler: Upscaler) -> Frame:
    """Upscale a single frame."""
    return next(iter(upscaler.process([frame])))


def grey_planes(width: int, height: int, form: PlaneFormat = YUV420) -> Planes:
    """Create the planes of a mid-grey frame."""
    chroma, middle = form.chroma(width, height)[::-1], 2 ** (form.bits - 1)
    y, u, v = (np.full(shape, middle, form.dtype) for shape in ((height, width), chroma, chroma))
    return y, u, v
