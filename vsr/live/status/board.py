"""Collects figures of a relay for its status page.

Recording an event takes microseconds. Costlier figures are computed on request, at most four times
a second for any number of clients. Memory use does not grow with the length of a run.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from vsr.live.status.snapshot import (
    RECENT_S,
    TIMELINE_S,
    LatencyTimeline,
    OutputStatus,
    Snapshot,
    StreamFacts,
)
from vsr.media.colour import Colour
from vsr.media.frame import Planes, now
from vsr.report.histogram import EXACT_MS, Histogram
from vsr.report.html.columns import slot_stats
from vsr.report.ledger import STAGES, Row, summaries

MINUTE_S: Final = 60.0
_MAX_AGE_S: Final = 0.25
_MAX_ROWS: Final = TIMELINE_S * 60
"""Number of frames kept individually; above 60 fps the timeline is shorter."""
_SHOWN, _DROPPED, _REPEATED = 0, 1, 2
_KINDS: Final = {"dropped": _DROPPED, "repeated": _REPEATED}
_NO_TIMES: Final = (math.nan,) * len(STAGES)
_NO_FIGURES: Final[Mapping[str, Any]] = {"sessions": 0, "jumps": 0, "nudged": 0, "outputs": ()}

Figures = Callable[[], Mapping[str, Any]]
"""Thread-safe callback for the relay's own counts: `sessions`, `jumps`, `nudged`, `outputs` (see
`OutputStatus`); optionally `waiting`, `encoding`, `av_offset_ms`, and those of audio and slate."""


@dataclass
class _Counts:
    """Counts over the whole run, guarded by the board's lock."""

    shown: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    latencies: Histogram = field(default_factory=Histogram)
    sent: int = 0
    source_sent: int = 0
    """Those of `sent` that are not repeated."""
    dropped: int = 0
    repeated: int = 0
    late: int = 0


