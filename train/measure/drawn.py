"""Measures an int8 network on drawn pictures: a grey ramp, and bars of pure colours.

A sky must have no bands. Flags, titles and games have pure colours; photographs, on which ranges
are calibrated, do not.
"""

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from train.errors import TrainError
from train.measure.evaluate import Enlarge

_MIN_WITHIN_ONE: Final = 0.93
_MAX_P99: Final = 1.3
"""Limits for shipping an int8 form; tests/network/test_deep_planes.py tests them with vsr."""
_LEVELS: Final = 1024
"""Number of columns of the ramp; four of them share one 8-bit code."""
_ROWS: Final = 32
_MAX_COLOUR_MSE: Final = 1e-4
_MAX_COLOUR_ERROR: Final = 0.15
"""Limits for pure colours, for values in 0..1; tests/test_engines.py tests them too."""
_BAR: Final = (24, 12)
"""Height and width of a bar, in pixels."""


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


@dataclass(frozen=True)
class PureColours:
    """Distance of an int8 network's bars of pure colours from a float network's, in 0..1."""

    mse: float
    largest: float
    """Largest distance of one sample; it is next to an edge between two bars."""

    @property
    def are_kept(self) -> bool:
        """Whether the int8 form may be shipped."""
        return self.mse < _MAX_COLOUR_MSE and self.largest < _MAX_COLOUR_ERROR


def ramp(rounded: Enlarge, exact: Enlarge, channels: int) -> Ramp:
    """Compare two forms of a network with `channels` input planes on a grey ramp."""
    row = np.rint(np.arange(_LEVELS) * 255 / (_LEVELS - 1)) / 255
    x = np.broadcast_to(row, (1, channels, _ROWS, _LEVELS)).astype(np.float32)
    ours, truth = (np.clip(run(x).astype(np.float64), 0, 1) * 255 for run in (rounded, exact))
    off = np.abs(np.rint(ours) - truth)
    return Ramp(float((off <= 1).mean()), float(np.quantile(off, 0.99)))


def pure_colours(rounded: Enlarge, exact: Enlarge) -> PureColours:
    """Compare two forms of an RGB network on bars of the eight pure colours."""
    height, width = _BAR
    colours = np.array(list(product((0, 1), repeat=3)), np.float32)
    bars = colours.T[None, :, None].repeat(height, axis=2).repeat(width, axis=3)  # [1, 3, H, 8 W]
    ours, truth = (np.clip(run(bars).astype(np.float64), 0, 1) for run in (rounded, exact))
    off = np.abs(ours - truth)
    return PureColours(float(np.square(off).mean()), float(off.max()))


def check_int8(label: str, rounded: Enlarge, exact: Enlarge, colour: str) -> None:
    """Raise TrainError if an int8 network shows bands, or changes pure colours.

    `colour` is the manifest's: `rgb` or `y`.
    """
    seen = ramp(rounded, exact, 3 if colour == "rgb" else 1)
    if not seen.is_smooth:
        raise TrainError(
            f"{label} shows banding in int8: {seen.within_one:.1%} of a ramp within one code "
            f"(0.99 within {seen.p99:.2f}), required: {_MIN_WITHIN_ONE:.0%} (within {_MAX_P99}): "
            "not written (see --seed)"
        )
    if colour != "rgb":
        return
    bars = pure_colours(rounded, exact)
    if not bars.are_kept:
        raise TrainError(
            f"{label} changes pure colours in int8 by up to {bars.largest:.3f} (mean square "
            f"{bars.mse:.1e}), allowed: {_MAX_COLOUR_ERROR} ({_MAX_COLOUR_MSE:.0e}): "
            "not written (see --seed)"
        )
