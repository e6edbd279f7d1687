"""The ledger of a relay that runs for days: bounded in memory and on disk.

The rows of the current period are held in memory. At its end `PeriodWriter` writes them to a file
beside the report. Of all rows of the run, only totals are kept, see `Totals`.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from vsr.media.frame import now
from vsr.report.histogram import Histogram
from vsr.report.html.columns import Columns
from vsr.report.ledger import COLUMNS, STAGES, Ledger, Row, summaries
from vsr.report.periods import (
    FactsCallback,
    Period,
    PeriodWriter,
    delete_old_parts,
    iso_time,
    next_free_second,
    part_path,
)

_INITIAL_ROWS: Final = 18_000
"""Rows allocated at the start of a period: ten minutes at 30 frames per second."""
_CLOSE_TIMEOUT_S: Final = 0.3
"""Timeout for writing the last periods when a relay ends, in seconds."""


@dataclass(frozen=True, kw_only=True)
class RollingSettings:
    """Settings for how many rows are kept in memory and on disk."""

    report: Path | None = None
    """Path of the report; finished periods are written beside it, in its format, unless None."""
    period: float = 600.0
    """Maximum duration of a period, in seconds."""
    rows: int = 50_000
    """Maximum number of rows of a period, which ends early when it is reached."""
    keep: int = 24
    """Period files kept on disk, at least 1; those of earlier runs count, and are deleted first."""


class Totals:
    """Running totals of all rows, without the rows themselves. Not thread-safe."""

    def __init__(self, deadline_ms: float) -> None:
        self.late = 0
        """Number of frames later than the deadline, dropped frames included."""
        self.rungs: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self._deadline_ms = deadline_ms
        self._stages = [Histogram() for _ in STAGES]

    def add(self, row: Row) -> None:
        """Count a frame; takes about 5 microseconds."""
        self.late += not row.ms[-1] <= self._deadline_ms
        self.rungs[row.rung] += 1
        self.events[row.event] += 1
        for stage, ms in zip(self._stages, row.ms, strict=True):
            stage.add(ms)

    def stages(self) -> dict[str, dict[str, float]]:
        """Return `Histogram.summary` of every stage; empty if no frame has times."""
        return summaries(self._stages)


class RollingLedger:
    """A `LatencyLedger` that holds the rows of the current period only. Thread-safe.

    Until the first period has ended it returns exactly what a `Ledger` returns.
    """

    names: tuple[str, ...] = COLUMNS

    def __init__(
        self,
        settings: RollingSettings,
        deadline_ms: float,
        period_facts: FactsCallback,
        clock: Callable[[], float] = now,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock` (s, monotonic) measures periods, `wall` (s since 1970) names their files."""
        self._settings, self._deadline_ms = settings, deadline_ms
        self._clock, self._wall, self._lock = clock, wall, threading.Lock()
        self._writer = (
            PeriodWriter(settings.report, settings.keep, period_facts) if settings.report else None
        )
        # the lock is never held during a write to disk
        self._new_ledger = partial(Ledger, capacity=min(settings.rows, _INITIAL_ROWS))
        self._ledger, self._totals = self._new_ledger(), Totals(deadline_ms)
        self._period_start, self._first_row = (0.0, 0.0), (0, 0.0)
        self._has_ended_period = self._closed = False

    def __len__(self) -> int:
        """Return the number of rows held."""
        return len(self._ledger)

    def add(self, row: Row) -> None:
        """Record a frame; never blocks on the disk."""
        at = self._clock()
        with self._lock:
            if self._is_period_over(at):
                self._end_period(at)
            if not len(self._ledger):
                if self._writer is not None:
                    self._writer.start()
                self._period_start, self._first_row = (at, self._wall()), (row.index, row.pts_s)
            if (
                row.index < self._first_row[0]
            ):  # a dropped frame is recorded before frames in flight
                self._first_row = (row.index, row.pts_s)
            self._ledger.add(row)
            self._totals.add(row)

    def _is_period_over(self, at: float) -> bool:
        rows, limits = len(self._ledger), self._settings
        full = rows >= limits.rows or at - self._period_start[0] >= limits.period
        return rows > 0 and full and not self._closed

    def _end_period(self, at: float) -> None:
        start, wall = self._period_start
        if self._writer is not None:  # the source may have paused until long after the period's end
            self._writer.put(Period(self._ledger, wall, min(at - start, self._settings.period)))
        self._ledger, self._has_ended_period = self._new_ledger(), True

    def close(self, seconds: float = _CLOSE_TIMEOUT_S) -> None:
        """Start no further period, and wait up to `seconds` for writes; call it at the end."""
        with self._lock:
            self._closed = True
        if self._writer is not None:
            self._writer.close(seconds)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return an iterator over the rows of the current period, in input order."""
        with self._lock:
            ledger = self._ledger.copy()
        return ledger.rows()

    def columns(self) -> Columns:
        """Return the rows of the current period, in input order, as arrays."""
        with self._lock:
            return self._ledger.columns()

    def stages(self) -> dict[str, dict[str, float]]:
        """Return `Histogram.summary` of every stage over the whole run."""
        with self._lock:
            return self._totals.stages()

    def count_later_than(self, ms: float) -> int:
        """Return how many frames of the run are late; ValueError if `ms` is not the deadline."""
        if ms != self._deadline_ms:
            raise ValueError(
                f"only frames later than {self._deadline_ms} ms were counted, not {ms} ms"
            )
        with self._lock:
            return self._totals.late

    def count_events(self, event: str) -> int:
        """Return how many frames of the whole run are marked with this event."""
        with self._lock:
            return self._totals.events[event]

    def missing_row_facts(self) -> dict[str, Any]:
        """Return where the rows begin, the files of earlier rows, and counts by rung and event."""
        with self._lock:
            if not self._has_ended_period:
                return {}
            index, pts = self._first_row
            begins = {
                "index": index,
                "pts_s": round(pts, 6),
                "time": iso_time(self._period_start[1]),
            }
            rungs, events = dict(self._totals.rungs), dict(self._totals.events)
        return {
            "ledger_from": begins,
            "parts": self._writer.names if self._writer is not None else [],
            "rungs": {name: count for name, count in rungs.items() if name},
            "events": {name: count for name, count in events.items() if name},
        }


def rotate_report(settings: RollingSettings) -> None:
    """Rename the report of a failed run to a part, so that the next run does not overwrite it.

    Raises OSError.
    """
    if settings.report is not None:
        second = next_free_second(settings.report, int(time.time()))
        settings.report.rename(part_path(settings.report, second))
        delete_old_parts(settings.report, settings.keep)
