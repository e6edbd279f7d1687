"""Computes scales, axes and the histogram of a chart; templates/charts.html draws them as SVG.

Shapes are stretched to the page's width (`preserveAspectRatio`); text and lines keep their size, so
that one drawing fits wide and narrow screens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vsr.report.html.columns import Numbers
from vsr.report.html.text import count, duration, share

HEIGHT: Final = 1000
"""Height of a drawing in its own units, before scaling."""
_BARS: Final = 100
_MINOR_LABEL_ZONE: Final = 0.2
"""Share of the axis before its last label in which other labels are hidden on a narrow screen."""
_LOG_SCALE_RATIO: Final = 12.0
"""Ratio of maximum to median above which the scale is logarithmic."""


@dataclass(frozen=True)
class Scale:
    """Maps values to positions on an axis, 0 to 1."""

    low: float
    high: float
    log: bool = False

    def at(self, values: npt.ArrayLike) -> Numbers:
        """Return the positions of values; values outside the scale are clipped to its ends."""
        data, low, high = np.asarray(values, np.float64), self.low, self.high
        if self.log:
            data, low, high = np.log(np.maximum(data, low)), math.log(low), math.log(high)
        return np.clip((data - low) / (high - low), 0, 1)

    def percent(self, value: float) -> str:
        """Return the position of one value in percent, for an SVG attribute."""
        return f"{100 * float(self.at(value)):.2f}%"

    def ticks(self) -> list[float]:
        """Return round values along the axis."""
        if not self.log:
            step = round_step((self.high - self.low) / 5)
            return [step * k for k in range(math.ceil(self.low / step), int(self.high / step) + 1)]
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            values = [digit * 10.0**k for k in exponents for digit in digits]
            inside = [v for v in values if self.low * 0.999 <= v <= self.high * 1.001]
            if len(inside) <= 9:
                break
        return inside


def latency_scale(total: Numbers, deadline: float | None) -> Scale:
    """Return a scale for latencies (ms, not empty) that covers all of them and the deadline."""
    high = max(float(total.max()), deadline or 0.0, 0.001)
    if high <= _LOG_SCALE_RATIO * float(np.median(total)):
        step = round_step(high / 5)
        return Scale(0.0, step * math.ceil(1.02 * high / step))
    low = max(float(total.min()), high / 1e5)
    return Scale(round_step(low / 1.0001, down=True), round_step(1.02 * high), log=True)


def round_step(value: float, down: bool = False) -> float:
    """Return the nearest of 1, 2, 5, 10, 20 ... not below `value`, or not above it if `down`."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = [power * digit for digit in (1, 2, 5, 10)]
    fitting = [s for s in steps if (s <= value if down else s >= value * 0.999999)]
    return max(fitting) if down else min(fitting)


@dataclass(frozen=True)
class Level:
    """A horizontal line with its label at the left edge, or above its end."""

    kind: str
    y: str
    label: str
    above: bool = False


@dataclass(frozen=True)
class Tick:
    """A label under the horizontal axis; minor ones are hidden on a narrow screen."""

    x: str
    label: str
    minor: bool

    @property
    def anchor(self) -> str:
        """The label's alignment, which keeps it within the drawing."""
        percent = float(self.x.rstrip("%"))
        return "begin" if percent < 2 else "end" if percent > 98 else "mid"


@dataclass(frozen=True)
class Bar:
    """A bar of the histogram: 1 wide including its gap, with its base at y = `HEIGHT`."""

    x: str
    height: int
    late: bool
    title: str


@dataclass(frozen=True)
class Mark:
    """A vertical line with a label to its right or left; `y` is the top of both, in pixels."""

    kind: str
    x: str
    y: int
    label: str
    left: bool


@dataclass(frozen=True, kw_only=True)
class HistogramChart:
    """The histogram of total latencies."""

    log: bool
    levels: Sequence[Level]
    bars: Sequence[Bar]
    marks: Sequence[Mark]
    x_ticks: Sequence[Tick]
    bars_wide: int = _BARS
    height: int = HEIGHT


def level(scale: Scale, value: float, kind: str, label: str, above: bool = False) -> Level:
    """Return the line at a value of the vertical axis."""
    return Level(kind, f"{100 - 100 * float(scale.at(value)):.2f}%", label, above)


def histogram(total: Numbers, marks: dict[str, float], deadline: float | None) -> HistogramChart:
    """Return the histogram of total latencies (ms, not empty), with `marks` like percentiles."""
    scale = latency_scale(total, deadline)
    if scale.log:
        edges = np.geomspace(scale.low, scale.high, _BARS + 1)
    else:
        edges = np.linspace(scale.low, scale.high, _BARS + 1)
    counts, _ = np.histogram(np.clip(total, edges[0], edges[-1]), edges)
    top = round_step(max(int(counts.max()), 1) / 4) * 4
    high = Scale(0, top if top > counts.max() else top * 1.25)
    bars = []
    for k in np.flatnonzero(counts):
        height = max(float(high.at(counts[k])) * HEIGHT, 6)  # a single frame is visible too
        late = deadline is not None and bool(edges[k] >= deadline)
        bounds = f"{edges[k]:.4g} to {edges[k + 1]:.4g} ms"
        title = f"{bounds}: {count(int(counts[k]))} frames, {share(int(counts[k]), len(total))}"
        bars.append(Bar(f"{k + 0.06:.2f}", round(height), late, title))
    return HistogramChart(
        log=scale.log,
        levels=[level(high, v, "grid", _short(v)) for v in high.ticks() if v == int(v)],
        bars=bars,
        marks=_marks(scale, marks, deadline),
        x_ticks=_ticks(scale),
    )


def _ticks(scale: Scale) -> list[Tick]:
    """Return the labels of an axis; those shortly before the last are minor, to leave it space."""
    ticks = scale.ticks()
    crowded = float(scale.at(ticks[-1])) - _MINOR_LABEL_ZONE
    return [
        Tick(scale.percent(v), f"{v:,g}", crowded < float(scale.at(v)) and v != ticks[-1])
        for v in ticks
    ]


def _short(number: float) -> str:
    """Format a count for an axis: 200, 1.5k, 200k, 3M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{name}"
    return f"{number:g}"


def _marks(scale: Scale, marks: dict[str, float], deadline: float | None) -> list[Mark]:
    lines = [("mark", name, value) for name, value in marks.items()]
    if deadline is not None:
        lines.append(("limit", "deadline", deadline))
    return [
        Mark(
            kind, scale.percent(value), 16 * (k - len(lines)), f"{name} {duration(value)}",
            left=float(scale.at(value)) > 0.6,
        )
        for k, (kind, name, value) in enumerate(lines)
    ]  # fmt: skip
