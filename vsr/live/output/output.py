"""Sends encoded packets to one URL without blocking the caller or another output.

Each output has a separate process (`vsr.live.output.process`), one thread that feeds and monitors
it, and a bounded queue between the caller and that thread. On any failure (refused, disconnected,
stalled, too slow), the process is killed or reused for a new attempt after a backoff; the stream
resumes at a key frame, and excess packets are dropped and counted. Packets are passed unmuxed
(`record.Record`): a muxer in this process would delay them to interleave them, lose their dts and
hold the GIL. Requires `poll` on pipes: Linux, macOS.
"""

import logging
import math
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from vsr.errors import reason
from vsr.live.output.delivery import Delivery
from vsr.live.output.link import LinkMonitor
from vsr.live.output.packet_queue import PacketQueue
from vsr.live.output.pauses import Pauses
from vsr.live.output.plan import OutputStreams, encode_plan, kind_of, output_name, settings_for
from vsr.live.output.probation import Probation
from vsr.live.output.reasons import Reasons, explain_pipe_end, retry_words, with_hint
from vsr.live.output.record import Kind, Record
from vsr.live.output.session import Session
from vsr.live.output.spares import Spares
from vsr.live.output.state import DISK_FULL, OutputState, State, after_session, during_session
from vsr.live.output.tally import Tally
from vsr.live.settings import OutputSettings
from vsr.media.frame import now
from vsr.media.location import absolute_path, mask_secrets
from vsr.media.target import pipe_of
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

_POLL_MS: Final = 10
"""Polling interval of the queue, in ms: waking the thread from `offer` would cost it the GIL."""
_KILL_S: Final = 0.2
"""Longest wait for a killed process to exit, in seconds."""


