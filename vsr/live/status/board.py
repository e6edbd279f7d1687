"""What a status page knows: the relay's threads tell it of every picture, any thread may ask.

Telling costs microseconds. What costs more is computed when somebody asks, and at most four times
a second, however many ask. Nothing grows with the length of a run.
"""

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from vsr.live.status.snapshot import (
    FLOW_S,
    TIMELINE_S,
    OutputStatus,
    Snapshot,
    Stage,
    Timeline,
)
from vsr.media.colour import Colour
from vsr.media.frame import Frame, Planes, now
from vsr.report.html.columns import gather
from vsr.report.ledger import STAGES, stage_ms, summary

MINUTE_S: Final = 60.0
BUCKETS_MS: Final = (5, 10, 20, 40, 70, 100, 150, 200, 300, 400, 500, 700, 1000, 1500, 2000, 5000)
"""Upper bounds of the latencies that are counted for Prometheus."""
_FRESH_S: Final = 0.25
_ROWS: Final = TIMELINE_S * 60
"""Pictures remembered one by one; above 60 a second the timeline is shorter."""
_STEP: Final = 1.01
"""From one bound of the whole run's latencies to the next, from 0.1 ms to 600 s."""
_BOUNDS: Final = sorted(
    {*BUCKETS_MS, *(0.1 * _STEP**k for k in range(math.ceil(math.log(6e6, _STEP))))}
)
_SHOWN, _DROPPED, _REPEATED = 0, 1, 2
_KINDS: Final = {"dropped": _DROPPED, "repeated": _REPEATED}
_NO_TIMES: Final = (math.nan,) * len(STAGES)
_NOTHING_YET: Final[Mapping[str, Any]] = {"sessions": 0, "jumps": 0, "nudged": 0, "outputs": ()}

Figures = Callable[[], Mapping[str, Any]]
"""What the relay counts itself, for any thread: `sessions`, `jumps`, `nudged`, `outputs` (see
`OutputStatus`), and where they are known `waiting`, `encoding` and `av_offset_ms`."""


@dataclass
class _Counts:
    """What is counted over the whole run; guarded by the board's lock."""

    shown: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    latencies: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))
    """Pictures up to each of `_BOUNDS`, and later."""
    dropped: int = 0
    repeated: int = 0
    late: int = 0
    timed: int = 0
    total_ms: float = 0.0
    max_ms: float = 0.0


class StatusBoard:
    """Gathers what happens, for `snapshot`. Thread-safe."""

    def __init__(self, name: str, deadline: float, clock: Callable[[], float] = now) -> None:
        """`name` of the source without secrets, `deadline` in s; `clock` is for tests."""
        self._name, self._deadline_ms, self._clock = name, 1000 * deadline, clock
        self._lock = threading.Lock()  # held for microseconds
        self._asking = threading.Lock()  # one thread computes, the others wait for what it finds
        self._rows = np.full((_ROWS, 3 + len(STAGES)), np.nan)  # when, kind, rung, *STAGES
        self._written = 0
        self._rungs: dict[str, int] = {}
        self._counts = _Counts()
        self._began = clock()
        self._newest: float | None = None
        self._rung: str | None = None
        self._pictures: tuple[Planes | None, Planes | None] = (None, None)
        self._live: tuple[Stage, Figures, float] | None = None
        self._known: tuple[float, Snapshot] | None = None

    def go_live(self, stage: Stage, figures: Figures) -> None:
        """From now on there are pictures, and `figures` may be asked."""
        self._live = (stage, figures, self._clock())

    def pictures(self, before: Planes, after: Planes) -> None:
        """The newest picture and what became of it; kept as they are, so they must not change."""
        self._pictures = (before, after)

    def picture(self, which: Literal["before", "after"]) -> tuple[Planes, Colour] | None:
        """The newest of them; None: there is none yet."""
        planes = self._pictures[which == "after"]
        return (planes, self._live[0].colour) if planes is not None and self._live else None

    def frame(self, frame: Frame) -> None:
        """A picture's packet went out, or (by its `event`) it was dropped, or shown again."""
        kind, at = _KINDS.get(frame.event, _SHOWN), self._clock()
        ms = stage_ms(frame) if kind == _SHOWN else _NO_TIMES
        if not ms[-1] >= 0:
            ms = _NO_TIMES  # an encoder with a delay has not given its packet yet
        with self._lock:
            code = self._rungs.setdefault(frame.rung, len(self._rungs))
            self._rows[self._written % _ROWS] = (at, kind, code, *ms)
            self._written += 1
            if kind == _DROPPED:
                self._counts.dropped += 1
                return
            self._newest = at
            if kind == _REPEATED:
                self._counts.repeated += 1
            else:
                self._count(frame, ms[-1])

    def _count(self, frame: Frame, total: float) -> None:
        counts, self._rung = self._counts, frame.rung
        counts.shown[frame.rung] = counts.shown.get(frame.rung, 0) + 1
        if frame.event:
            counts.events[frame.event] = counts.events.get(frame.event, 0) + 1
        if math.isnan(total):
            return
        counts.timed += 1
        counts.late += total > self._deadline_ms
        counts.latencies[bisect_left(_BOUNDS, total)] += 1
        counts.total_ms += total
        counts.max_ms = max(counts.max_ms, total)

    def snapshot(self) -> Snapshot:
        """How it stands, at most a quarter of a second ago."""
        with self._asking:
            at = self._clock()
            if self._known is None or not 0 <= at - self._known[0] < _FRESH_S:
                self._known = (at, self._look(at))
            return self._known[1]

    def _look(self, at: float) -> Snapshot:
        live = self._live
        figures = live[1]() if live else _NOTHING_YET
        with self._lock:
            rows = self._rows[: self._written].copy()
            first = self._written % _ROWS if self._written > _ROWS else 0
            counts, newest, rung = self._counts, self._newest, self._rung
            shown, events = dict(counts.shown), dict(counts.events)
            latencies, timed, highest = list(counts.latencies), counts.timed, counts.max_ms
            dropped, repeated, late = counts.dropped, counts.repeated, counts.late
            total_ms, names = counts.total_ms, list(self._rungs)
        recent = _Recent(np.concatenate((rows[first:], rows[:first])), names, at)
        span = max(1.0, min(FLOW_S, at - live[2])) if live else FLOW_S
        sums = list(accumulate(latencies))
        return Snapshot(
            name=self._name, deadline_ms=self._deadline_ms, uptime_s=at - self._began,
            stage=live[0] if live else None, rung=rung, shown=shown,
            shown_minute=recent.by_rung(), dropped=dropped, repeated=repeated, late=late,
            dropped_minute=recent.number(MINUTE_S, _DROPPED),
            repeated_minute=recent.number(MINUTE_S, _REPEATED),
            late_minute=recent.later_than(self._deadline_ms),
            events=events, fps_in=recent.number(span, _SHOWN, _DROPPED) / span,
            fps_out=recent.number(span, _SHOWN, _REPEATED) / span,
            run=_percentiles(sums, highest, total_ms / timed) if timed else {},
            minute=recent.stages(), timeline=recent.timeline(), total_ms=total_ms,
            buckets=[*((b, sums[bisect_left(_BOUNDS, b)]) for b in BUCKETS_MS), (math.inf, timed)],
            packet_age_s=at - newest if newest is not None else None,
            outputs=[OutputStatus.of(facts) for facts in figures["outputs"]],
            sessions=figures["sessions"], jumps=figures["jumps"],
            nudged=figures["nudged"], waiting=figures.get("waiting"),
            encoding=figures.get("encoding"), av_offset_ms=figures.get("av_offset_ms"),
            before=self._pictures[0], after=self._pictures[1],
        )  # fmt: skip


