"""Measures how many pictures a second a source shows, and stamps those that have no usable time."""

from collections import deque
from fractions import Fraction
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from vsr.media.frame import Frame

_PICTURES: Final = 60
"""Over which the rate is measured."""
_FEWEST: Final = 8
_FEWEST_SLOW: Final = 4
"""Pictures that must be known, and where they take longer than `_SLOW_S`."""
_SLOW_S: Final = 0.5
_GAP: Final = 2.5
"""A step that is so many times the usual one is a gap, and no rate."""
_SAME: Final = 0.1
"""Share by which a rate may differ before it is another."""
_CHANGED: Final = 0.05
"""Share by which the newest pictures' rate must differ for those before to be forgotten."""
_USUAL: Final = tuple(
    Fraction(*rate)
    for rate in (
        (5, 1), (10, 1), (12, 1), (15, 1), (20, 1), (24000, 1001), (24, 1), (25, 1),
        (30000, 1001), (30, 1), (48, 1), (50, 1), (60000, 1001), (60, 1), (100, 1), (120, 1),
    )
)  # fmt: skip
_NEAR: Final = 0.0004
"""Share by which a measured rate may differ from a usual one, which is meant then."""
_TIME_BASE: Final = Fraction(1, 90_000)
_LOOK_S: Final = 3.0
"""Seconds of arrivals over which a source's clock is compared with ours."""
_STANDS: Final = 0.6
"""A clock that goes slower than this share of ours does not tell time."""


class RateMeter:
    """Measures the rate from the times of consecutive pictures. Not thread-safe."""

    def __init__(self, told: Fraction) -> None:
        """`told` is the rate that the source declares."""
        self.rate = told
        """Pictures per second, as far as is known."""
        self._times: deque[float] = deque(maxlen=_PICTURES)

    def add(self, time: float) -> bool:
        """Record a picture's time (s); returns whether the rate is another than was known."""
        if self._times and not 0 < time - self._times[-1] < 60:
            self._times.clear()
        self._times.append(time)
        found = self._measured()
        if found is None or abs(found / self.rate - 1) < _SAME:
            return False
        self.rate = found
        return True

    def _measured(self) -> Fraction | None:
        count = len(self._times)
        span = self._times[-1] - self._times[0]
        if count < _FEWEST and not (count >= _FEWEST_SLOW and span >= _SLOW_S):
            return None
        steps = np.array([b - a for a, b in pairwise(self._times)])
        rate, newest = _rate_of(steps), _rate_of(steps[-_FEWEST:])
        if abs(newest / rate - 1) > _CHANGED:
            self._times = deque(list(self._times)[-_FEWEST:], _PICTURES)
            return None
        usual = min(_USUAL, key=lambda known: abs(known / rate - 1))
        near = abs(usual / rate - 1) < _NEAR
        return usual if near else Fraction(rate).limit_denominator(1000)


def _rate_of(steps: npt.NDArray[np.float64]) -> float:
    even = steps[steps < _GAP * np.median(steps)]
    return float(1 / even.mean())


class Restamper:
    """Gives pictures the time of their arrival where the source has no clock.

    That is so where its format has no timestamps (an HTTP camera's MJPEG, a raw stream): FFmpeg
    counts pictures at a rate that it takes for granted; and where its clock all but stands.
    """

    def __init__(self, usable: bool, check: bool) -> None:
        """`usable` says whether there are timestamps, `check` whether to look if they go on."""
        self._usable, self._check = usable, check
        self._began: float | None = None
        self._last = -1
        self._seen: deque[tuple[float, float]] = deque()

    def stamp(self, frame: Frame) -> bool:
        """Replace a picture's time where it tells nothing; returns whether it does so from now."""
        arrived = frame.stamps.read
        stands = self._usable and self._check and self._clock_stands(frame.time, arrived)
        self._usable = self._usable and not stands
        if self._usable:
            return False
        self._began = arrived if self._began is None else self._began
        frame.time_base = _TIME_BASE  # a format without timestamps has a coarse one
        frame.pts = max(self._last + 1, round((arrived - self._began) / float(_TIME_BASE)))
        self._last = frame.pts
        return stands

    def _clock_stands(self, time: float, arrived: float) -> bool:
        seen = self._seen
        if seen and time < seen[-1][0]:
            seen.clear()
        seen.append((time, arrived))
        if arrived - seen[0][1] < _LOOK_S:
            return False
        first, begin = seen.popleft()
        steps = [b[1] - a[1] for a, b in pairwise(seen)]
        stalled = max(steps, default=_LOOK_S) > _LOOK_S / 3
        return not stalled and (time - first) < _STANDS * (arrived - begin)
