"""Measures the frame rate of a source, and stamps frames that have no usable timestamp."""

from collections import deque
from fractions import Fraction
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from vsr.media.frame import Frame

_WINDOW_FRAMES: Final = 60
"""Number of frames over which the rate is measured."""
_MIN_FRAMES: Final = 8
_MIN_FRAMES_SLOW: Final = 4
"""Fewest frames for a measurement; `_MIN_FRAMES_SLOW` if they span `_MIN_SPAN_SLOW_S` or more."""
_MIN_SPAN_SLOW_S: Final = 0.5
_GAP_RATIO: Final = 2.5
"""Ratio to the median step from which a step is a gap, and is not measured."""
_MIN_CHANGE: Final = 0.1
"""Relative difference from which a measured rate replaces the known one."""
_MAX_SPREAD: Final = 0.05
"""Relative difference of the newest frames' rate above which older frames are discarded."""
_USUAL_RATES: Final = tuple(
    Fraction(*rate)
    for rate in (
        (5, 1), (10, 1), (12, 1), (15, 1), (20, 1), (24000, 1001), (24, 1), (25, 1),
        (30000, 1001), (30, 1), (48, 1), (50, 1), (60000, 1001), (60, 1), (100, 1), (120, 1),
    )
)  # fmt: skip
_MAX_ROUNDING: Final = 0.0004
"""Relative difference below which a measured rate is replaced by a usual one."""
_TIME_BASE: Final = Fraction(1, 90_000)
_CHECK_S: Final = 3.0
"""Time over which a source's clock is compared with the system clock, in seconds."""
_MIN_CLOCK_SPEED: Final = 0.6
"""Smallest usable speed of a source's clock, relative to the system clock."""


class RateMeter:
    """Measures the rate from the times of consecutive frames. Not thread-safe."""

    def __init__(self, declared: Fraction) -> None:
        """`declared` is the rate that the source declares."""
        self.rate = declared
        """Frame rate in Hz: the declared one until another is measured."""
        self._times: deque[float] = deque(maxlen=_WINDOW_FRAMES)

    def add(self, time: float) -> bool:
        """Record a frame's time (s); return whether the rate has changed."""
        if self._times and not 0 < time - self._times[-1] < 60:
            self._times.clear()
        self._times.append(time)
        found = self._measured()
        if found is None or abs(found / self.rate - 1) < _MIN_CHANGE:
            return False
        self.rate = found
        return True

    def _measured(self) -> Fraction | None:
        count = len(self._times)
        span = self._times[-1] - self._times[0]
        if count < _MIN_FRAMES and not (count >= _MIN_FRAMES_SLOW and span >= _MIN_SPAN_SLOW_S):
            return None
        steps = np.array([b - a for a, b in pairwise(self._times)])
        rate, newest = _rate_of(steps), _rate_of(steps[-_MIN_FRAMES:])
        if abs(newest / rate - 1) > _MAX_SPREAD:
            self._times = deque(list(self._times)[-_MIN_FRAMES:], _WINDOW_FRAMES)
            return None
        usual = min(_USUAL_RATES, key=lambda known: abs(known / rate - 1))
        near = abs(usual / rate - 1) < _MAX_ROUNDING
        return usual if near else Fraction(rate).limit_denominator(1000)


def _rate_of(steps: npt.NDArray[np.float64]) -> float:
    even = steps[steps < _GAP_RATIO * np.median(steps)]
    return float(1 / even.mean())


class Restamper:
    """Sets the time of frames to their arrival time if the source has no usable clock.

    This is the case if its format has no timestamps (an HTTP camera's MJPEG, a raw stream), so that
    FFmpeg counts frames at an assumed rate, or if its clock almost stops.
    """

    def __init__(self, usable: bool, check: bool) -> None:
        """`usable`: whether there are timestamps; `check`: whether to check that they advance."""
        self._has_clock, self._checks_clock = usable, check
        self._began: float | None = None
        self._last = -1
        self._seen: deque[tuple[float, float]] = deque()

    def stamp(self, frame: Frame) -> bool:
        """Replace an unusable time; return True once, when the clock is found unusable."""
        arrived = frame.stamps.read
        is_stopped = (
            self._has_clock and self._checks_clock and self._is_clock_stopped(frame.time, arrived)
        )
        self._has_clock = self._has_clock and not is_stopped
        if self._has_clock:
            return False
        self._began = arrived if self._began is None else self._began
        frame.time_base = _TIME_BASE  # formats without timestamps have a coarse one
        frame.pts = max(self._last + 1, round((arrived - self._began) / float(_TIME_BASE)))
        self._last = frame.pts
        return is_stopped

    def _is_clock_stopped(self, time: float, arrived: float) -> bool:
        seen = self._seen
        if seen and time < seen[-1][0]:
            seen.clear()
        seen.append((time, arrived))
        if arrived - seen[0][1] < _CHECK_S:
            return False
        # including the step from the first: a clock that goes on after a pause does not stand
        stalled = max(b[1] - a[1] for a, b in pairwise(seen)) > _CHECK_S / 3
        first, begin = seen.popleft()
        return not stalled and (time - first) < _MIN_CLOCK_SPEED * (arrived - begin)
