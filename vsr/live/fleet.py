"""Runs relays: one, whose error is the program's, or several, of which none may end the others."""

import logging
import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from vsr.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, OutputError, VsrError
from vsr.ledger import check_report_path, write_report
from vsr.live.pool import Pool
from vsr.live.relay import Relay
from vsr.live.settings import RelaySettings
from vsr.live.status import StatusServer
from vsr.report import Report

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A relay, and what is to be seen of it."""

    relay: Relay
    name: str = ""
    report: Path | None = None
    status: str | None = None
    """HOST:PORT of its page."""

    def run(self, stop: threading.Event) -> int:
        """To the end of its source, or until `stop`; returns its exit code. Raises VsrError."""
        try:
            with StatusServer(self.status, self.relay.board) if self.status else nullcontext():
                self.relay.run(stop)
        except BaseException:
            try:
                self._write()
            except OutputError as exc:
                log.error("%s", exc)  # beside the one that ended it
            raise
        self._write()
        return self.relay.report.exit_code

    def _write(self) -> None:
        report = self.relay.report
        if self.report and self.relay.begun:  # or the last report would be lost for nothing
            write_report(self.report, report.facts(), report.ledger)


def run_all(members: Sequence[Member], stop: threading.Event) -> int:
    """Run them side by side until the last has ended; returns the worst exit code."""
    codes = [EXIT_DONE] * len(members)

    def run(place: int) -> None:
        member = members[place]
        try:
            codes[place] = member.run(stop)
        except VsrError as exc:
            codes[place] = exc.exit_code
            log.error("%s: error: %s", member.name, exc)
        except Exception as exc:  # a defect, which must not end the others
            codes[place] = EXIT_FAILED
            log.exception("%s: unexpected %s: %s (report it)", member.name, type(exc).__name__, exc)

    threads = [
        threading.Thread(target=run, args=(place,), name=member.name, daemon=True)
        for place, member in enumerate(members)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return EXIT_INTERRUPTED if stop.is_set() else max(codes)


def relay(
    input: str,
    outputs: str | Sequence[str],
    *,
    settings: RelaySettings | None = None,
    report: str | os.PathLike[str] | None = None,
    status: str | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Relay a live stream: `vsr.relay("rtmp://host/live/in", "rtmp://host/live/out")`.

    The options are those of `vsr relay`, as `RelaySettings` (times in seconds). Returns when the
    source is given up or `stop` is set, which another thread must do; raises VsrError with a
    one-line message.
    """
    settings, path = settings or RelaySettings(), None if report is None else Path(report)
    if path is not None:
        check_report_path(path)
        settings = replace(settings, rolling=replace(settings.rolling, report=path))
    pool = Pool()
    urls = [outputs] if isinstance(outputs, str) else outputs
    one = Relay(input, urls, settings, pool)
    try:
        Member(relay=one, report=path, status=status).run(stop or threading.Event())
    finally:
        pool.close()
    return one.report
