"""The ledger of a relay that runs for days: bounded in memory, and on disk.

The rows of the current period are held as ever. When it ends they are handed to a thread that
writes them beside the report, and of all rows before only figures are kept, see `Totals`.
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
"""Rows whose memory is taken when a period begins: ten minutes at 30 frames a second."""
_HELD: Final = 2
"""Periods that wait for a disk that is slow or away; older ones are given up."""
_CLOSE_S: Final = 0.3
"""For what is being written when a relay ends."""

Head = Callable[[Ledger, float], dict[str, Any]]
"""The facts of a period's rows, which took so many seconds; called on the writer's thread."""


@dataclass(frozen=True, kw_only=True)
class RollingSettings:
    """How much of a run is kept row by row."""

    report: Path | None = None
    """Beside which finished periods are written, in its format; None: they are not."""
    period: float = 600.0
    """Seconds."""
    rows: int = 50_000
    """At which a period ends before its time."""
    keep: int = 24
    """Finished periods on disk, at least 1; those of earlier runs count, and go first."""


@dataclass(frozen=True)
class Period:
    """Rows that are complete."""

    rows: Ledger
    began: float
    """Seconds since 1970."""
    seconds: float


class Totals:
    """What `Ledger` tells of its rows, without them. Not thread-safe."""

    def __init__(self, deadline_ms: float) -> None:
        self.late = 0
        """Frames later than the deadline; dropped ones too."""
        self.rungs: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self._deadline_ms = deadline_ms
        self._stages = [Histogram() for _ in STAGES]

    def add(self, row: Row) -> None:
        """Count a frame; takes some 5 microseconds."""
        self.late += not row.ms[-1] <= self._deadline_ms
        self.rungs[row.rung] += 1
        self.events[row.event] += 1
        for stage, ms in zip(self._stages, row.ms, strict=True):
            stage.add(ms)

    def stages(self) -> dict[str, dict[str, float]]:
        """`Histogram.summary` of every stage; empty without frames that have times."""
        return summaries(self._stages)


class RollingLedger:
    """A `LatencyLedger` that holds the rows of the last period only. Thread-safe.

    Until the first period has ended it tells exactly what a `Ledger` tells.
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
        """`clock` measures periods (s) and never goes back, `wall` (s since 1970) names them."""
        self._settings, self._deadline_ms = settings, deadline_ms
        self._clock, self._wall, self._lock = clock, wall, threading.Lock()
        self._parts = Parts(settings.report, settings.keep, head) if settings.report else None
        # the lock is never held while anything is written
        self._empty = partial(Ledger, room=min(settings.rows, _ROOM))
        self._rows, self._totals = self._empty(), Totals(deadline_ms)
        self._began, self._first = (0.0, 0.0), (0, 0.0)
        self._rolled = self._closed = False

    def __len__(self) -> int:
        """Rows held."""
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Record a frame; never waits for the disk."""
        at = self._clock()
        with self._lock:
            if self._ended(at):
                self._turn(at)
            if not len(self._rows):
                if self._parts is not None:
                    self._parts.start()
                self._began, self._first = (at, self._wall()), (row.index, row.pts_s)
            if row.index < self._first[0]:  # a dropped frame is known before those under way
                self._first = (row.index, row.pts_s)
            self._rows.add(row)
            self._totals.add(row)

    def _ended(self, at: float) -> bool:
        rows, limits = len(self._rows), self._settings
        full = rows >= limits.rows or at - self._began[0] >= limits.period
        return rows > 0 and full and not self._closed

    def _turn(self, at: float) -> None:
        began, wall = self._began
        if self._parts is not None:  # the source may have been away long after the period's end
            self._parts.put(Period(self._rows, wall, min(at - began, self._settings.period)))
        self._rows, self._rolled = self._empty(), True

    def close(self, seconds: float = _CLOSE_S) -> None:
        """Begin no further period, and wait for what is being written; to be called at the end."""
        with self._lock:
            self._closed = True
        if self._parts is not None:
            self._parts.close(seconds)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the last period, in input order."""
        with self._lock:
            held = self._rows.copy()
        return held.rows()

    def columns(self) -> Columns:
        """The rows of the last period, in input order, as arrays."""
        with self._lock:
            return self._rows.columns()

    def stages(self) -> dict[str, dict[str, float]]:
        """As `Ledger`, of the whole run."""
        with self._lock:
            return self._totals.stages()

    def count_later_than(self, ms: float) -> int:
        """As `Ledger`, of the whole run. Raises ValueError for another than the deadline."""
        if ms != self._deadline_ms:
            raise ValueError(f"counted were frames later than {self._deadline_ms} ms, not {ms} ms")
        with self._lock:
            return self._totals.late

    def count_events(self, event: str) -> int:
        """Frames of the whole run marked with this event."""
        with self._lock:
            return self._totals.events[event]

    def extent(self) -> dict[str, Any]:
        """Where the rows begin, the files with those before, counts by rung and event."""
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
    """Writes finished periods on a thread of its own, and keeps the newest files.

    `put` and `close` are for one thread.
    """

    def __init__(self, report: Path, keep: int, head: Head) -> None:
        self._report, self._keep, self._head = report, keep, head
        self._names: list[str] = []
        self._newest = 0
        self._troubled = False
        self._queue: queue.Queue[Period | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def start(self) -> None:
        """Be ready to write; may be called again. From the first row on, so that nothing grows."""
        if self._thread.ident is None:
            self._thread.start()

    @property
    def names(self) -> list[str]:
        """This run's files that are kept, oldest first."""
        return list(self._names)

    def put(self, period: Period) -> None:
        """Have it written; returns at once."""
        if self._queue.qsize() < _HELD:
            self._queue.put(period)
        else:
            self._warn(f"the report's disk is behind: {len(period.rows)} rows are left out")

    def close(self, seconds: float) -> None:
        """Write what waits, for so long at the most."""
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
        """Once, until all is well again."""
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


def rotate_report(settings: RollingSettings) -> None:
    """Keep the report of a run that failed as one of the parts, before the next run writes its own.

    Raises OSError.
    """
    if settings.report is not None:
        settings.report.rename(_part(settings.report, _free(settings.report, int(time.time()))))
        _prune(settings.report, settings.keep)


def _free(report: Path, second: int) -> int:
    """The second to name a part after: after those before, whatever the system's clock does."""
    while _part(report, second).exists():
        second += 1
    return second


def _part(report: Path, second: int) -> Path:
    stamp = datetime.fromtimestamp(second, UTC).strftime("%Y%m%dT%H%M%SZ")
    return report.with_name(f"{report.stem}-{stamp}{report.suffix}")


def _prune(report: Path, keep: int) -> set[str]:
    """Delete all parts but the newest, and nothing that is not named so; returns what is left."""
    own = rf"{re.escape(report.stem)}-\d{{8}}T\d{{6}}Z{re.escape(report.suffix)}"
    found = (p for p in report.parent.iterdir() if re.fullmatch(own, p.name, re.ASCII))
    files = sorted(p for p in found if p.is_file() and not p.is_symlink())
    for old in files[:-keep]:
        old.unlink(missing_ok=True)
    return {p.name for p in files[-keep:]}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
