"""Finds out how many workers are quickest, while they work."""

from dataclasses import dataclass, field
from typing import Final

_SETTLE: Final = 4.0
"""Seconds after a change in which nothing is measured: a worker starts, or ends its segment."""
_MEASURE: Final = 10.0
"""Seconds over which the frames are counted."""
_LEAST: Final = 20
"""Frames without which a measurement says nothing."""
_GAIN: Final = 1.05
"""How much quicker one more worker must make it to be kept."""


@dataclass
class AutoJobs:
    """Adds workers one by one as long as that pays. Use from one thread."""

    most: int
    jobs: int = 1
    """Workers that there are now."""
    settled: bool = False
    """Whether the number is found."""
    _rates: dict[int, float] = field(default_factory=dict)
    _since: tuple[float, int] | None = None
    _changed: float | None = None

    def change(self, time: float, frames: int) -> int:
        """Whether to add a worker (1), do without the last (-1) or go on (0).

        `time` (s) is now, `frames` how many are done since the beginning.
        """
        if frames == 0 or self.settled:
            return 0
        if self._changed is None:
            self._changed = time
        if time - self._changed < _SETTLE:
            return 0
        if self._since is None:
            self._since = (time, frames)
        seconds, count = time - self._since[0], frames - self._since[1]
        if seconds < _MEASURE or count < _LEAST:
            return 0
        self._rates[self.jobs] = count / seconds
        return self._decided(time)

    def _decided(self, time: float) -> int:
        self._since, self._changed = None, time
        before = self._rates.get(self.jobs - 1)
        if before is not None and self._rates[self.jobs] < before * _GAIN:
            self.jobs -= 1
            self.settled = True
            return -1
        if self.jobs >= self.most:
            self.settled = True
            return 0
        self.jobs += 1
        return 1
