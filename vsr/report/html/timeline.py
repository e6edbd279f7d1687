"""Total latency over the input's time, and what made every frame or befell it.

However many rows there are, at most `SLOTS` columns are drawn, each from its least to its greatest
value: a peak is never hidden.
"""

import math
from itertools import pairwise
from typing import Final

import numpy as np

from vsr.report.html.charts import HEIGHT, Scale, below_axis, latency_scale, level_line, round_step
from vsr.report.html.columns import Columns, Mask, Numbers, gather
from vsr.report.html.text import clock, count, duration, escaped, printable, share, span

SLOTS: Final = 2000
"""Columns of the timeline at most."""
_COLOURS: Final = 6


def _time_scale(pts: Numbers) -> Scale:
    first, last = float(pts.min()), float(pts.max())
    return Scale(first, last) if last > first else Scale(first, first + 1)


def _time_ticks(scale: Scale) -> list[float]:
    """At most ten round times in seconds."""
    span = scale.high - scale.low
    steps = [round_step(span / 9)] if span < 45 else []
    steps += [5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0]
    days = 86400.0 * max(1, math.ceil(span / 9 / 86400))
    step = next((s for s in [*steps, 10800.0, 21600.0, 43200.0] if span / s <= 9), days)
    first = math.ceil(scale.low / step - 1e-9)
    return [step * k for k in range(first, math.floor(scale.high / step + 1e-9) + 1)]


class Timeline:
    """Where every row of a ledger stands on the time axis: its column, and that one's place."""

    def __init__(self, columns: Columns) -> None:
        """`columns` has at least one row."""
        self.columns = columns
        self.scale = _time_scale(columns.pts)
        place = self.scale.at(columns.pts) * SLOTS
        if len(place) > SLOTS:
            slot = np.minimum(place.astype(np.int64), SLOTS - 1)
            used, self.slot = np.unique(slot, return_inverse=True)
            self.x = used + 0.5
        else:
            order = np.argsort(place, kind="stable")
            self.slot = np.empty(len(place), np.int64)
            self.slot[order] = np.arange(len(place))
            self.x = place[order]
        self.held = np.bincount(self.slot)
        half = float(np.median(np.diff(self.x))) / 2 if len(self.x) > 1 else SLOTS
        between = (self.x[1:] + self.x[:-1]) / 2
        edges = np.concatenate(([self.x[0] - half], between, [self.x[-1] + half]))
        self.edges = np.clip(edges, 0, SLOTS)

    def lane(self, rows: Mask) -> str:
        """A strip with a mark wherever `rows` (bool [n]) are, as high as they are many."""
        part = np.bincount(self.slot[rows], minlength=len(self.x)) / self.held
        height = np.select([part >= 0.5, part >= 0.1, part > 0], [10, 6, 3])
        changes = np.flatnonzero(np.diff(height, prepend=-1, append=-1))
        path = "".join(
            f"M{self.edges[a]:.1f} 10H{self.edges[b]:.1f}V{10 - height[a]}H{self.edges[a]:.1f}Z"
            for a, b in pairwise(changes)
            if height[a]
        )
        return f'<svg viewBox="0 0 {SLOTS} 10" preserveAspectRatio="none"><path d="{path}"/></svg>'

    def curve(self, rows: Mask, scale: Scale) -> tuple[str, str, str]:
        """Paths of `rows` (bool [n]): every column's minimum to maximum, medians, lone medians."""
        slots = gather(self.slot[rows], self.columns.total[rows])
        low, middle, high = (
            (1 - scale.at(v)) * HEIGHT for v in (slots.low, slots.middle, slots.high)
        )
        x = self.x[slots.slot]
        spread = "".join(
            f"M{a:.1f} {b:.0f}V{c:.0f}" for a, b, c in zip(x, low, high, strict=True) if b != c
        )
        fresh = np.diff(slots.slot, prepend=-2) != 1  # another rung, or nothing, in between
        alone = fresh & np.append(fresh[1:], True)
        medians = "".join(
            f"{'M' if begins else 'L'}{a:.1f} {b:.0f}"
            for a, b, begins in zip(x, middle, fresh, strict=True)
        )
        dots = "".join(f"M{a:.1f} {b:.0f}h0" for a, b in zip(x[alone], middle[alone], strict=True))
        return spread, medians, dots

    def words(self) -> tuple[list[float], list[str]]:
        """The place of every column, and what it shows in words."""
        columns, rows = self.columns, np.flatnonzero(self.columns.timed)
        slots = gather(self.slot[rows], columns.total[rows])
        texts = []
        for k, worst in enumerate(rows[slots.worst]):
            rung, event = columns.rungs[columns.rung[worst]], columns.events[columns.event[worst]]
            about = " · ".join(name for name in (rung, event) if name)
            where = f"{clock(columns.pts[worst])} · frame {columns.index[worst]}"
            text = f"{where}\n{duration(slots.high[k])}" + (f" · {about}" if about else "")
            if slots.rows[k] > 1:
                text += f"\nworst of {slots.rows[k]} frames, half under {duration(slots.middle[k])}"
            texts.append(printable(text))
        return [round(float(x), 1) for x in self.x[slots.slot]], texts


