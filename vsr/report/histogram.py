"""Figures of a run of days in a few kilobytes: counts exact, percentiles to 1 %."""

import math
from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt

from vsr.media.frame import Frame
from vsr.report.ledger import STAGES, stage_ms

_STEP: Final = 1.01
"""From one bound of the histogram to the next: a bin's middle is 0.5 % off at the most."""
_LOW_MS: Final = 1e-3
"""What is less counts as 0: reports are rounded to this."""
_HIGH_MS: Final = 1e6
_BOUNDS: Final = _LOW_MS * _STEP ** np.arange(math.ceil(math.log(_HIGH_MS / _LOW_MS, _STEP)) + 1)
_MIDDLES: Final = np.concatenate(([0.0], np.sqrt(_BOUNDS[:-1] * _BOUNDS[1:]), _BOUNDS[-1:]))
_STAGE: Final = np.arange(len(STAGES))
_PERCENTILES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class Totals:
    """What `Ledger` tells of its rows, without them. Not thread-safe."""

    def __init__(self, deadline_ms: float) -> None:
        self.late = 0
        """Frames later than the deadline; dropped ones too."""
        self.rungs: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self._deadline_ms = deadline_ms
        self._timed = 0
        self._sum = np.zeros(len(STAGES))
        self._max = np.zeros(len(STAGES))
        self._bins = np.zeros((len(STAGES), len(_MIDDLES)), np.int64)

    def add(self, frame: Frame) -> None:
        """Count a frame; takes some 10 microseconds."""
        ms = np.array(stage_ms(frame), np.float32).astype(np.float64)  # as a ledger keeps them
        self.late += not ms[-1] <= self._deadline_ms
        self.rungs[frame.rung] += 1
        self.events[frame.event] += 1
        if math.isnan(ms[-1]):
            return
        self._timed += 1
        self._sum += ms
        np.maximum(self._max, ms, out=self._max)
        self._bins[_STAGE, np.searchsorted(_BOUNDS, ms, side="right")] += 1

    def stages(self) -> dict[str, dict[str, float]]:
        """Mean, percentiles and maximum of every stage in milliseconds; empty without frames.

        Mean and maximum are exact. Percentiles are numpy's to 1 %, from 1 µs to 1000 s.
        """
        if not self._timed:
            return {}
        return {stage: self._summary(k) for k, stage in enumerate(STAGES)}

    def _summary(self, stage: int) -> dict[str, float]:
        mean, highest = self._sum[stage] / self._timed, self._max[stage]
        found = {"mean": mean, **self._percentiles(self._bins[stage], highest), "max": highest}
        return {name: round(float(value), 3) for name, value in found.items()}

    def _percentiles(self, bins: npt.NDArray[np.int64], highest: float) -> dict[str, float]:
        """Between the two nearest values, as numpy does it."""
        upto = np.cumsum(bins)
        found = {}
        for name, share in _PERCENTILES.items():
            rank = share * (self._timed - 1)
            ends = [math.floor(rank), min(math.floor(rank) + 1, self._timed - 1)]
            below, above = np.minimum(_MIDDLES[np.searchsorted(upto, ends, side="right")], highest)
            found[name] = below + (above - below) * (rank - ends[0])
        return found
