"""How smooth a smooth ramp stays in int8, so that a sky has no bands."""

from dataclasses import dataclass

import numpy as np

from train.measure.evaluate import Enlarge

_LEAST_WITHIN_ONE = 0.93
_MOST_P99 = 1.3
"""What an int8 form must keep to be shipped; tests/network/test_deep_planes.py asks it of vsr."""
ASKED = f"{_LEAST_WITHIN_ONE:.0%} (within {_MOST_P99})"
"""The same in words, as a message about `Ramp.within_one` and `Ramp.p99` has them."""
_LEVELS = 1024
"""Columns of the ramp; four of them have one 8-bit code."""
_ROWS = 32


@dataclass(frozen=True)
class Ramp:
    """An int8 network's ramp, rounded to 8 bits, beside the float network's, which is not."""

    within_one: float
    """Share of the samples at most one code away; the rounding alone is half a code."""
    p99: float
    """99th percentile of the distance, in codes."""

    @property
    def smooth(self) -> bool:
        """Whether it may be shipped."""
        return self.within_one >= _LEAST_WITHIN_ONE and self.p99 <= _MOST_P99


def ramp(rounded: Enlarge, exact: Enlarge, channels: int) -> Ramp:
    """Compare two forms of a network, which read `channels` planes, on a grey ramp."""
    row = np.rint(np.arange(_LEVELS) * 255 / (_LEVELS - 1)) / 255
    x = np.broadcast_to(row, (1, channels, _ROWS, _LEVELS)).astype(np.float32)
    ours, truth = (np.clip(run(x).astype(np.float64), 0, 1) * 255 for run in (rounded, exact))
    off = np.abs(np.rint(ours) - truth)
    return Ramp(float((off <= 1).mean()), float(np.quantile(off, 0.99)))
