"""Measures the A/V offset of an output from the packets it has written."""

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from vsr.live.output.record import Kind

_MAX_FRAMES: Final = 600
"""Number of frames kept: 10 s at 60 fps, because audio may be that late."""
_MEDIAN_PACKETS: Final = 50
"""Number of audio packets in the median: about one second."""
_MAX_DISTANCE_S: Final = 1.0
"""Largest source time difference between an audio packet and a frame to compare, in seconds."""
_MAX_AGE_S: Final = 5.0
"""Age after which a measurement is outdated, in seconds."""


@dataclass(frozen=True)
class _Shift:
    origin: float
    """Source time, in seconds."""
    shift: float
    """Output time minus source time, in seconds."""


class SyncMeter:
    """Compares the time shifts of audio and video of the same source time. Not thread-safe."""

    def __init__(self) -> None:
        self._frames: deque[_Shift] = deque(maxlen=_MAX_FRAMES)
        self._offsets: deque[float] = deque(maxlen=_MEDIAN_PACKETS)
        self._measured_at = -np.inf
        self.worst_ms: float | None = None
        """Offset with the largest magnitude so far, in ms, with its sign."""

    def add(self, kind: Kind, origin: float, time: float, at: float) -> None:
        """Record a packet written at `at` (s, `now`), with its source and output time (s)."""
        if kind == "video":
            self._frames.append(_Shift(origin, time - origin))
        else:
            self._compare(origin, time - origin, at)

    def _compare(self, origin: float, shift: float, at: float) -> None:
        nearest = min(reversed(self._frames), key=lambda p: abs(p.origin - origin), default=None)
        if nearest is None or abs(nearest.origin - origin) > _MAX_DISTANCE_S:
            return
        offset = round(1000 * (nearest.shift - shift), 3)
        self._offsets.append(offset)
        self._measured_at = at
        if self.worst_ms is None or abs(offset) > abs(self.worst_ms):
            self.worst_ms = offset

    def offset_ms(self, at: float) -> float | None:
        """Return how much later video is than its audio (ms; negative: earlier).

        Return None if no source audio was measured within `_MAX_AGE_S` seconds before `at`.
        """
        return None if at - self._measured_at > _MAX_AGE_S else self.last_ms

    @property
    def last_ms(self) -> float | None:
        """Last measured offset, in ms; None if it was never measured."""
        return round(float(np.median(self._offsets)), 1) if self._offsets else None
