"""Maps the times of a source to an output clock that only goes forward.

A source that is lost and comes back begins anew at any time, clocks wrap, jump and stand still. The
output's times only ever go on. Sound and picture of one session are moved by the same amount, so
that they stay together. Times are seconds; the caller hands in the wall clock.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

_BACK: Final = 0.5
"""Seconds by which a source's time may run backwards before it is a jump and not jitter."""
_AHEAD: Final = 5.0
"""Seconds by which it may run ahead of the wall clock's, and sound ahead of the pictures."""
_BEHIND: Final = 15.0
"""Seconds by which sound may be behind the pictures before its time is one of another session."""
_EPOCHS: Final = 16
"""Changes of the offset that are remembered for sound that comes late."""
_LEAD: Final = 0.5
"""Seconds by which the output may run ahead of the wall clock: what viewers see later by."""
_DRIFT: Final = 0.0005
"""Share of its lead by which the origin follows at each picture: no two clocks run alike."""
_APART: Final = 1e7
"""Seconds between the source times of two sessions: more than a source counts (RTMP: 4.3e6)."""
_SESSIONS: Final = 1000
"""After so many, the same source times come again."""
_TICK: Final = 0.001
"""The least step between two pictures: RTMP counts milliseconds."""


@dataclass
class Repairs:
    """Counts of corrections to a source's times."""

    jumps: int = 0
    """Times at which the source's clock leapt."""
    nudged: int = 0
    """Pictures whose time was that of the one before, or earlier."""
    skipped: int = 0
    """Pictures left out of a backlog."""


@dataclass
class OutputClock:
    """Maps the times of consecutive sessions to the output's. Not thread-safe."""

    interval: float
    """Seconds between two pictures at the source's rate."""
    repairs: Repairs = field(default_factory=Repairs)
    last: float = -1.0
    """The newest picture's time in the output."""
    _offset: float | None = None
    _epochs: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_EPOCHS))
    """Source times from which an offset holds, and these offsets; of one stretch without leaps."""
    _source: float = 0.0
    """The newest picture's time in the source, and the wall clock's then."""
    _wall: float = 0.0
    _origin: float | None = None
    """The wall clock's time when the output's was 0."""
    _filled: bool = False
    """Whether the newest picture was shown again."""
    _skipping: bool = False
    _session: int = 0

    def end_session(self) -> None:
        """End a session: the next time of the source is unrelated to the last."""
        self._session += 1
        self._forget()

    def origin(self, time: float) -> float:
        """Return a source time of this session as one that no other session has (s).

        A source that begins again has the times of before once more.
        """
        return time + self._session % _SESSIONS * _APART

    def skips(self, wall: float) -> bool:
        """Whether a picture that comes now must be skipped; call once per picture.

        After a jam all that was held up comes at once. What stood in for it has had its time, so it
        would put everything after it off; of that, viewers would never get rid again.
        """
        ahead = self._lead(wall)
        self._skipping = ahead > (0.0 if self._skipping else _LEAD)
        if self._skipping:
            self.repairs.skipped += 1
            self._forget()
        return self._skipping

    def picture(self, time: float, wall: float) -> float:
        """Return the output's time of a picture with a source time, arrived at a wall time."""
        if self._offset is None:
            self._begin(time, wall)
        elif self._leaps(time, wall):
            self.repairs.jumps += 1
            self._forget()
            self._begin(time, wall)
        elif self._filled and time + self._offset < self.last + self.interval / 2:
            self._begin(time, wall)  # others stood in for it meanwhile
        self._filled = False
        self._source, self._wall = time, wall
        return self._forward(time + (self._offset or 0.0), wall)

    def filler(self, wall: float) -> float:
        """Return the time of a picture that is repeated because none came."""
        self._filled = True
        return self._forward(max(self.last + self.interval, wall - self._start(wall)), wall)

    @property
    def since(self) -> float:
        """The source's time of the first picture since its clock leapt or pictures were skipped."""
        return self._epochs[0][0] if self._epochs else 0.0

    def sound(self, time: float) -> float | None:
        """Return the output's time of sound; None before the session's first picture.

        None too where it leaps away from the pictures: they will tell by how much, and sound that
        was heard at such a time would leave nothing to be heard until then. Sound that is late is
        moved as the pictures of its time were.
        """
        if self._offset is None:
            return None
        slack = self.interval / 2
        offset = next((by for begin, by in reversed(self._epochs) if time >= begin - slack), None)
        placed = time + (self._epochs[0][1] if offset is None else offset)
        return placed if -_BEHIND <= placed - self.last <= _AHEAD else None

    def _forget(self) -> None:
        self._offset = None
        self._epochs.clear()

    def _start(self, wall: float) -> float:
        self._origin = wall if self._origin is None else self._origin
        return self._origin

    def _begin(self, time: float, wall: float) -> None:
        elapsed = wall - self._start(wall)
        start = max(self.last + self.interval, elapsed) if self.last >= 0 else 0.0
        self._offset = start - time
        self._epochs.append((time, self._offset))

    def _leaps(self, time: float, wall: float) -> bool:
        step = time - self._source
        return step < -_BACK or step > (wall - self._wall) + _AHEAD

    def _lead(self, wall: float) -> float:
        """Seconds by which the next picture could at the earliest be ahead of the wall clock."""
        return 0.0 if self.last < 0 else self.last + self.interval - (wall - self._start(wall))

    def _forward(self, time: float, wall: float) -> float:
        if time < self.last + _TICK:
            self.repairs.nudged += 1
            time = self.last + _TICK
        self.last = time
        if self._origin is not None:
            self._origin -= _DRIFT * self._lead(wall)
        return time
