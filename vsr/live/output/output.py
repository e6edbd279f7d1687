"""Sends encoded packets to one URL without blocking the caller or another output.

Each output has a process of its own (`vsr.live.output.process`), one thread that feeds and watches
it, and a bounded queue between the caller and that thread. Whatever goes wrong beyond (refused,
cut, stalled, too slow), the process is killed, another is started after a while and goes on at a
key frame; what was offered meanwhile is dropped and counted. Packets travel as they are
(`record.Record`) rather than through a muxer, which would hold them back to interleave them, lose
decoding times and keep the interpreter's lock. For systems with `poll` on pipes: Linux, macOS.
"""

import logging
import select
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any, Final

from vsr.errors import reason
from vsr.live.common import Backoff
from vsr.live.output.delivery import Delivery
from vsr.live.output.plan import OutputStreams, plan
from vsr.live.output.record import Kind, Record
from vsr.live.output.session import Queue, Session
from vsr.live.output.state import OutputState, State
from vsr.live.output.sync import SyncMeter
from vsr.live.settings import OutputSettings
from vsr.media.frame import now
from vsr.media.location import local, masked, shown
from vsr.media.timestamps import Packet
from vsr.report.histogram import Histogram

log = logging.getLogger(__name__)

_LOOK_MS: Final = 10
"""How often the queue is looked at. To be woken by `offer` would be quicker, but would cost it the
interpreter's lock, and milliseconds to get that back on a busy machine."""
_KILL_S: Final = 0.2
"""Longest wait for a killed process to be gone."""


