"""Maps the timestamps of a source to an output clock that only increases.

A source that reconnects may start at any timestamp, and source clocks wrap, jump and stall. Output
times always increase. Audio and video of one session are shifted by the same offset, so that they
remain in sync. Times are in seconds; the caller passes the wall-clock time.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

_BACK: Final = 0.5
"""Largest backward step of the source time that counts as jitter, not as a jump, in seconds."""
_AHEAD: Final = 5.0
"""Largest lead of a source time step over the wall clock's, and of audio over video, in seconds."""
_BEHIND: Final = 15.0
"""Largest lag of audio behind video, in seconds; with more, it belongs to another session."""
_EPOCHS: Final = 16
"""Number of offset changes that are kept, to place audio that arrives late."""
_LEAD: Final = 0.5
"""Largest lead of the output over the wall clock, in seconds; it adds to the viewers' latency."""
_DRIFT: Final = 0.0005
"""Fraction of the lead by which the origin is corrected at each frame: any two clocks drift."""
_APART: Final = 1e7
"""Distance between source times of two sessions (s): more than a source counts (RTMP: 4.3e6)."""
_SESSIONS: Final = 1000
"""Number of sessions after which `OutputClock.origin` repeats its times."""
_TICK: Final = 0.001
"""Smallest step between two frames, in seconds: RTMP counts milliseconds."""


@dataclass
class Repairs:
    """Counters of corrections to a source's times."""

    jumps: int = 0
    """Number of jumps of the source's clock."""
    nudged: int = 0
    """Number of frames whose time was increased because it was not after the previous frame's."""
    skipped: int = 0
    """Number of frames skipped to remove a backlog."""


@dataclass
class OutputClock:
    """Maps the times of consecutive sessions to output times. Not thread-safe."""

    interval: float
    """Frame interval at the source's rate, in seconds."""
    repairs: Repairs = field(default_factory=Repairs)
    last: float = -1.0
    """Output time of the newest frame."""
    _offset: float | None = None
    _epochs: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_EPOCHS))
    """Pairs (source time from which the offset is valid, offset) since the last jump or skip."""
    _source: float = 0.0
    """Source time of the newest frame; `_wall` is the wall-clock time at its arrival."""
    _wall: float = 0.0
    _origin: float | None = None
    """Wall-clock time at output time 0."""
    _filled: bool = False
    """Whether the newest output frame is a repeated one."""
    _skipping: bool = False
    _session: int = 0

    def end_session(self) -> None:
        """End a session: the next source time is unrelated to the last one."""
        self._session += 1
        self._forget()

    def origin(self, time: float) -> float:
        """Return a source time plus an offset that makes it unique among sessions (s).

        A source that restarts repeats the timestamps of earlier sessions.
        """
        return time + self._session % _SESSIONS * _APART

    def skips(self, wall: float) -> bool:
        """Return whether a frame that arrives at `wall` must be skipped; call once per frame.

        After a stall, all delayed frames arrive at once. Repeated frames were already shown in
        their place, so showing them too would delay all later frames permanently.
        """
        ahead = self._lead(wall)
        self._skipping = ahead > (0.0 if self._skipping else _LEAD)
        if self._skipping:
            self.repairs.skipped += 1
            self._forget()
        return self._skipping

    def picture(self, time: float, wall: float) -> float:
        """Return the output time of a frame with source time `time` that arrived at `wall`."""
        if self._offset is None:
            self._begin(time, wall)
        elif self._leaps(time, wall):
            self.repairs.jumps += 1
            self._forget()
            self._begin(time, wall)
        elif self._filled and time + self._offset < self.last + self.interval / 2:
            self._begin(time, wall)  # repeated frames were shown in its place
        self._filled = False
        self._source, self._wall = time, wall
        return self._forward(time + (self._offset or 0.0), wall)

    def filler(self, wall: float) -> float:
        """Return the output time of a frame that is repeated because no new one arrived."""
        self._filled = True
        return self._forward(max(self.last + self.interval, wall - self._start(wall)), wall)

    @property
    def since(self) -> float:
        """Source time of the first frame since the last jump, skip or session start; 0 if none."""
        return self._epochs[0][0] if self._epochs else 0.0

    def sound(self, time: float) -> float | None:
        """Return the output time of audio; None before the session's first frame.

        Also None if it is too far from the video: only the next frame shows the size of the jump,
        and audio placed there would leave silence up to it. Late audio gets the offset
        of the frames at its source time.
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
        """Return the smallest possible lead of the next frame over the wall clock, in seconds."""
        return 0.0 if self.last < 0 else self.last + self.interval - (wall - self._start(wall))

    def _forward(self, time: float, wall: float) -> float:
        if time < self.last + _TICK:
            self.repairs.nudged += 1
            time = self.last + _TICK
        self.last = time
        if self._origin is not None:
            self._origin -= _DRIFT * self._lead(wall)
        return time
