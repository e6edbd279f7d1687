"""Runs one relay, or several relays that are isolated from each other's failures.

If one of several relays fails, the cause of the error, as far as known, determines what follows:

- An error that the user must correct ends the relay for good: a wrong option, an unknown codec or
  network, an impossible output, a file that is not a video. It is logged once, with the relay's
  name, and its exit code becomes the program's, however the other relays end.
- Any other error restarts the relay, after a pause that grows from 1 s to a minute: the encoder or
  the backend failed, the source failed `--retry-max` times, or vsr has a bug. Each
  failure is logged in one line. The settings of a relay that was live once are known to be right,
  so from then on no error ends it for good.
- A file that is not looped is relayed once, however that ends.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from vsr.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    InputError,
    ModelError,
    OutputError,
    UsageError,
    VsrError,
    reason,
)
from vsr.live.common import Backoff
from vsr.live.ladder.pool import Pool
from vsr.live.relay import Relay
from vsr.live.settings import RelaySettings
from vsr.media.frame import now
from vsr.media.location import is_url, mask_secrets
from vsr.report.ledger import write_report
from vsr.report.rolling import rotate_report

log = logging.getLogger(__name__)

PAUSES: Final = Backoff(first=1.0, longest=60.0)
"""Pauses before one of several relays is restarted. They begin with the first again after a relay
was live and ran for longer than the longest pause."""


@dataclass(frozen=True, kw_only=True)
class RelayJob:
    """Input, outputs and settings of a relay; a new `Relay` is made for every start."""

    input: str
    outputs: tuple[str, ...]
    settings: RelaySettings
    options_error: str = ""
    """Reason why it cannot start, if its options are wrong; else empty."""

    def make(self, pool: Pool | None = None) -> Relay:
        """Create the relay. Raises VsrError for errors detected before anything is opened."""
        if self.options_error:
            raise UsageError(self.options_error)
        return Relay(self.input, self.outputs, self.settings, pool)


def run_one(relay: Relay, stop: threading.Event) -> int:
    """Run a relay until its source ends or `stop` is set; return its exit code.

    Writes its report and serves its status page as configured. Raises VsrError.
    """
    try:
        with _status_page(relay):
            relay.run(stop)
    except BaseException:
        try:
            _write(relay)
        except OutputError as exc:
            log.error("%s", exc)  # in addition to the error that ended the relay
        raise
    _write(relay)
    return relay.report.exit_code


def _status_page(relay: Relay) -> AbstractContextManager[object]:
    """Return a context that serves the relay's status page, if one is configured."""
    status = relay.settings.status
    if not status:
        return nullcontext()
    from vsr.live.status.server import StatusServer  # http.server, Prometheus, Jinja2

    return StatusServer(status, relay.board)


def _write(relay: Relay) -> None:
    path = relay.settings.rolling.report
    if path and relay.has_report:  # else an empty report would replace the last one
        write_report(path, relay.report.facts(), relay.report.ledger)


def run_all(
    jobs: Sequence[RelayJob], stop: threading.Event, pool: Pool, pauses: Backoff = PAUSES
) -> int:
    """Run relays in parallel until all have ended for good, or `stop` is set.

    Returns the highest exit code of the relays that failed for good. If there is none, returns
    EXIT_INTERRUPTED if `stop` is set, else the highest exit code of all.
    """
    relays = [_Supervised(job, stop, pool, pauses) for job in jobs]
    for relay in relays:
        relay.thread.start()
    for relay in relays:
        relay.thread.join()
    failed = max((relay.code for relay in relays if relay.failed), default=EXIT_DONE)
    stopped = EXIT_INTERRUPTED if stop.is_set() else EXIT_DONE
    return failed or stopped or max(relay.code for relay in relays)


class _Supervised:
    """Runs a relay on a separate thread and restarts it after failures."""

    def __init__(self, job: RelayJob, stop: threading.Event, pool: Pool, pauses: Backoff) -> None:
        self._job, self._stop, self._pool, self._pauses = job, stop, pool, pauses
        self._relay: Relay | None = None
        """Relay of the current start; None until it is made."""
        self._was_live = False
        self.code = EXIT_DONE
        self.failed = False
        """Whether it ended with an error."""
        self.thread = threading.Thread(target=self._run, name=job.settings.name, daemon=True)

    def _run(self) -> None:
        failures, name = 0, self._job.settings.name
        while True:
            began = now()
            try:
                self.code = self._run_once()
                return
            except Exception as exc:
                final, code, message = self._classify(exc)
            if final or self._stop.is_set():
                self.code, self.failed = code, True
                log.error("%s: %s", name, message)
                return
            was_live = self._relay is not None and self._relay.has_report
            ran_long = was_live and now() - began > self._pauses.longest
            failures = 1 if ran_long else failures + 1
            pause = self._pauses.pause(failures)
            log.error("%s: %s; restarting in %.2g s", name, message, pause)
            if self._stop.wait(pause):
                self.code = EXIT_INTERRUPTED
                return
            self._rotate_report()

    def _run_once(self) -> int:
        self._relay = None
        self._relay = self._job.make(self._pool)
        return run_one(self._relay, self._stop)

    def _classify(self, exc: Exception) -> tuple[bool, int, str]:
        """Return whether an error ends the relay for good, the exit code and the message."""
        job, relay = self._job, self._relay
        self._was_live = self._was_live or (relay is not None and relay.has_report)
        code, message = EXIT_FAILED, f"unexpected {type(exc).__name__}: {exc} (report it)"
        is_user_error = False
        if isinstance(exc, VsrError):
            code, message = exc.exit_code, f"error: {exc}"
            is_user_error = relay is None or isinstance(exc, UsageError | ModelError)
            is_user_error = is_user_error or (isinstance(exc, InputError) and not is_url(job.input))
        else:
            for url in (job.input, *job.outputs):  # a library's message may contain a key
                message = mask_secrets(message, url)
            log.debug("%s: %s", job.settings.name, message, exc_info=exc)
        runs_once = not (job.settings.ingest.loop or is_url(job.input))
        final = runs_once or (is_user_error and not self._was_live)
        final = final or (relay is not None and relay.is_hopeless)
        return final, code, " ".join(message.split())

    def _rotate_report(self) -> None:
        """Rename the report, so that the next run does not overwrite it."""
        if self._relay is None or not self._relay.has_report:
            return
        try:
            rotate_report(self._job.settings.rolling)
        except OSError as exc:
            log.error("%s: cannot keep the last report: %s", self._job.settings.name, reason(exc))
