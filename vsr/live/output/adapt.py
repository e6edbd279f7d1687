"""Chooses the bitrate that an output's line takes, by what waits and what gets through.

Where packets wait and become more, the line is too narrow: the bitrate goes down to what got
through lately, by steps so that few encoders are enough for many outputs. Where nothing gets
through at all it may be a stall, which is given more time. It goes up again by one step where
nothing waited for a while; where that was too much once more, the next attempt comes later.
"""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

SHARES: Final = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12)
"""Steps of the bitrate, as shares of the full one."""
_LOOK_S: Final = 0.25
_WINDOW_S: Final = 2.0
"""Seconds over which the line is measured."""
_LOOKS: Final = 3
"""Looks in a row over which what waits must have become more."""
_LATE_S: Final = 0.6
"""Seconds that the oldest packet waits from which on the line is too narrow."""
_STALL_S: Final = 1.5
"""The same where nothing gets through."""
_FREE_S: Final = 0.5
"""Seconds up to which it is not: sending is reported five times a second."""
_USED: Final = 0.85
"""Share of what got through that is used: the rest lets what waits become less."""
_UP_S: Final = 20.0
"""Without anything waiting, before a step up."""
_UP_MOST_S: Final = 320.0
_RELAPSE_S: Final = 30.0
"""A step down so soon after one up says that the one up was wrong."""


@dataclass(frozen=True)
class _Sample:
    at: float
    backlog: int
    sent: int
    sound: int


class Adapter:
    """Follows one output's line. For one thread; `share` may be read by any."""

    def __init__(self, full: float) -> None:
        """`full` is the video's bitrate (bit/s) at the share of 1."""
        self._full = full
        self.share = 1.0
        """Of the full bitrate: one of `SHARES`."""
        self.changes = 0
        self.went_down = False
        """Whether the last change was to less."""
        self.lowest = 1.0
        self.line = 0.0
        """What got through when it was measured last (bit/s)."""
        self._samples: deque[_Sample] = deque()
        self._changed = self._free_since = float("-inf")
        self._rose = float("-inf")
        self._up_s = _UP_S

    def restart(self, at: float) -> None:
        """Begin to measure anew after another session has begun (s, any clock)."""
        self._samples.clear()
        self._free_since = at

    def look(self, at: float, waits: float, backlog: int, sent: int, sound: int) -> bool:
        """Return whether the share has changed.

        `waits` is how long the oldest packet has been waiting (s), `backlog` the bytes that wait,
        `sent` and `sound` the bytes so far: sent in all, and offered of sound. Called at any pace.
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
        """Whether what waits becomes more, look by look, although something gets through."""
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