class Output:
    """Sends packets to one URL through a process, which it restarts after failures.

    `offer` is for one thread, everything else for any.
    """

    def __init__(
        self,
        url: str,
        streams: OutputStreams,
        settings: OutputSettings | None = None,
    ) -> None:
        """Raises UsageError for a URL that cannot be published to."""
        self.name = shown(url)
        self._url, self._settings = url, settings or OutputSettings()
        self._lock = threading.Lock()
        waiting = self._settings
        self._queue = Queue(waiting.queue_s, waiting.queue_bytes, waiting.fresh_s, self._dropped)
        self._pictures = [0, 0]
        """Of the source, sent and dropped."""
        self._times = {"queue_ms": Histogram(), "send_ms": Histogram()}
        """What a picture's packet waited for the muxer, and how long writing it took."""
        self._sync = SyncMeter()
        self._state = OutputState()
        self._session = Session(plan(url, streams, waiting), waiting.stall_s)
        self._was_open = self._is_lost = False
        self._deadline: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"output {self.name}", daemon=True)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def offer(
        self,
        packet: Packet,
        kind: Kind,
        delivery: Delivery | None = None,
        origin: float | None = None,
    ) -> None:
        """Queue a copy of a packet with its times; never waits, drops what cannot be sent.

        `delivery` is told what became of it; `origin` is the source's time (s) of what it holds.
        """
        record = Record.of(packet, kind, delivery, origin)
        if record is None:
            return
        with self._lock:
            if self._deadline is None:
                self._queue.put(record)
            else:
                self._dropped(record)

    def _dropped(self, record: Record) -> None:
        """Count a packet that is not sent; under the lock."""
        if record.delivery is not None:
            self._pictures[1] += record.delivery.counts
            record.delivery.dropped()

    def _sent(self, record: Record, begin: float, end: float, shown: float) -> None:
        """Count a packet that was written, with the times (s, `now`) of its writing and the time
        that it has in the output (s)."""
        with self._lock:
            if record.origin is not None:
                self._sync.add(record.kind, record.origin, shown, end)
            if record.delivery is not None:
                self._pictures[0] += record.delivery.counts
                self._times["queue_ms"].add(1000 * (begin - record.offered))
                self._times["send_ms"].add(1000 * (end - begin))
        if record.delivery is not None:
            record.delivery.sent(end)

    @property
    def wants_key(self) -> bool:
        """Whether it drops packets until the next key frame."""
        return self._state.state != "closed" and self._queue.wants_key

    @property
    def was_open(self) -> bool:
        """Whether it was ever open."""
        return self._was_open

    @property
    def pid(self) -> int | None:
        """PID of the current process; None if there is none."""
        return self._session.pid

    @property
    def state(self) -> OutputState:
        """Current state and counters."""
        with self._lock:
            queue, session, known = self._queue, self._session, self._state
            return replace(
                known,
                dropped=known.dropped + queue.dropped,
                packets=known.packets + session.packets,
                bytes=known.bytes + session.bytes,
                queued=len(queue) + session.under_way,
                queued_s=queue.seconds,
                queued_bytes=queue.bytes,
                pictures=self._pictures[0],
                pictures_dropped=self._pictures[1],
            )

    def facts(self) -> dict[str, Any]:
        """Return name, state, A/V offset and histograms of queueing and sending (ms), without
        secrets."""
        facts = {"name": self.name, **asdict(self.state)}
        with self._lock:
            facts["av_offset_ms"] = self._sync.offset_ms(now())
            facts["av_offset_worst_ms"] = self._sync.worst_ms
            return facts | {name: times.summary() for name, times in self._times.items()}

    def close(self, timeout_s: float = 1.0) -> None:
        """Send what waits and end, within about that time."""
        close_outputs([self], timeout_s)

    def begin_close(self, deadline: float) -> None:
        """Refuse further packets and end by the deadline (s, `time.monotonic`); returns at once."""
        with self._lock:
            if self._deadline is None:
                self._deadline = deadline
        self._closing.set()

    def await_close(self) -> None:
        """Wait until it has ended after `begin_close`."""
        if self._deadline is not None and self._thread.ident is not None:
            self._thread.join(max(0.0, self._deadline - time.monotonic()) + _KILL_S)

    def _run(self) -> None:
        backoff = Backoff(first=self._settings.retry_s, longest=self._settings.retry_max_s)
        failures = 0
        while self._deadline is None:
            why = self._run_session()
            if self._deadline is not None:
                break
            failures = 1 if self._lasted() > backoff.longest else failures + 1
            self._lost(masked(why, self._url))
            self._closing.wait(backoff.pause(failures))
        self._session.end()
        with self._lock:
            self._queue.clear()
        self._change("closed")

    def _run_session(self) -> str:
        """Run one session and return the reason of its end, which may contain secrets."""
        session = self._session
        try:
            session.begin()
            while True:
                self._turn(session)
                if session.is_open and self._state.state != "open":
                    self._opened()
                why = session.fault() or self._lag()
                if why or self._is_over(session):
                    return why
        except OSError as exc:
            return f"cannot run a process: {reason(exc)}"
        finally:
            self._settle(session)

    def _turn(self, session: Session) -> None:
        """Poll the process's pipes once; read its reports and feed it packets."""
        poll = select.poll()
        poll.register(session.stdout, select.POLLIN)
        if session.wants(len(self._queue)):
            poll.register(session.stdin, select.POLLOUT)
        poll.poll(_LOOK_MS)
        session.listen(self._sent)
        session.feed(self._take)

    def _take(self) -> Record | None:
        with self._lock:
            return self._queue.take()

    def _lag(self) -> str:
        if not self._queue.overflown:
            return ""
        return f"the server takes less than is sent: more than {self._settings.queue_s:g} s waited"

    def _is_over(self, session: Session) -> bool:
        """Whether the session has finished closing, or its deadline has passed."""
        if self._deadline is None:
            return False
        if session.is_open and not session.wants(len(self._queue)):
            session.finish()
        return time.monotonic() >= self._deadline or (self._is_lost and not session.is_open)

    def _settle(self, session: Session) -> None:
        """End a session and add its counts to the totals."""
        session.stop()  # not under the lock, which `offer` takes
        with self._lock:
            self._queue.hold()
            for record in session.lost():
                self._dropped(record)
            self._state = replace(
                self._state,
                packets=self._state.packets + session.packets,
                bytes=self._state.bytes + session.bytes,
                dropped=self._state.dropped + session.under_way,
            )
            session.forget()

    def _lasted(self) -> float:
        """Return how long the last session was open (s)."""
        return time.monotonic() - self._state.since if self._state.state == "open" else 0.0

    def _opened(self) -> None:
        with self._lock:
            self._queue.flow()
            if self._was_open:
                self._state = replace(self._state, reconnects=self._state.reconnects + 1)
        self._change("open")
        event = "reconnected" if self._was_open else "connected"
        self._was_open, self._is_lost = True, False
        file = self._session.file
        what = event if file in ("", local(self._url)) else f"{event}, writing {file}"
        log.info("%s: %s", self.name, what)

    def _lost(self, why: str) -> None:
        self._change("retrying", why)
        if self._is_lost:
            log.debug("%s: %s", self.name, why)
            return
        self._is_lost = True
        log.warning("%s: %s; trying again", self.name, why)

    def _change(self, state: State, error: str | None = None) -> None:
        with self._lock:
            last = self._state.last_error if error is None else error
            same = state == self._state.state
            since = self._state.since if same else time.monotonic()
            self._state = replace(self._state, state=state, since=since, last_error=last)


def close_outputs(outputs: Iterable[Output], timeout_s: float = 1.0) -> None:
    """Close several outputs at once, within the time for one."""
    outputs = list(outputs)
    deadline = time.monotonic() + timeout_s
    for output in outputs:
        output.begin_close(deadline)
    for output in outputs:
        output.await_close()
