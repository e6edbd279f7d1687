"""Computes SVG paths of total latency over the input's time, and of every frame's rung and event.

templates/charts.html inserts them into the page. The time is divided into at most
`MAX_SLOTS` slots for any number of rows; each is drawn from its minimum to its maximum, so that no
peak is hidden.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from vsr.report.html.charts import HEIGHT, Level, Scale, Tick, latency_scale, level, round_step
from vsr.report.html.columns import Columns, Mask, Numbers, slot_stats
from vsr.report.html.text import clock, count, duration, printable, share

MAX_SLOTS: Final = 2000
"""Maximum number of time slots, which are the columns of the timeline."""
_COLOURS: Final = 6


def time_scale(pts: Numbers) -> Scale:
    first, last = float(pts.min()), float(pts.max())
    return Scale(first, last) if last > first else Scale(first, first + 1)


def time_ticks(scale: Scale) -> list[float]:
    """Return at most ten round times, in seconds."""
    span = scale.high - scale.low
    steps = [round_step(span / 9)] if span < 45 else []
    steps += [5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0]
    days = 86400.0 * max(1, math.ceil(span / 9 / 86400))
    step = next((s for s in [*steps, 10800.0, 21600.0, 43200.0] if span / s <= 9), days)
    first = math.ceil(scale.low / step - 1e-9)
    return [step * k for k in range(first, math.floor(scale.high / step + 1e-9) + 1)]


class TimeAxis:
    """The time axis: the column (`slot`) of every row of a ledger, and the `x` of every column."""

    def __init__(self, columns: Columns) -> None:
        """`columns` must have at least one row."""
        self.columns = columns
        self.scale = time_scale(columns.pts)
        place = self.scale.at(columns.pts) * MAX_SLOTS
        if len(place) > MAX_SLOTS:
            slot = np.minimum(place.astype(np.int64), MAX_SLOTS - 1)
            used, self.slot = np.unique(slot, return_inverse=True)
            self.x = used + 0.5
        else:
            order = np.argsort(place, kind="stable")
            self.slot = np.empty(len(place), np.int64)
            self.slot[order] = np.arange(len(place))
            self.x = place[order]
        self.rows_per_slot = np.bincount(self.slot)
        half = float(np.median(np.diff(self.x))) / 2 if len(self.x) > 1 else MAX_SLOTS
        between = (self.x[1:] + self.x[:-1]) / 2
        edges = np.concatenate(([self.x[0] - half], between, [self.x[-1] + half]))
        self.edges = np.clip(edges, 0, MAX_SLOTS)

    def lane(self, rows: Mask) -> str:
        """Return the path of a strip that marks `rows` (bool [n]), higher for a higher share."""
        part = np.bincount(self.slot[rows], minlength=len(self.x)) / self.rows_per_slot
        height = np.select([part >= 0.5, part >= 0.1, part > 0], [10, 6, 3])
        changes = np.flatnonzero(np.diff(height, prepend=-1, append=-1))
        return "".join(
            f"M{self.edges[a]:.1f} 10H{self.edges[b]:.1f}V{10 - height[a]}H{self.edges[a]:.1f}Z"
            for a, b in pairwise(changes)
            if height[a]
        )

    def curve(self, rows: Mask, scale: Scale) -> tuple[str, str, str]:
        """Return paths of `rows` (bool [n]): lines from minimum to maximum, medians, lone ones."""
        slots = slot_stats(self.slot[rows], self.columns.total[rows])
        low, middle, high = (
            (1 - scale.at(v)) * HEIGHT for v in (slots.low, slots.middle, slots.high)
        )
        x = self.x[slots.slot]
        spread = "".join(
            f"M{a:.1f} {b:.0f}V{c:.0f}" for a, b, c in zip(x, low, high, strict=True) if b != c
        )
        fresh = np.diff(slots.slot, prepend=-2) != 1  # another rung or a gap in between
        alone = fresh & np.append(fresh[1:], True)
        medians = "".join(
            f"{'M' if begins else 'L'}{a:.1f} {b:.0f}"
            for a, b, begins in zip(x, middle, fresh, strict=True)
        )
        dots = "".join(f"M{a:.1f} {b:.0f}h0" for a, b in zip(x[alone], middle[alone], strict=True))
        return spread, medians, dots

    def tooltips(self) -> tuple[list[float], list[str]]:
        """Return the x of every column that has a latency, and its tooltip."""
        columns, rows = self.columns, np.flatnonzero(self.columns.timed)
        slots = slot_stats(self.slot[rows], columns.total[rows])
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


@dataclass(frozen=True)
class Curve:
    """The paths of one rung: lines from minimum to maximum, medians, and lone medians as dots."""

    kind: str
    spread: str
    medians: str
    dots: str


@dataclass(frozen=True)
class Lane:
    """A strip that shows when frames had a rung or an event."""

    kind: str
    name: str
    label: str
    path: str


@dataclass(frozen=True)
class SlotSize:
    """Duration of a time slot, and the largest number of frames in one."""

    seconds: float
    max_frames: int


@dataclass(frozen=True, kw_only=True)
class TimelineChart:
    """The timeline chart; it has no curves if no row has a latency."""

    log: bool = False
    levels: Sequence[Level] = ()
    curves: Sequence[Curve] = ()
    limit: Level | None = None
    x_ticks: Sequence[Tick] = ()
    lanes: Sequence[Lane]
    slot_size: SlotSize | None
    width: int = MAX_SLOTS
    height: int = HEIGHT


def timeline(columns: Columns, deadline: float | None) -> TimelineChart:
    """Return the chart of total latency over the input's time, with a lane per rung and event."""
    axis, timed = TimeAxis(columns), columns.timed
    lanes, slot_size = _lanes(axis, deadline), _slot_size(axis)
    if not timed.any():
        return TimelineChart(lanes=lanes, slot_size=slot_size)
    scale, ticks = latency_scale(columns.total[timed], deadline), time_ticks(axis.scale)
    limit = None
    if deadline is not None:
        limit = level(scale, deadline, "limit", f"deadline {duration(deadline)}", above=True)
    rows = ((k, timed & (columns.rung == k)) for k in range(len(columns.rungs)))
    return TimelineChart(
        log=scale.log,
        levels=[level(scale, v, "grid", f"{v:,g}") for v in scale.ticks()],
        curves=[
            Curve(f"c{k % _COLOURS}", *axis.curve(of_rung, scale))
            for k, of_rung in rows
            if of_rung.any()
        ],
        limit=limit,
        x_ticks=[
            Tick(axis.scale.percent(t), clock(t, ticks), bool(k % 2)) for k, t in enumerate(ticks)
        ],
        lanes=lanes,
        slot_size=slot_size,
    )


def _slot_size(axis: TimeAxis) -> SlotSize | None:
    max_frames = int(axis.rows_per_slot.max())
    if max_frames == 1 or len(axis.columns.index) <= MAX_SLOTS:
        return None
    return SlotSize((axis.scale.high - axis.scale.low) / MAX_SLOTS, max_frames)


def _lanes(axis: TimeAxis, deadline: float | None) -> list[Lane]:
    columns, rows = axis.columns, len(axis.columns.index)
    lanes = []
    for k, name in enumerate(columns.rungs):
        made = columns.rung == k
        label = share(int(made.sum()), rows)
        lanes.append(Lane(f"c{k % _COLOURS}", name or "no rung", label, axis.lane(made)))
    marked = {name: columns.event == k for k, name in enumerate(columns.events) if name}
    lanes += [Lane("event", n, count(int(m.sum())), axis.lane(m)) for n, m in marked.items()]
    if deadline is not None:
        late = columns.timed & (columns.total > deadline)
        lanes.append(Lane("late", "late", count(int(late.sum())), axis.lane(late)))
    return lanes
