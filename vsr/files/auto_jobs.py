"""Finds the number of workers with the highest throughput, during a run."""

from dataclasses import dataclass, field
from typing import Final

_SETTLE_S: Final = 4.0
"""Settling time after a change, in seconds: a worker starts, or ends its segment."""
_MIN_MEASURE_S: Final = 10.0
"""Minimum duration of a measurement, in seconds."""
_MIN_FRAMES: Final = 20
"""Minimum number of frames in a measurement."""
_MIN_GAIN: Final = 1.05
"""Minimum ratio of throughput with and without one more worker, for it to be kept."""


@dataclass
class AutoJobs:
    """Adds workers one by one while throughput rises by `_MIN_GAIN`. Use from one thread."""

    max_jobs: int
    jobs: int = 1
    """Current number of workers."""
    is_settled: bool = False
    """Whether the search has ended."""
    _rates: dict[int, float] = field(default_factory=dict)
    _since: tuple[float, int] | None = None
    _changed: float | None = None

    def change(self, time: float, frames: int) -> int:
        """Return 1 to add a worker, -1 to remove the last one, or 0 for no change.

        `time`: current time (s). `frames`: number of frames finished since the start of the run.
        """
        if frames == 0 or self.is_settled:
            return 0
        if self._changed is None:
            self._changed = time
        if time - self._changed < _SETTLE_S:
            return 0
        if self._since is None:
            self._since = (time, frames)
        seconds, count = time - self._since[0], frames - self._since[1]
        if seconds < _MIN_MEASURE_S or count < _MIN_FRAMES:
            return 0
        self._rates[self.jobs] = count / seconds
        return self._decide(time)

    def _decide(self, time: float) -> int:
        self._since, self._changed = None, time
        before = self._rates.get(self.jobs - 1)
        if before is not None and self._rates[self.jobs] < before * _MIN_GAIN:
            self.jobs -= 1
            self.is_settled = True
            return -1
        if self.jobs >= self.max_jobs:
            self.is_settled = True
            return 0
        self.jobs += 1
        return 1
