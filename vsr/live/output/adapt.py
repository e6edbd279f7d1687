"""Chooses the bitrate that an output's connection can carry, from its backlog and throughput.

If the backlog grows, the connection is too slow: the bitrate is reduced to the recent throughput,
in fixed steps so that few encoders serve many outputs. If nothing gets through at all, it may be a
stall, which is given more time. After a period without backlog the bitrate rises by one step. If
that step was too high, the next attempt is delayed further.
"""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

SHARES: Final = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12)
"""Steps of the bitrate, as fractions of the full bitrate."""
_LOOK_S: Final = 0.25
_WINDOW_S: Final = 2.0
"""Measurement window of the throughput, in seconds."""
_LOOKS: Final = 3
"""Number of consecutive samples over which the backlog must grow."""
_LATE_S: Final = 0.6
"""Wait of the oldest packet above which the connection may be too slow, in seconds."""
_STALL_S: Final = 1.5
"""The same if nothing gets through."""
_FREE_S: Final = 0.5
"""Wait up to which there is no backlog, in seconds: sent packets are reported every 0.2 s."""
_USED: Final = 0.85
"""Fraction of the throughput that is used: the rest drains the backlog."""
_UP_S: Final = 20.0
"""Time without backlog before a step up, in seconds."""
_UP_MOST_S: Final = 320.0
_RELAPSE_S: Final = 30.0
"""Time after a step up, in seconds, within which a step down means that it was too high."""


@dataclass(frozen=True)
class _Sample:
    at: float
    backlog: int
    sent: int
    sound: int


class Adapter:
    """Adapts one output's bitrate. Not thread-safe, but any thread may read `share`."""

    def __init__(self, full: float) -> None:
        """`full` is the video bitrate at share 1 (bit/s)."""
        self._full = full
        self.share = 1.0
        """Fraction of the full bitrate: one of `SHARES`."""
        self.changes = 0
        self.went_down = False
        """Whether the last change was a reduction."""
        self.lowest = 1.0
        self.line = 0.0
        """Throughput at the last reduction (bit/s)."""
        self._samples: deque[_Sample] = deque()
        self._changed = self._free_since = float("-inf")
        self._rose = float("-inf")
        self._up_s = _UP_S

    def restart(self, at: float) -> None:
        """Restart the measurement because a new session began at `at` (s, any clock)."""
        self._samples.clear()
        self._free_since = at

    def look(self, at: float, waits: float, backlog: int, sent: int, sound: int) -> bool:
        """Take a sample; return whether the share has changed.

        `waits` is the waiting time of the oldest packet (s), `backlog` the number of bytes
        waiting, `sent` the total bytes sent and `sound` the total audio bytes offered. Calls may
        come at any interval.
        """
        samples = self._samples
        if samples and at - samples[-1].at < _LOOK_S:
            return False
        samples.append(_Sample(at, backlog, sent, sound))
        while at - samples[0].at > _WINDOW_S:
            samples.popleft()
        if waits > _FREE_S:
            self._free_since = at
        if self._is_narrow(at, waits):
            return self._down(at)
        if self.share < 1.0 and at - max(self._free_since, self._changed) >= self._up_s:
            return self._up(at)
        return False

    def _is_narrow(self, at: float, waits: float) -> bool:
        """Return whether the backlog keeps growing; without throughput, after a longer wait."""
        recent = list(self._samples)[-_LOOKS:]
        if waits <= _LATE_S or len(recent) < _LOOKS:
            return False
        steps = list(pairwise(recent))
        if any(later.backlog <= before.backlog for before, later in steps):
            return False
        return all(later.sent > before.sent for before, later in steps) or waits > _STALL_S

    def _down(self, at: float) -> bool:
        lower = [share for share in SHARES if share < self.share]
        if not lower:
            return False
        first = self._samples[0]
        span = max(_LOOK_S, at - first.at)
        self.line = 8 * (self._samples[-1].sent - first.sent) / span
        sound = 8 * (self._samples[-1].sound - first.sound) / span
        room = (_USED * self.line - sound) / self._full
        if at - self._rose < _RELAPSE_S:
            self._up_s = min(2 * self._up_s, _UP_MOST_S)
        self._change(next((share for share in lower if share <= room), lower[-1]), at)
        return True

    def _up(self, at: float) -> bool:
        if at - self._rose > _UP_MOST_S:
            self._up_s = _UP_S
        self._rose = at
        self._change(min(share for share in SHARES if share > self.share), at)
        return True

    def _change(self, share: float, at: float) -> None:
        self.went_down = share < self.share
        self.share, self._changed = share, at
        self.changes += 1
        self.lowest = min(self.lowest, share)
        self._samples.clear()
