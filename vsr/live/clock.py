"""The output's own time: even and forward, whatever the source's clock does.

A source that is lost and comes back begins anew at any time, clocks wrap, jump and stand still. The
output's times only ever go on. Sound and picture of one session are moved by the same amount, so
that they stay together. Times are seconds; the caller hands in the wall clock.
"""

from dataclasses import dataclass, field
from typing import Final

_BACK: Final = 0.5
"""Seconds by which a source's time may run backwards before it is a jump and not jitter."""
_AHEAD: Final = 5.0
"""Seconds by which it may run ahead of the wall clock's."""
_TICK: Final = 0.001
"""The least step between two pictures: RTMP counts milliseconds."""


@dataclass
class Repairs:
    """What had to be put right, counted."""

    jumps: int = 0
    """Times at which the source's clock leapt."""
    nudged: int = 0
    """Pictures whose time was that of the one before, or earlier."""


@dataclass
class OutputClock:
    """Maps the times of one session after the other to the output's. Not thread-safe."""

    interval: float
    """Between two pictures, where nobody says (s)."""
    repairs: Repairs = field(default_factory=Repairs)
    last: float = -1.0
    """The newest picture's time in the output."""
    _offset: float | None = None
    _source: float = 0.0
    """The newest picture's time in the source, and the wall clock's then."""
    _wall: float = 0.0
    _origin: float | None = None
    _filled: bool = False
    """Whether the newest picture was shown again."""

    def end_session(self) -> None:
        """The source is gone: its next time says nothing about this one."""
        self._offset = None

    def picture(self, time: float, wall: float) -> float:
        """The output's time of a picture with that source time, come at that wall time."""
        if self._offset is None:
            self._begin(time, wall)
        elif self._leaps(time, wall):
            self.repairs.jumps += 1
            self._begin(time, wall)
        elif self._filled and time + self._offset < self.last + self.interval / 2:
            self._begin(time, wall)  # others stood in for it meanwhile
        self._filled = False
        self._source, self._wall = time, wall
        return self._forward(time + (self._offset or 0.0))

    def filler(self, wall: float) -> float:
        """The time of a picture shown again because none came."""
        if self._origin is None:
            self._origin = wall
        self._filled = True
        return self._forward(max(self.last + self.interval, wall - self._origin))

    def sound(self, time: float) -> float | None:
        """The output's time of sound; None before the session's first picture."""
        return None if self._offset is None else time + self._offset

    def _begin(self, time: float, wall: float) -> None:
        if self._origin is None:
            self._origin = wall
        start = max(self.last + self.interval, wall - self._origin) if self.last >= 0 else 0.0
        self._offset = start - time

    def _leaps(self, time: float, wall: float) -> bool:
        step = time - self._source
        return step < -_BACK or step > (wall - self._wall) + _AHEAD

    def _forward(self, time: float) -> float:
        if time < self.last + _TICK:
            self.repairs.nudged += 1
            time = self.last + _TICK
        self.last = time
        return time