class Output:
    """Sends packets to one URL through a process, which it restarts after failures.

    Call `offer` from one thread only; everything else is thread-safe.
    """

    def __init__(
        self,
        url: str,
        streams: OutputStreams,
        settings: OutputSettings | None = None,
        number: int | None = None,
        bitrate: float | None = None,
        spares: Spares | None = None,
    ) -> None:
        """`number` distinguishes outputs with the same masked name; `bitrate` is the full video
        bitrate (bit/s). Raises UsageError for a URL that cannot be published to."""
        self.name = f"output {number}, " * (number is not None) + output_name(url)
        self._url, self._kind, self._number = url, kind_of(url), number or 1
        self._settings = chosen = settings_for(url, settings)
        self._lock = threading.Lock()
        self.tally = Tally()
        limits = (chosen.queue_s, chosen.queue_bytes, chosen.start_backlog_s)
        self._queue = PacketQueue(*limits, self.tally.dropped)
        self._state = OutputState()
        # a pipe's reader may pause, and a new process cannot resume a stream begun by another
        stall = math.inf if self._kind == "pipe" else chosen.io_timeout_s
        line = encode_plan(url, streams, chosen)
        self._session = Session(line, stall, pipe_of(Path(url)), spares)
        self._probation = Probation(url, self.tally)
        self._is_disk_full = False
        self._reasons = Reasons()
        self._link = LinkMonitor(url, bitrate, log, self.name)
        self._audio_bytes = self._logged_skips = 0
        """Number of audio bytes offered, and number of queue skips already logged."""
        self._deadline: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"output {self.name}", daemon=True)

    def start(self) -> None:
        """Start to connect; return immediately."""
        self._thread.start()

    def offer(
        self,
        packet: Packet,
        kind: Kind,
        delivery: Delivery | None = None,
        origin: float | None = None,
    ) -> None:
        """Queue a copy of a packet with its times; never block, drop what cannot be sent.

        `delivery` receives the result; `origin` is the source time (s) of the packet's content.
        """
        record = Record.of(packet, kind, delivery, origin)
        if record is None:
            return
        if kind == "audio":
            self._audio_bytes += len(record.data)
        with self._lock:
            if self._deadline is None:
                self._queue.put(record)
            else:
                self._queue.refuse(record)

    @property
    def needs_key_frame(self) -> bool:
        """Whether the output drops packets until the next key frame."""
        has_none = self._kind == "file" and not self._queue.has_key_frame
        return self._state.state != "closed" and (self._queue.needs_key_frame or has_none)

    @property
    def was_open(self) -> bool:
        """Whether the output was ever open, and its server accepted the stream."""
        return self._probation.was_accepted

    @property
    def share(self) -> float:
        """Fraction of the full bitrate that the connection can carry."""
        return self._link.share

    @property
    def pid(self) -> int | None:
        """PID of the current process."""
        return self._session.pid

    @property
    def state(self) -> OutputState:
        """Current state and counters, over all sessions."""
        with self._lock:
            return during_session(self._state, self._queue, self._session, self.tally)

    def facts(self) -> dict[str, Any]:
        """Return name, state, bitrates, A/V offset and histograms of queueing and sending (ms),
        without secrets."""
        return {
            "name": output_name(self._url), "number": self._number, **asdict(self.state),
            **self._link.facts(), **self.tally.facts(),
        }  # fmt: skip

    def close(self, timeout_s: float = 1.0) -> None:
        """Send the queued packets and end, within about `timeout_s` seconds."""
        self.begin_close(time.monotonic() + timeout_s)
        self.wait_closed()

    def begin_close(self, deadline: float) -> None:
        """Refuse further packets and end by the deadline (s, `time.monotonic`); never block."""
        with self._lock:
            self._deadline = deadline if self._deadline is None else self._deadline
        self._closing.set()

    def wait_closed(self) -> None:
        """Wait for the end after `begin_close`, until the deadline."""
        if self._deadline is not None and self._thread.ident is not None:
            self._thread.join(max(0.0, self._deadline - time.monotonic()) + _KILL_S)

    def _run(self) -> None:
        probation, pauses, end = self._probation, Pauses(self._settings), None
        while self._deadline is None:
            why = mask_secrets(self._run_session(), self._url)
            why = probation.end_session(why, self._state.open_s)
            if self._deadline is not None:
                end = why if probation.is_refused else None
                break
            if (end := self._final_reason(why)) is not None:
                break
            pause = pauses.after(self._state.open_s, probation.is_refused, self.was_open)
            self._begin_retry(why)
            self._closing.wait(pause)
        self._session.kill()
        with self._lock:
            self._queue.clear()
            self._deadline = self._deadline or 0.0  # refuse all later packets
        self._set_state("closed", end)

    def _run_session(self) -> str:
        """Run one session; return the reason for its end, which may contain secrets."""
        session, probation = self._session, self._probation
        try:
            session.begin()
            while True:
                session.poll(_POLL_MS, len(self._queue), self._take, probation.sent)
                if session.is_open and self._state.state != "open":
                    self._opened()
                if probation.is_passed(self._state.open_s):
                    self._accepted()
                self._measure(session)
                why = session.fault()
                if why or self._should_stop(session):
                    return why
        except Exception as exc:  # a bug must not end the output for good either
            what = "cannot start a process" if isinstance(exc, OSError) else type(exc).__name__
            return f"{what}: {reason(exc)}"
        finally:
            self._end_session(session)

    def _take(self) -> Record | None:
        with self._lock:
            return self._queue.take()

    def _measure(self, session: Session) -> None:
        """Measure the throughput, adapt the bitrate, log skipped frames and a full disk."""
        with self._lock:
            oldest = session.oldest or self._queue.oldest
            sent, skips = self._state.bytes + session.bytes, self._queue.skips
            backlog = self._queue.bytes + session.bytes_in_flight
        at = now()
        oldest_wait_s = at - oldest.queued_at if oldest is not None and session.is_open else 0.0
        self._link.sample(at, oldest_wait_s, backlog, sent, self._audio_bytes)
        if skips > self._logged_skips and not session.is_full:
            self._link.log_skip()
        self._logged_skips = skips
        if session.is_full != self._is_disk_full:
            self._set_disk_full(session.is_full)

    def _set_disk_full(self, full: bool) -> None:
        """Record and log that the disk is full, or has free space again."""
        self._is_disk_full = full
        with self._lock:
            self._state = replace(self._state, trouble=DISK_FULL if full else "")
        words = f"{DISK_FULL}; waiting for free space" if full else "the disk has free space again"
        log.log(logging.ERROR if full else logging.INFO, "%s: %s", self.name, words)

    def _should_stop(self, session: Session) -> bool:
        """While closing, finish a session with nothing left; return whether to stop now."""
        if self._deadline is None:
            return False
        if session.is_open and not session.has_data(len(self._queue)):
            session.finish()
        return time.monotonic() >= self._deadline or (self._reasons.has_any and not session.is_open)

    def _end_session(self, session: Session) -> None:
        """End a session and add its counts to the totals."""
        session.end_attempt()  # outside the lock, which `offer` needs
        with self._lock:
            self._queue.end_session()
            for record in session.records_in_flight():
                self.tally.dropped(record)
            self._state = after_session(self._state, session)
            session.reset()

    def _final_reason(self, why: str) -> str | None:
        """Return, and log, why no other session can work; None if one can."""
        if self.was_open and self._kind == "pipe":  # a new session cannot resume it
            why = explain_pipe_end(why)
            log.warning("%s: %s", self.name, why)
            return why
        if self.was_open or not self._session.is_hopeless:
            return None
        log.error("%s: %s; not retrying", self.name, why)
        return why

    def _opened(self) -> None:
        with self._lock:
            self._queue.begin_session()
        self._set_state("open")
        self._link.restart(now())
        if not self._probation.refusals:
            self._announce()
        if not self._probation.is_pending:
            self._probation.accept()

    def _accepted(self) -> None:
        """Accept a session that the server has not ended at once."""
        if self._probation.refusals:
            self._announce()
        self._probation.accept()

    def _announce(self) -> None:
        """Count and log that the output is open; an outage ends."""
        if self.was_open:
            with self._lock:
                self._state = replace(self._state, reconnects=self._state.reconnects + 1)
        event = "reconnected" if self.was_open else "connected"
        self._reasons.clear()
        file = self._session.file
        what = event if file in ("", absolute_path(self._url)) else f"{event}, writing {file}"
        log.info("%s: %s", self.name, what)

    def _begin_retry(self, why: str) -> None:
        why = with_hint(why, "" if self.was_open else self._url)
        self._set_state("retrying", why)
        tries = retry_words(self._reasons.has_any, self._probation.is_refused)
        level = logging.WARNING if self._reasons.add(why) else logging.DEBUG
        log.log(level, "%s: %s; %s", self.name, why, tries)

    def _set_state(self, state: State, error: str | None = None) -> None:
        with self._lock:
            last = self._state.last_error if error is None else error
            same = state == self._state.state
            since = self._state.since if same else time.monotonic()
            self._state = replace(self._state, state=state, since=since, last_error=last)
