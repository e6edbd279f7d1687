"""Scales and axes, and the histogram: inline SVG without a script.

Shapes are stretched to the page's width (`preserveAspectRatio`), text and lines keep their size, so
that one drawing is right for a desk and for a phone.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vsr.report.html.columns import Numbers
from vsr.report.html.text import count, duration, share

HEIGHT: Final = 1000
"""Of a drawing, in its own units, before it is stretched."""
_BARS: Final = 100
_CROWDED: Final = 0.2
"""Share of the axis within which two labels are too many for a phone."""
_LOG_FROM: Final = 12.0
"""A maximum of so many medians is drawn on a logarithmic scale."""


@dataclass(frozen=True)
class Scale:
    """From values to the share of an axis, 0 to 1."""

    low: float
    high: float
    log: bool = False

    def at(self, values: npt.ArrayLike) -> Numbers:
        """Where values lie; those outside stand at the end."""
        data, low, high = np.asarray(values, np.float64), self.low, self.high
        if self.log:
            data, low, high = np.log(np.maximum(data, low)), math.log(low), math.log(high)
        return np.clip((data - low) / (high - low), 0, 1)

    def percent(self, value: float) -> str:
        """Where one value lies, for an attribute of SVG."""
        return f"{100 * float(self.at(value)):.2f}%"

    def ticks(self) -> list[float]:
        """Round values along the axis."""
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
    """A scale for latencies (ms, not empty) that holds all of them and the deadline."""
    high = max(float(total.max()), deadline or 0.0, 0.001)
    if high <= _LOG_FROM * float(np.median(total)):
        step = round_step(high / 5)
        return Scale(0.0, step * math.ceil(1.02 * high / step))
    low = max(float(total.min()), high / 1e5)
    return Scale(round_step(low / 1.0001, down=True), round_step(1.02 * high), log=True)


def round_step(value: float, down: bool = False) -> float:
    """The nearest of 1, 2, 5, 10, 20 ... that is no less than `value`, or no greater."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = [power * digit for digit in (1, 2, 5, 10)]
    fitting = [s for s in steps if (s <= value if down else s >= value * 0.999999)]
    return max(fitting) if down else min(fitting)


def level_line(scale: Scale, value: float, kind: str, label: str, side: str = "") -> str:
    """A horizontal line with its label at the left edge, or above its end."""
    y = f"{100 - 100 * float(scale.at(value)):.2f}%"
    place = 'x="100%" dy="-5" class="end label"' if side else 'x="0" dx="-8" dy="4" class="end"'
    return (
        f'<line class="{kind}" x1="0" x2="100%" y1="{y}" y2="{y}"/><text {place} y="{y}">'
        f"{label}</text>"
    )


def below_axis(place: str, label: str, minor: bool) -> str:
    """A label under the horizontal axis; minor ones are left out on a narrow page."""
    share_of_width = float(place.rstrip("%"))
    anchor = "begin" if share_of_width < 2 else "end" if share_of_width > 98 else "mid"
    kind = f"{anchor} minor" if minor else anchor
    return f'<text class="{kind}" x="{place}" y="100%" dy="18">{label}</text>'


def histogram(total: Numbers, marks: dict[str, float], deadline: float | None) -> str:
    """How often which total latency (ms, not empty) came, with `marks` such as percentiles."""
    scale = latency_scale(total, deadline)
    share_of_axis = np.linspace(0, 1, _BARS + 1)
    edges = (
        np.geomspace(scale.low, scale.high, _BARS + 1)
        if scale.log
        else scale.low + share_of_axis * (scale.high - scale.low)
    )
    counts, _ = np.histogram(np.clip(total, edges[0], edges[-1]), edges)
    top = round_step(max(int(counts.max()), 1) / 4) * 4
    high = Scale(0, top if top > counts.max() else top * 1.25)
    bars = []
    for k in np.flatnonzero(counts):
        height = max(float(high.at(counts[k])) * HEIGHT, 6)  # a single frame is seen as well
        late = ' class="late"' if deadline is not None and edges[k] >= deadline else ""
        bounds = f"{edges[k]:.4g} to {edges[k + 1]:.4g} ms"
        bars.append(
            f'<rect{late} x="{k + 0.06:.2f}" width=".88" y="{HEIGHT - height:.0f}" '
            f'height="{height:.0f}"><title>{bounds}: {count(int(counts[k]))} frames, '
            f"{share(int(counts[k]), len(total))}</title></rect>"
        )
    levels = [level_line(high, v, "grid", _short(v)) for v in high.ticks() if v == int(v)]
    ticks = scale.ticks()
    # the last label may stand left of its end: on a narrow page it needs the room before it
    crowded = float(scale.at(ticks[-1])) - _CROWDED
    below = [
        below_axis(scale.percent(v), f"{v:,g}", crowded < float(scale.at(v)) and v != ticks[-1])
        for v in ticks
    ]
    return (
        f'<p class="unit">frames</p><div class="plot"><svg class="chart tall" role="img" '
        f'aria-label="Histogram of total latency">{"".join(levels)}<svg viewBox="0 0 {_BARS} '
        f'{HEIGHT}" preserveAspectRatio="none">{"".join(bars)}</svg>'
        f"{_marks(scale, marks, deadline)}{''.join(below)}</svg></div>"
        f'<p class="unit under">total latency in ms{", logarithmic" if scale.log else ""}</p>'
    )


def _short(number: float) -> str:
    """A count along an axis: 200, 1.5k, 200k, 3M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{name}"
    return f"{number:g}"


def _marks(scale: Scale, marks: dict[str, float], deadline: float | None) -> str:
    """Vertical lines, each with its label on a height of its own."""
    lines = [("mark", name, value) for name, value in marks.items()]
    if deadline is not None:
        lines.append(("limit", "deadline", deadline))
    drawn, labels = [], []
    for k, (kind, name, value) in enumerate(lines):
        x, y = scale.percent(value), 16 * (k - len(lines))
        near_end = float(scale.at(value)) > 0.6
        place = 'dx="-5" class="end label"' if near_end else 'dx="5" class="begin label"'
        drawn.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="{y}" y2="100%"/>')
        labels.append(f'<text {place} x="{x}" y="{y + 11}">{name} {duration(value)}</text>')
    return "".join(drawn + labels)  # no line across a label