class StatusBoard:
    """Collects rows and counts, and computes snapshots from them. Thread-safe."""

    def __init__(
        self,
        name: str,
        deadline: float,
        clock: Callable[[], float] = now,
        health_after: float = RECENT_S,
    ) -> None:
        """`name` is that of the source, without secrets; `deadline` is in s; `clock` is for tests.

        `health_after` is the time without source video or audio after which health fails (s).
        """
        self._health_after = health_after
        self._name, self._deadline_ms, self._clock = name, 1000 * deadline, clock
        self._lock = threading.Lock()  # held for microseconds
        self._compute_lock = threading.Lock()  # one thread computes, the others wait for its result
        self._rows = np.full(
            (_MAX_ROWS, 4 + len(STAGES)), np.nan
        )  # time, kind, rung, sent, *STAGES
        self._row_count = 0
        self._rungs: dict[str, int] = {}
        self._counts = _Counts()
        self._began = clock()
        self._last_sent_at: float | None = None
        self._last_source_sent_at: float | None = None
        self._rung: str | None = None
        self._images: tuple[Planes | None, Planes | None] = (None, None)
        self._live: tuple[StreamFacts, Figures, float] | None = None
        self._cached: tuple[float, Snapshot] | None = None

    def go_live(self, stream: StreamFacts, figures: Figures) -> None:
        """Begin the live phase: frames follow, and `figures` may be called from now on."""
        self._live = (stream, figures, self._clock())

    def set_images(self, before: Planes | None, after: Planes) -> None:
        """Keep the newest frame before and after upscaling, without a copy.

        If `before` is None, the previous one is kept: `after` fills in for a missing frame.
        """
        self._images = (before or self._images[0], after)

    def image(self, which: Literal["before", "after"]) -> tuple[Planes, Colour] | None:
        """Return the newest frame and its colour; None if there is none yet."""
        planes = self._images[which == "after"]
        return (planes, self._live[0].colour) if planes is not None and self._live else None

    def add_frame(self, row: Row) -> None:
        """Count a frame as shown, dropped or repeated, by its `event`, and as sent if it has a
        latency, which means that an output sent it."""
        kind, at = _KINDS.get(row.event, _SHOWN), self._clock()
        sent = kind != _DROPPED and not math.isnan(row.ms[-1])
        ms = row.ms if kind == _SHOWN else _NO_TIMES
        if not ms[-1] >= 0:
            ms = _NO_TIMES  # no packet yet, from an encoder with delay
        with self._lock:
            code = self._rungs.setdefault(row.rung, len(self._rungs))
            self._rows[self._row_count % _MAX_ROWS] = (at, kind, code, sent, *ms)
            self._row_count += 1
            if kind == _DROPPED:
                self._counts.dropped += 1
                return
            if sent:
                self._counts.sent += 1
                self._counts.source_sent += kind == _SHOWN
                self._last_sent_at = at
                self._last_source_sent_at = self._last_source_sent_at if kind == _REPEATED else at
            if kind == _REPEATED:
                self._counts.repeated += 1
            else:
                self._add_latency(row, ms[-1])

    def _add_latency(self, row: Row, total: float) -> None:
        counts, self._rung = self._counts, row.rung
        counts.shown[row.rung] = counts.shown.get(row.rung, 0) + 1
        if row.event:
            counts.events[row.event] = counts.events.get(row.event, 0) + 1
        counts.late += total > self._deadline_ms
        counts.latencies.add(total)

    def snapshot(self, max_age_s: float = _MAX_AGE_S) -> Snapshot:
        """Return figures less than `max_age_s` seconds old, by default a quarter second."""
        with self._compute_lock:
            at = self._clock()
            if self._cached is None or not 0 <= at - self._cached[0] < max_age_s:
                self._cached = (at, self._compute(at))
            return self._cached[1]

    def _compute(self, at: float) -> Snapshot:
        live = self._live
        figures = live[1]() if live else _NO_FIGURES
        with self._lock:
            at = max(at, self._clock())  # frames may have arrived meanwhile
            rows = self._rows[: self._row_count].copy()
            first = self._row_count % _MAX_ROWS if self._row_count > _MAX_ROWS else 0
            counts, last_sent_at, rung = self._counts, self._last_sent_at, self._rung
            last_source_sent_at = self._last_source_sent_at
            shown, events = dict(counts.shown), dict(counts.events)
            latencies, names = counts.latencies.copy(), list(self._rungs)
            dropped, repeated, late = counts.dropped, counts.repeated, counts.late
            sent, source_sent = counts.sent, counts.source_sent
        recent = _Recent(np.concatenate((rows[first:], rows[:first])), names, at)
        span = max(1.0, min(RECENT_S, at - live[2])) if live else RECENT_S
        return Snapshot(
            name=self._name, deadline_ms=self._deadline_ms, uptime_s=at - self._began,
            stage=live[0] if live else None, rung=rung, shown=shown, frames_out=sent,
            source_frames_out=source_sent, source_fps_out=recent.sent(span, _SHOWN) / span,
            shown_minute=recent.by_rung(), dropped=dropped, repeated=repeated, late=late,
            dropped_minute=recent.count(MINUTE_S, _DROPPED),
            repeated_minute=recent.count(MINUTE_S, _REPEATED),
            late_minute=recent.later_than(self._deadline_ms),
            events=events, fps_in=recent.count(span, _SHOWN, _DROPPED) / span,
            fps_out=recent.sent(span) / span,
            run=latencies.summary(),
            minute=recent.stages(), timeline=recent.timeline(), total_ms=latencies.total,
            buckets=[*((b, latencies.up_to(b)) for b in EXACT_MS), (math.inf, latencies.count)],
            packet_age_s=max(0.0, at - last_sent_at) if last_sent_at is not None else None,
            outputs=[OutputStatus.of(facts) for facts in figures["outputs"]],
            sessions=figures["sessions"], jumps=figures["jumps"],
            nudged=figures["nudged"], waiting=figures.get("waiting"),
            encoding=figures.get("encoding"), av_offset_ms=figures.get("av_offset_ms"),
            real_age_s=None if last_source_sent_at is None else at - last_source_sent_at,
            sound_age_s=_audio_age_s(figures, at - live[2]) if live else None,
            has_sound=figures.get("has_sound", False), showing=figures.get("showing", ""),
            sound_dropped=figures.get("sound_dropped", 0),
            silence_s=figures.get("silence_s", 0.0), health_after=self._health_after,
            before=self._images[0], after=self._images[1],
        )  # fmt: skip


