"""Measures the A/V offset of an output from the packets that it wrote."""

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from vsr.live.output.record import Kind

_PICTURES: Final = 600
"""Pictures remembered: 10 s at 60 a second, and sound may be that late."""
_SOUNDS: Final = 50
"""Packets of sound whose median is shown: about a second."""
_NEAR: Final = 1.0
"""Seconds of the source between sound and a picture that can be compared with it."""
_RECENT: Final = 5.0
"""Seconds after which a measurement says nothing about the present."""


@dataclass(frozen=True)
class _Moved:
    origin: float
    """Time in the source (s)."""
    shift: float
    """Time in the output less that."""


class SyncMeter:
    """Compares how far sound and pictures of the same source time were moved. Not thread-safe."""

    def __init__(self) -> None:
        self._pictures: deque[_Moved] = deque(maxlen=_PICTURES)
        self._offsets: deque[float] = deque(maxlen=_SOUNDS)
        self._at = -np.inf
        self.worst_ms: float | None = None
        """The largest offset so far, either way."""

    def add(self, kind: Kind, origin: float, time: float, at: float) -> None:
        """Record what was written at `at` (s, `now`): times in source and output (s)."""
        if kind == "video":
            self._pictures.append(_Moved(origin, time - origin))
        else:
            self._compare(origin, time - origin, at)

    def _compare(self, origin: float, shift: float, at: float) -> None:
        nearest = min(reversed(self._pictures), key=lambda p: abs(p.origin - origin), default=None)
        if nearest is None or abs(nearest.origin - origin) > _NEAR:
            return
        offset = round(1000 * (nearest.shift - shift), 3)
        self._offsets.append(offset)
        self._at = at
        if self.worst_ms is None or abs(offset) > abs(self.worst_ms):
            self.worst_ms = offset

    def offset_ms(self, at: float) -> float | None:
        """Return how much later than their sound pictures are shown (ms).

        None if no sound of the source was written in the seconds before `at`.
        """
        return None if at - self._at > _RECENT else self.last_ms

    @property
    def last_ms(self) -> float | None:
        """The offset when it was measured last; None if it never was."""
        return round(float(np.median(self._offsets)), 1) if self._offsets else None
