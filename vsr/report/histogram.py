"""Histogram of a run's durations in bounded memory: exact counts and maxima, percentiles to 1 %."""

import math
from array import array
from bisect import bisect_left
from typing import Final

import numpy as np
import numpy.typing as npt

EXACT_MS: Final = (5, 10, 20, 40, 70, 100, 150, 200, 300, 400, 500, 700, 1000, 1500, 2000, 5000)
"""Bounds, in ms, up to which durations are counted exactly, as a Prometheus histogram needs."""
PERCENTILES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_STEP: Final = 1.01
"""Ratio of consecutive bounds: a bin's middle is at most 0.5 % off."""
_LOW_MS: Final = 1e-3
"""Lowest bound, in ms: durations up to it count as 0, as reports are rounded to it."""
_HIGH_MS: Final = 1e6
_STEPS: Final = math.ceil(math.log(_HIGH_MS / _LOW_MS, _STEP)) + 1
_BOUNDS: Final = sorted({*map(float, EXACT_MS), *(_LOW_MS * _STEP**k for k in range(_STEPS))})
_ARRAY: Final = np.array(_BOUNDS)
_MIDDLES: Final = np.concatenate(([0.0], np.sqrt(_ARRAY[:-1] * _ARRAY[1:]), _ARRAY[-1:]))


class Histogram:
    """Counts durations in milliseconds, from 1 µs to 1000 s in steps of 1 %. Not thread-safe."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        """Sum of all durations (ms)."""
        self.highest = 0.0
        self._bins = array("q", bytes(8 * len(_MIDDLES)))
        """Number of durations in (bound k - 1, bound k]; the last bin is above all bounds."""

    @classmethod
    def of(cls, ms: npt.NDArray[np.floating]) -> "Histogram":
        """Return the histogram of an array of durations; NaN and infinity are ignored."""
        known = ms[np.isfinite(ms)].astype(np.float64)
        made = cls()
        if known.size:
            made.count, made.total = known.size, float(known.sum())
            made.highest = float(known.max())
            bins = np.searchsorted(_ARRAY, known, side="left")
            made._bins = array("q", np.bincount(bins, minlength=len(_MIDDLES)).tolist())
        return made

    def add(self, ms: float) -> None:
        """Count a duration; NaN is ignored."""
        if math.isnan(ms):
            return
        self.count += 1
        self.total += ms
        self.highest = max(self.highest, ms)
        self._bins[bisect_left(_BOUNDS, ms)] += 1

    def copy(self) -> "Histogram":
        """Return a copy that later calls of `add` do not change."""
        other = Histogram()
        other.count, other.total, other.highest = self.count, self.total, self.highest
        other._bins = self._bins[:]
        return other

    def up_to(self, bound: int) -> int:
        """Return the number of durations up to `bound`, which is one of `EXACT_MS`."""
        return sum(self._bins[: bisect_left(_BOUNDS, bound) + 1])

    def summary(self) -> dict[str, float]:
        """Return `mean`, `p50`, `p95`, `p99` and `max` in milliseconds; empty without durations.

        Mean and maximum are exact. Percentiles are those of numpy (linear interpolation) to 1 %.
        """
        if not self.count:
            return {}
        upto = np.cumsum(np.frombuffer(self._bins, np.int64))
        found = {"mean": self.total / self.count}
        for name, share in PERCENTILES.items():
            rank = share * (self.count - 1)
            ends = [math.floor(rank), min(math.floor(rank) + 1, self.count - 1)]
            nearest = _MIDDLES[np.searchsorted(upto, ends, side="right")]
            below, above = np.minimum(nearest, self.highest)
            found[name] = below + (above - below) * (rank - ends[0])
        found["max"] = self.highest
        return {name: round(float(value), 3) for name, value in found.items()}
