"""Maps the timestamps of a source to an output clock that only increases.

A source that reconnects may start at any timestamp, and source clocks wrap, jump and stall. Output
times always increase. Audio and video of one session are shifted by the same offset, so that they
remain in sync. Times are in seconds; the caller passes the wall-clock time.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

_MAX_STEP_BACK: Final = 0.5
"""Largest backward step of the source time that counts as jitter, not as a jump, in seconds."""
_MAX_LEAD: Final = 5.0
"""Largest lead of a source time step over the wall clock's, and of audio over video, in seconds."""
_MAX_AUDIO_LAG: Final = 15.0
"""Largest lag of audio behind video, in seconds; with more, it belongs to another session."""
_MAX_EPOCHS: Final = 16
"""Number of offset changes that are kept, to place audio that arrives late."""
_MAX_OUTPUT_LEAD: Final = 0.5
"""Largest lead of the output over the wall clock, in seconds; it adds to the viewers' latency."""
_DRIFT_CORRECTION: Final = 0.0005
"""Fraction of the lead by which the origin is corrected at each frame: any two clocks drift."""
_SESSION_OFFSET: Final = 1e7
"""Distance between source times of two sessions (s): more than a source counts (RTMP: 4.3e6)."""
_MAX_SESSIONS: Final = 1000
"""Number of sessions after which `OutputClock.unique_time` repeats its times."""
_MIN_STEP: Final = 0.001
"""Smallest step between two frames, in seconds: RTMP counts milliseconds."""


@dataclass
class Corrections:
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
    corrections: Corrections = field(default_factory=Corrections)
    last: float = -1.0
    """Output time of the newest frame."""
    _offset: float | None = None
    _epochs: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MAX_EPOCHS))
    """Pairs (source time from which the offset is valid, offset) since the last jump or skip."""
    _last_source: float = 0.0
    """Source time of the newest frame; `_last_wall` is the wall-clock time at its arrival."""
    _last_wall: float = 0.0
    _wall_zero: float | None = None
    """Wall-clock time at output time 0."""
    _is_repeat: bool = False
    """Whether the newest output frame is a repeated one."""
    _skipping: bool = False
    _session: int = 0

    def end_session(self) -> None:
        """End a session: the next source time is unrelated to the last one."""
        self._session += 1
        self._reset_offset()

    def unique_time(self, time: float) -> float:
        """Return a source time plus an offset that makes it unique among sessions (s).

        A source that restarts repeats the timestamps of earlier sessions.
        """
        return time + self._session % _MAX_SESSIONS * _SESSION_OFFSET

    def must_skip(self, wall: float) -> bool:
        """Return whether a frame that arrives at `wall` must be skipped; call once per frame.

        After a stall, all delayed frames arrive at once. Repeated frames were already shown in
        their place, so showing them too would delay all later frames permanently.
        """
        ahead = self._lead(wall)
        self._skipping = ahead > (0.0 if self._skipping else _MAX_OUTPUT_LEAD)
        if self._skipping:
            self.corrections.skipped += 1
            self._reset_offset()
        return self._skipping

    def place_frame(self, time: float, wall: float) -> float:
        """Return the output time of a frame with source time `time` that arrived at `wall`."""
        if self._offset is None:
            self._set_offset(time, wall)
        elif self._has_jumped(time, wall):
            self.corrections.jumps += 1
            self._reset_offset()
            self._set_offset(time, wall)
        elif self._is_repeat and time + self._offset < self.last + self.interval / 2:
            # repeated frames were shown in its place, and in that of all audio after the last one
            since = self._last_source + self.interval / 2
            self._set_offset(time, wall, since=min(time, since))
        self._is_repeat = False
        self._last_source, self._last_wall = time, wall
        return self._advance(time + (self._offset or 0.0), wall)

    def place_repeat(self, wall: float) -> float:
        """Return the output time of a frame that is repeated because no new one arrived."""
        self._is_repeat = True
        return self._advance(max(self.last + self.interval, wall - self._wall_start(wall)), wall)

    @property
    def epoch_start(self) -> float:
        """Source time of the first frame since the last jump, skip or session start; 0 if none."""
        return self._epochs[0][0] if self._epochs else 0.0

    def place_audio(self, time: float, usual_lag: float = 0.0) -> float | None:
        """Return the output time of audio; None before the session's first frame.

        Also None if it is too far from the video: only the next frame shows the size of the jump,
        and audio placed there would leave silence up to it. The same holds for audio that follows
        the last frame after a pause, while that frame is repeated: it would lag behind the
        repeated frames by more than `usual_lag` (s). Late audio gets the offset of the frames at
        its source time.
        """
        if self._offset is None:
            return None
        slack = self.interval / 2
        offset = next((by for begin, by in reversed(self._epochs) if time >= begin - slack), None)
        placed = time + (self._epochs[0][1] if offset is None else offset)
        lag = self.last - placed
        if self._is_repeat and time > self._last_source and lag > usual_lag + _MAX_STEP_BACK:
            return None
        return placed if -_MAX_LEAD <= lag <= _MAX_AUDIO_LAG else None

    def audio_lag(self, time: float, placed: float) -> float:
        """Return how long ago the frame of audio's source time `time` was shown, in seconds.

        `placed` is the audio's output time. Frames repeated in a pause of both do not count, except
        for audio that goes on after the last frame.
        """
        lag = self.last - placed
        return lag if time > self._last_source else min(lag, self._last_source - time)

    def follow_audio(self, time: float, lag: float) -> None:
        """Stop waiting for a frame after a pause: audio of source time `time`, and all from the
        last frame on, is `lag` seconds behind the repeated frames."""
        self._offset = self.last - lag - time
        self._epochs.append((self._last_source + self.interval / 2, self._offset))

    def _reset_offset(self) -> None:
        self._offset = None
        self._epochs.clear()

    def _wall_start(self, wall: float) -> float:
        self._wall_zero = wall if self._wall_zero is None else self._wall_zero
        return self._wall_zero

    def _set_offset(self, time: float, wall: float, since: float | None = None) -> None:
        """Show source time `time` now; the offset holds for source times from `since` on."""
        elapsed = wall - self._wall_start(wall)
        start = max(self.last + self.interval, elapsed) if self.last >= 0 else 0.0
        self._offset = start - time
        self._epochs.append((time if since is None else since, self._offset))

    def _has_jumped(self, time: float, wall: float) -> bool:
        step = time - self._last_source
        return step < -_MAX_STEP_BACK or step > (wall - self._last_wall) + _MAX_LEAD

    def _lead(self, wall: float) -> float:
        """Return the smallest possible lead of the next frame over the wall clock, in seconds."""
        return 0.0 if self.last < 0 else self.last + self.interval - (wall - self._wall_start(wall))

    def _advance(self, time: float, wall: float) -> float:
        if time < self.last + _MIN_STEP:
            self.corrections.nudged += 1
            time = self.last + _MIN_STEP
        self.last = time
        if self._wall_zero is not None:
            self._wall_zero -= _DRIFT_CORRECTION * self._lead(wall)
        return time
