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
_SAMPLE_S: Final = 0.25
_WINDOW_S: Final = 2.0
"""Measurement window of the throughput, in seconds."""
_GROWING_SAMPLES: Final = 3
"""Number of consecutive samples over which the backlog must grow."""
_LATE_S: Final = 0.6
"""Wait of the oldest packet above which the connection may be too slow, in seconds."""
_STALL_S: Final = 1.5
"""The same if nothing gets through."""
_NO_BACKLOG_S: Final = 0.5
"""Wait up to which there is no backlog, in seconds: sent packets are reported every 0.2 s."""
_USED_FRACTION: Final = 0.85
"""Fraction of the throughput that is used: the rest drains the backlog."""
_UP_S: Final = 20.0
"""Time without backlog before a step up, in seconds."""
_MAX_UP_S: Final = 320.0
_RELAPSE_S: Final = 30.0
"""Time after a step up, in seconds, within which a step down means that it was too high."""


@dataclass(frozen=True)
class _Sample:
    at: float
    backlog: int
    sent: int
    audio: int


class Adapter:
    """Adapts one output's bitrate. Not thread-safe, but any thread may read `share`."""

    def __init__(self, full_bps: float) -> None:
        """`full_bps` is the video bitrate at share 1 (bit/s)."""
        self._full_bps = full_bps
        self.share = 1.0
        """Fraction of the full bitrate: one of `SHARES`."""
        self.changes = 0
        self.was_reduced = False
        """Whether the last change was a reduction."""
        self.lowest_share = 1.0
        self.throughput_bps = 0.0
        """Throughput at the last reduction (bit/s)."""
        self._samples: deque[_Sample] = deque()
        self._changed_at = self._no_backlog_since = float("-inf")
        self._stepped_up_at = float("-inf")
        self._step_up_after_s = _UP_S

    def restart(self, at: float) -> None:
        """Restart the measurement because a new session began at `at` (s, any clock)."""
        self._samples.clear()
        self._no_backlog_since = at

    def sample(self, at: float, oldest_wait_s: float, backlog: int, sent: int, audio: int) -> bool:
        """Take a sample; return whether the share has changed.

        `oldest_wait_s` is the waiting time of the oldest packet (s), `backlog` the number of bytes
        waiting, `sent` the total bytes sent and `audio` the total audio bytes offered. Calls may
        come at any interval.
        """
        samples = self._samples
        if samples and at - samples[-1].at < _SAMPLE_S:
            return False
        samples.append(_Sample(at, backlog, sent, audio))
        while at - samples[0].at > _WINDOW_S:
            samples.popleft()
        if oldest_wait_s > _NO_BACKLOG_S:
            self._no_backlog_since = at
        if self._is_congested(at, oldest_wait_s):
            return self._step_down(at)
        if (
            self.share < 1.0
            and at - max(self._no_backlog_since, self._changed_at) >= self._step_up_after_s
        ):
            return self._step_up(at)
        return False

    def _is_congested(self, at: float, oldest_wait_s: float) -> bool:
        """Return whether the backlog keeps growing; without throughput, after a longer wait."""
        recent = list(self._samples)[-_GROWING_SAMPLES:]
        if oldest_wait_s <= _LATE_S or len(recent) < _GROWING_SAMPLES:
            return False
        steps = list(pairwise(recent))
        if any(later.backlog <= before.backlog for before, later in steps):
            return False
        return all(later.sent > before.sent for before, later in steps) or oldest_wait_s > _STALL_S

    def _step_down(self, at: float) -> bool:
        lower = [share for share in SHARES if share < self.share]
        if not lower:
            return False
        first = self._samples[0]
        span = max(_SAMPLE_S, at - first.at)
        self.throughput_bps = 8 * (self._samples[-1].sent - first.sent) / span
        audio = 8 * (self._samples[-1].audio - first.audio) / span
        room = (_USED_FRACTION * self.throughput_bps - audio) / self._full_bps
        if at - self._stepped_up_at < _RELAPSE_S:
            self._step_up_after_s = min(2 * self._step_up_after_s, _MAX_UP_S)
        self._set_share(next((share for share in lower if share <= room), lower[-1]), at)
        return True

    def _step_up(self, at: float) -> bool:
        if at - self._stepped_up_at > _MAX_UP_S:
            self._step_up_after_s = _UP_S
        self._stepped_up_at = at
        self._set_share(min(share for share in SHARES if share > self.share), at)
        return True

    def _set_share(self, share: float, at: float) -> None:
        self.was_reduced = share < self.share
        self.share, self._changed_at = share, at
        self.changes += 1
        self.lowest_share = min(self.lowest_share, share)
        self._samples.clear()