def timeline(columns: Columns, deadline: float | None) -> str:
    """Total latency over the input's time, with a lane for every rung and event below it."""
    line, timed = Timeline(columns), columns.timed
    drawn = ""
    if timed.any():
        scale = latency_scale(columns.total[timed], deadline)
        levels = [level_line(scale, v, "grid", f"{v:,g}") for v in scale.ticks()]
        curves = [
            _curve(line, timed & (columns.rung == k), scale, k) for k in range(len(columns.rungs))
        ]
        limit = (
            [level_line(scale, deadline, "limit", f"deadline {duration(deadline)}", "above")]
            if deadline else []
        )  # fmt: skip
        ticks = _time_ticks(line.scale)
        below = [
            below_axis(line.scale.percent(t), clock(t, ticks), bool(k % 2))
            for k, t in enumerate(ticks)
        ]
        drawn = (
            f'<p class="unit">ms{", logarithmic" if scale.log else ""}</p>'
            f'<div class="plot" id="timeline"><svg class="chart" role="img" '
            f'aria-label="Total latency over time">{"".join(levels)}'
            f'<svg viewBox="0 0 {SLOTS} {HEIGHT}" preserveAspectRatio="none">{"".join(curves)}'
            f"</svg>{''.join(limit)}{''.join(below)}</svg></div>"
        )
    return drawn + _lanes(line, deadline) + _about_columns(line)


def _about_columns(line: Timeline) -> str:
    """How to read a drawing whose columns hold more than a frame."""
    most = int(line.held.max())
    if most == 1 or len(line.columns.index) <= SLOTS:
        return ""
    width = span((line.scale.high - line.scale.low) / SLOTS)
    return (
        f'<p class="dim under">A column is {width} with up to {count(most)} frames: the light band '
        "runs from the lowest to the highest of them, the line is their median. In the strips a "
        "low mark stands for fewer than a tenth of a column's frames, a middle one for fewer than "
        "half.</p>"
    )


def _curve(line: Timeline, rows: Mask, scale: Scale, rung: int) -> str:
    if not rows.any():
        return ""
    spread, medians, dots = line.curve(rows, scale)
    return (
        f'<g class="c{rung % _COLOURS}"><path class="spread" d="{spread}"/>'
        f'<path d="{medians}"/><path class="dot" d="{dots}"/></g>'
    )


def _lanes(line: Timeline, deadline: float | None) -> str:
    columns, rows = line.columns, len(line.columns.index)
    lanes = []
    for k, name in enumerate(columns.rungs):
        made = columns.rung == k
        label = share(int(made.sum()), rows)
        lanes.append(_lane(line, made, f"c{k % _COLOURS}", name or "no rung", label))
    for k, name in enumerate(columns.events):
        if name:
            marked = columns.event == k
            lanes.append(_lane(line, marked, "event", name, count(int(marked.sum()))))
    if deadline is not None:
        late = columns.timed & (columns.total > deadline)
        lanes.append(_lane(line, late, "late", "late", count(int(late.sum()))))
    return f'<div class="lanes">{"".join(lanes)}</div>'


def _lane(line: Timeline, rows: Mask, kind: str, name: str, label: str) -> str:
    return (
        f'<div class="lane {kind}"><span><i></i><bdi>{escaped(name)}</bdi></span>'
        f"<b>{label}</b>{line.lane(rows)}</div>"
    )