class _Recent:
    """The pictures remembered one by one, in the order of their coming."""

    def __init__(self, rows: npt.NDArray[np.float64], names: Sequence[str], at: float) -> None:
        self._names, self._at = names, at
        self._rows = rows[rows[:, 0] > math.floor(at) - TIMELINE_S + 1]
        self._minute = self._rows[self._rows[:, 0] > at - MINUTE_S]
        self._minute = self._minute[self._minute[:, 1] == _SHOWN]

    def number(self, seconds: float, *kinds: int) -> int:
        """How many of these kinds there were lately."""
        newest = self._rows[self._rows[:, 0] > self._at - seconds]
        return int(np.count_nonzero(np.isin(newest[:, 1], kinds)))

    def by_rung(self) -> dict[str, int]:
        """Pictures shown in the last minute."""
        made = np.bincount(self._minute[:, 2].astype(np.int64), minlength=len(self._names))
        return {name: int(n) for name, n in zip(self._names, made, strict=True) if n}

    def later_than(self, ms: float) -> int:
        """Pictures shown that late in the last minute."""
        return int(np.count_nonzero(self._minute[:, -1] > ms))

    def stages(self) -> dict[str, dict[str, float]]:
        """Mean, percentiles and maximum of every stage over the last minute."""
        timed = self._minute[np.isfinite(self._minute[:, -1]), 3:]
        return {s: summary(timed[:, k]) for k, s in enumerate(STAGES)} if len(timed) else {}

    def timeline(self) -> Timeline:
        """The columns; the newest is the second that has begun."""
        shown = self._rows[np.isfinite(self._rows[:, -1])]
        p50: list[float | None] = [None] * TIMELINE_S
        high: list[float | None] = [None] * TIMELINE_S
        rung: list[str | None] = [None] * TIMELINE_S
        if not len(shown):
            return Timeline(p50=tuple(p50), max=tuple(high), rung=tuple(rung))
        slot = (np.floor(shown[:, 0]) - math.floor(self._at)).astype(np.int64) + TIMELINE_S - 1
        last = np.searchsorted(slot, np.arange(TIMELINE_S), "right") - 1
        columns = gather(slot, shown[:, -1])
        for k, middle, top in zip(columns.slot, columns.middle, columns.high, strict=True):
            p50[k], high[k] = round(float(middle), 3), round(float(top), 3)
            rung[k] = self._names[int(shown[last[k], 2])]
        return Timeline(p50=tuple(p50), max=tuple(high), rung=tuple(rung))


def _percentiles(sums: Sequence[int], highest: float, mean: float) -> dict[str, float]:
    """The run's, from how many pictures took no longer than each of `_BOUNDS`."""
    found = {"mean": mean}
    for percent in (50, 95, 99):
        k = bisect_left(sums, math.ceil(sums[-1] * percent / 100))
        found[f"p{percent}"] = min(_BOUNDS[k] if k < len(_BOUNDS) else highest, highest)
    return {name: round(value, 3) for name, value in (found | {"max": highest}).items()}
