"""Writes a relay's finished periods to files beside its report, and keeps the newest of them."""

import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from vsr.errors import OutputError, reason
from vsr.report.ledger import Ledger, write_report

log = logging.getLogger(__name__)

_MAX_PENDING: Final = 2
"""Maximum number of periods that wait for a slow or missing disk: the newest ones."""

FactsCallback = Callable[[Ledger, float], dict[str, Any]]
"""Callback (rows, their duration in seconds) -> facts of a period; runs on the writer thread."""


@dataclass(frozen=True)
class Period:
    """A finished period."""

    rows: Ledger
    start_time: float
    """Start time, in seconds since 1970."""
    seconds: float


class PeriodWriter:
    """Writes finished periods on a separate thread, and keeps the newest files.

    At most `_MAX_PENDING` periods wait to be written, whether the disk is slow or writes fail; the
    oldest are discarded first. Call `put` and `close` from one thread.
    """

    def __init__(self, report: Path, keep: int, period_facts: FactsCallback) -> None:
        self._report, self._keep, self._period_facts = report, keep, period_facts
        self._names: list[str] = []
        self._newest_second = 0
        self._has_warned = False
        self._pending: deque[Period] = deque()
        self._changed = threading.Condition()
        """Guards `_pending`, `_has_new`, `_is_closing` and `_is_idle`."""
        self._has_new = False
        """Whether a period was added since the thread last took one."""
        self._is_closing = False
        self._is_idle = True
        """Whether the thread waits for a period."""
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
        """Queue a period to be written; return at once. A full queue loses its oldest period."""
        with self._changed:
            self._pending.append(period)
            discarded = self._pending.popleft() if len(self._pending) > _MAX_PENDING else None
            self._has_new = True
            self._changed.notify()
        if discarded is not None:
            self._warn(
                "the report's disk is too slow: discarding the oldest rows until it recovers"
            )

    def close(self, seconds: float) -> None:
        """Write the queued periods, and wait for that up to `seconds`."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.ident:
            self._thread.join(seconds)

    def _run(self) -> None:
        while self._wait_for_period():
            try:
                while (period := self._next()) is not None:
                    self._write_or_keep(period)
                self._delete_old_files()
            except (OutputError, OSError) as exc:
                what = str(exc) if isinstance(exc, OutputError) else reason(exc)
                self._warn(f"{what}; the relay continues and retries after the next period")
            else:
                self._has_warned = False

    def _wait_for_period(self) -> bool:
        """Wait for a new period, or return False if none will come."""
        with self._changed:
            self._is_idle = True
            self._changed.wait_for(lambda: self._has_new or self._is_closing)
            self._is_idle = False
            return self._has_new

    def _next(self) -> Period | None:
        with self._changed:
            self._has_new = False
            return self._pending.popleft() if self._pending else None

    def _write_or_keep(self, period: Period) -> None:
        """Write a period; if that fails, keep it unless the queue is full of newer ones."""
        try:
            self._write(period)
        except BaseException:
            with self._changed:
                if len(self._pending) < _MAX_PENDING:
                    self._pending.appendleft(period)
            raise

    def _warn(self, message: str) -> None:
        """Log a warning once, until a write succeeds again."""
        if not self._has_warned:
            log.warning("%s", message)
        self._has_warned = True

    def _write(self, period: Period) -> None:
        second = next_free_second(
            self._report, max(int(period.start_time), self._newest_second + 1)
        )
        path = part_path(self._report, second)
        ends = {
            "from": iso_time(period.start_time),
            "to": iso_time(period.start_time + period.seconds),
        }
        facts = self._period_facts(period.rows, period.seconds) | {"period": ends}
        write_report(path, facts, period.rows)
        self._newest_second = second
        self._names.append(path.name)

    def _delete_old_files(self) -> None:
        kept = delete_old_parts(self._report, self._keep)
        self._names = [name for name in self._names if name in kept]


def next_free_second(report: Path, second: int) -> int:
    """Return the first second, from `second` on, that no part is named after."""
    while part_path(report, second).exists():
        second += 1
    return second


def part_path(report: Path, second: int) -> Path:
    """Return the path of the part that is named after a second since 1970."""
    stamp = datetime.fromtimestamp(second, UTC).strftime("%Y%m%dT%H%M%SZ")
    return report.with_name(f"{report.stem}-{stamp}{report.suffix}")


def delete_old_parts(report: Path, keep: int) -> set[str]:
    """Delete all parts but the `keep` newest, and no other file; return the names that are left."""
    own = rf"{re.escape(report.stem)}-\d{{8}}T\d{{6}}Z{re.escape(report.suffix)}"
    found = (p for p in report.parent.iterdir() if re.fullmatch(own, p.name, re.ASCII))
    files = sorted(p for p in found if p.is_file() and not p.is_symlink())
    for old in files[:-keep]:
        old.unlink(missing_ok=True)
    return {p.name for p in files[-keep:]}


def iso_time(seconds: float) -> str:
    """Format seconds since 1970 as ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
