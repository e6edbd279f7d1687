"""The ledger of a relay that runs for days: bounded in memory and on disk.

The rows of the current period are held in memory. At its end a thread writes them to a file beside
the report. Of all rows of the run, only totals are kept, see `Totals`.
"""

import logging
import queue
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from vsr.errors import OutputError, reason
from vsr.media.frame import now
from vsr.report.histogram import Histogram
from vsr.report.html.columns import Columns
from vsr.report.ledger import COLUMNS, STAGES, Ledger, Row, summaries, write_report

log = logging.getLogger(__name__)

_ROOM: Final = 18_000
"""Rows allocated at the start of a period: ten minutes at 30 frames per second."""
_HELD: Final = 2
"""Maximum number of periods that wait for a slow or missing disk; others are discarded."""
_CLOSE_S: Final = 0.3
"""Timeout for writing the last periods when a relay ends, in seconds."""

Head = Callable[[Ledger, float], dict[str, Any]]
"""Callback (rows, their duration in seconds) -> facts of a period; runs on the writer thread."""


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


@dataclass(frozen=True)
class Period:
    """A finished period."""

    rows: Ledger
    began: float
    """Start time, in seconds since 1970."""
    seconds: float


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
        head: Head,
        clock: Callable[[], float] = now,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock` (s, monotonic) measures periods, `wall` (s since 1970) names their files."""
        self._settings, self._deadline_ms = settings, deadline_ms
        self._clock, self._wall, self._lock = clock, wall, threading.Lock()
        self._parts = Parts(settings.report, settings.keep, head) if settings.report else None
        # the lock is never held during a write to disk
        self._empty = partial(Ledger, room=min(settings.rows, _ROOM))
        self._rows, self._totals = self._empty(), Totals(deadline_ms)
        self._began, self._first = (0.0, 0.0), (0, 0.0)
        self._rolled = self._closed = False

    def __len__(self) -> int:
        """Return the number of rows held."""
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Record a frame; never blocks on the disk."""
        at = self._clock()
        with self._lock:
            if self._ended(at):
                self._turn(at)
            if not len(self._rows):
                if self._parts is not None:
                    self._parts.start()
                self._began, self._first = (at, self._wall()), (row.index, row.pts_s)
            if row.index < self._first[0]:  # a dropped frame is recorded before frames in flight
                self._first = (row.index, row.pts_s)
            self._rows.add(row)
            self._totals.add(row)

    def _ended(self, at: float) -> bool:
        rows, limits = len(self._rows), self._settings
        full = rows >= limits.rows or at - self._began[0] >= limits.period
        return rows > 0 and full and not self._closed

    def _turn(self, at: float) -> None:
        began, wall = self._began
        if self._parts is not None:  # the source may have paused until long after the period's end
            self._parts.put(Period(self._rows, wall, min(at - began, self._settings.period)))
        self._rows, self._rolled = self._empty(), True

    def close(self, seconds: float = _CLOSE_S) -> None:
        """Start no further period, and wait up to `seconds` for writes; call it at the end."""
        with self._lock:
            self._closed = True
        if self._parts is not None:
            self._parts.close(seconds)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return an iterator over the rows of the current period, in input order."""
        with self._lock:
            held = self._rows.copy()
        return held.rows()

    def columns(self) -> Columns:
        """Return the rows of the current period, in input order, as arrays."""
        with self._lock:
            return self._rows.columns()

    def stages(self) -> dict[str, dict[str, float]]:
        """Return `Histogram.summary` of every stage over the whole run."""
        with self._lock:
            return self._totals.stages()

    def count_later_than(self, ms: float) -> int:
        """Return how many frames of the run are late; ValueError if `ms` is not the deadline."""
        if ms != self._deadline_ms:
            raise ValueError(f"counted were frames later than {self._deadline_ms} ms, not {ms} ms")
        with self._lock:
            return self._totals.late

    def count_events(self, event: str) -> int:
        """Return how many frames of the whole run are marked with this event."""
        with self._lock:
            return self._totals.events[event]

    def extent(self) -> dict[str, Any]:
        """Return where the rows begin, the files of earlier rows, and counts by rung and event."""
        with self._lock:
            if not self._rolled:
                return {}
            index, pts = self._first
            begins = {"index": index, "pts_s": round(pts, 6), "time": _iso(self._began[1])}
            rungs, events = dict(self._totals.rungs), dict(self._totals.events)
        return {
            "ledger_from": begins,
            "parts": self._parts.names if self._parts is not None else [],
            "rungs": {name: count for name, count in rungs.items() if name},
            "events": {name: count for name, count in events.items() if name},
        }


class Parts:
    """Writes finished periods on a separate thread, and keeps the newest files.

    Call `put` and `close` from one thread.
    """

    def __init__(self, report: Path, keep: int, head: Head) -> None:
        self._report, self._keep, self._head = report, keep, head
        self._names: list[str] = []
        self._newest = 0
        self._troubled = False
        self._queue: queue.Queue[Period | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def start(self) -> None:
        """Start the thread unless it runs. Called at the first row, so that nothing grows later."""
        if self._thread.ident is None:
            self._thread.start()

    @property
    def names(self) -> list[str]:
        """Names of this run's files on disk, the oldest first."""
        return list(self._names)

    def put(self, period: Period) -> None:
        """Queue a period to be written, or discard it if the queue is full; return at once."""
        if self._queue.qsize() < _HELD:
            self._queue.put(period)
        else:
            self._warn(f"the report's disk is behind: {len(period.rows)} rows are left out")

    def close(self, seconds: float) -> None:
        """Write the queued periods, and wait for that up to `seconds`."""
        if self._thread.ident:
            self._queue.put(None)
            self._thread.join(seconds)

    def _run(self) -> None:
        waiting: deque[Period] = deque(maxlen=_HELD)
        while (period := self._queue.get()) is not None:
            waiting.append(period)
            try:
                while waiting:
                    self._write(waiting[0])
                    waiting.popleft()
                self._prune()
            except (OutputError, OSError) as exc:
                what = str(exc) if isinstance(exc, OutputError) else reason(exc)
                self._warn(f"{what}; the relay goes on, the next period will try again")
            else:
                self._troubled = False
            self._queue.task_done()

    def _warn(self, words: str) -> None:
        """Log a warning once, until a write succeeds again."""
        if not self._troubled:
            log.warning("%s", words)
        self._troubled = True

    def _write(self, period: Period) -> None:
        second = _free(self._report, max(int(period.began), self._newest + 1))
        path = _part(self._report, second)
        ends = {"from": _iso(period.began), "to": _iso(period.began + period.seconds)}
        facts = self._head(period.rows, period.seconds) | {"period": ends}
        write_report(path, facts, period.rows)
        self._newest = second
        self._names.append(path.name)

    def _prune(self) -> None:
        kept = _prune(self._report, self._keep)
        self._names = [name for name in self._names if name in kept]


def set_aside(settings: RollingSettings) -> None:
    """Rename the report of a failed run to a part, so that the next run does not overwrite it.

    Raises OSError.
    """
    if settings.report is not None:
        settings.report.rename(_part(settings.report, _free(settings.report, int(time.time()))))
        _prune(settings.report, settings.keep)


def _free(report: Path, second: int) -> int:
    """Return the first second, from `second` on, that no part is named after."""
    while _part(report, second).exists():
        second += 1
    return second


def _part(report: Path, second: int) -> Path:
    stamp = datetime.fromtimestamp(second, UTC).strftime("%Y%m%dT%H%M%SZ")
    return report.with_name(f"{report.stem}-{stamp}{report.suffix}")


def _prune(report: Path, keep: int) -> set[str]:
    """Delete all parts but the `keep` newest, and no other file; return the names that are left."""
    own = rf"{re.escape(report.stem)}-\d{{8}}T\d{{6}}Z{re.escape(report.suffix)}"
    found = (p for p in report.parent.iterdir() if re.fullmatch(own, p.name, re.ASCII))
    files = sorted(p for p in found if p.is_file() and not p.is_symlink())
    for old in files[:-keep]:
        old.unlink(missing_ok=True)
    return {p.name for p in files[-keep:]}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