def _audio_age_s(figures: Mapping[str, Any], live_s: float) -> float:
    """Return the seconds since any output sent source audio, at most the time since going live."""
    ages = [output.get("sound_age_s") for output in figures["outputs"]]
    return min([live_s, *(age for age in ages if age is not None)])


class _Recent:
    """Rows of recent frames, in order of arrival."""

    def __init__(self, rows: npt.NDArray[np.float64], names: Sequence[str], at: float) -> None:
        self._names, self._at = names, at
        self._rows = rows[rows[:, 0] > math.floor(at) - TIMELINE_S + 1]
        self._minute = self._rows[self._rows[:, 0] > at - MINUTE_S]
        self._minute = self._minute[self._minute[:, 1] == _SHOWN]

    def count(self, seconds: float, *kinds: int) -> int:
        """Count the frames of the given kinds in the last `seconds`."""
        newest = self._rows[self._rows[:, 0] > self._at - seconds]
        return int(np.count_nonzero(np.isin(newest[:, 1], kinds)))

    def sent(self, seconds: float, *kinds: int) -> int:
        """Count the frames of the given kinds (default: all) that an output sent in the last
        `seconds`."""
        newest = self._rows[self._rows[:, 0] > self._at - seconds]
        return int(np.nansum(newest[np.isin(newest[:, 1], kinds), 3] if kinds else newest[:, 3]))

    def by_rung(self) -> dict[str, int]:
        """Count the frames of the last minute by rung."""
        counts = np.bincount(self._minute[:, 2].astype(np.int64), minlength=len(self._names))
        return {name: int(n) for name, n in zip(self._names, counts, strict=True) if n}

    def later_than(self, ms: float) -> int:
        """Count the frames of the last minute with a latency above `ms`."""
        return int(np.count_nonzero(self._minute[:, -1] > ms))

    def stages(self) -> dict[str, dict[str, float]]:
        """Return mean, percentiles and maximum of each stage over the last minute."""
        timed = self._minute[np.isfinite(self._minute[:, -1]), 4:]
        return summaries(Histogram.of(timed[:, k]) for k in range(len(STAGES)))

    def timeline(self) -> LatencyTimeline:
        """Return one column per second; the last is the current second."""
        shown = self._rows[np.isfinite(self._rows[:, -1])]
        p50: list[float | None] = [None] * TIMELINE_S
        high: list[float | None] = [None] * TIMELINE_S
        rung: list[str | None] = [None] * TIMELINE_S
        if not len(shown):
            return LatencyTimeline(p50=tuple(p50), max=tuple(high), rung=tuple(rung))
        slot = (np.floor(shown[:, 0]) - math.floor(self._at)).astype(np.int64) + TIMELINE_S - 1
        last = np.searchsorted(slot, np.arange(TIMELINE_S), "right") - 1
        columns = slot_stats(slot, shown[:, -1])
        for k, middle, top in zip(columns.slot, columns.middle, columns.high, strict=True):
            p50[k], high[k] = round(float(middle), 3), round(float(top), 3)
            rung[k] = self._names[int(shown[last[k], 2])]
        return LatencyTimeline(p50=tuple(p50), max=tuple(high), rung=tuple(rung))
