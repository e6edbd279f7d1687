"""Measures how smooth a grey ramp is after an int8 network: a sky must have no bands."""

from dataclasses import dataclass

import numpy as np

from train.measure.evaluate import Enlarge

_MIN_WITHIN_ONE = 0.93
_MAX_P99 = 1.3
"""Limits for shipping an int8 form; tests/network/test_deep_planes.py tests them with vsr."""
LIMITS_TEXT = f"{_MIN_WITHIN_ONE:.0%} (within {_MAX_P99})"
"""The same limits as text, for messages about `Ramp.within_one` and `Ramp.p99`."""
_LEVELS = 1024
"""Number of columns of the ramp; four of them share one 8-bit code."""
_ROWS = 32


@dataclass(frozen=True)
class Ramp:
    """Distance of an int8 network's ramp, rounded to 8 bits, from a float network's, unrounded."""

    within_one: float
    """Share of the samples that differ by at most one code; rounding alone causes half a code."""
    p99: float
    """99th percentile of the distance, in codes."""

    @property
    def is_smooth(self) -> bool:
        """Whether the int8 form may be shipped."""
        return self.within_one >= _MIN_WITHIN_ONE and self.p99 <= _MAX_P99


def ramp(rounded: Enlarge, exact: Enlarge, channels: int) -> Ramp:
    """Compare two forms of a network with `channels` input planes on a grey ramp."""
    row = np.rint(np.arange(_LEVELS) * 255 / (_LEVELS - 1)) / 255
    x = np.broadcast_to(row, (1, channels, _ROWS, _LEVELS)).astype(np.float32)
    ours, truth = (np.clip(run(x).astype(np.float64), 0, 1) * 255 for run in (rounded, exact))
    off = np.abs(np.rint(ours) - truth)
    return Ramp(float((off <= 1).mean()), float(np.quantile(off, 0.99)))
