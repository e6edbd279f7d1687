"""Feeds the outputs continuously, whether or not the source delivers.

Each frame is upscaled by a rung that is fast enough for it, and sent at its output time. When no
frame arrives, the last one is sent again, with silence, to keep the output's session alive.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

from vsr.errors import InputError, OutputError
from vsr.live.clock import OutputClock
from vsr.live.common import POLL, RelayLog
from vsr.live.input.mailbox import Connected, Lost, Mailbox, Measured, Said, SoundPacket
from vsr.live.ladder.controller import DROP, Ladder, LadderSettings
from vsr.live.ladder.rungs import FALLBACK, Rungs
from vsr.live.output.encode import AudioItem, LiveEncoder
from vsr.live.output.encoding import TIME_BASE
from vsr.live.output.spares import Spares
from vsr.live.playout_audio import PlayoutAudio
from vsr.live.settings import RelaySettings
from vsr.live.slate import Slate
from vsr.live.status.board import StatusBoard
from vsr.media.frame import Frame, Planes, Stamps, now
from vsr.report.ledger import Row
from vsr.report.report import Report

_CONNECT_S: Final = 5.0
"""Longest wait for outputs to connect before a paced input begins, in seconds."""
_FILL_AFTER: Final = 0.5
"""Time without a frame after which the last one is repeated, in seconds."""


class Playout:
    """Joins clock, ladder, audio, encoder and outputs of a live relay. Use from one thread."""

    def __init__(
        self, outputs: Sequence[str], settings: RelaySettings, first: Connected, *, rungs: Rungs,
        mailbox: Mailbox, slate: Slate, report: Report, board: StatusBoard, words: RelayLog,
        stop: threading.Event, spares: Spares | None = None,
    ) -> None:  # fmt: skip
        """Connect to the outputs, for a source whose first session is `first`.

        `report` records the input, its ledger and `board` record every frame, `words` logs
        changes. Raises UsageError or OutputError.
        """
        self._settings, self._mailbox, self._slate = settings, mailbox, slate
        self._report, self._board, self._log, self._stop = report, board, words, stop
        self._name = report.input["name"]
        self._info = info = first.info
        self._interval = float(1 / info.rate)
        self._clock = OutputClock(self._interval)
        self._audio = PlayoutAudio(self._clock, first.sound, self._warn)
        self._encoder = LiveEncoder(
            outputs, settings.encoder, info, rungs.out_size, self._audio.context,
            self._record, stop.is_set, settings.output, spares,
        )  # fmt: skip
        self._rungs, self._rungs_version, self._costs = rungs, rungs.version, rungs.costs
        times = LadderSettings(interval=self._interval, max_latency=settings.max_latency)
        self._ladder = Ladder(self._costs, times, now())
        self._rung = self._ladder.rung
        self._last: Planes | None = None
        self._away = False
        self._sessions, self._repeated, self._dropped, self._sounds_dropped = 1, 0, 0, 0
        self._say(first.notes)
        mailbox.begin()
        self._began = now()
        self._due = self._began + _FILL_AFTER

    @property
    def rung(self) -> str:
        """Name of the network in use."""
        return self._rungs.names[self._rung]

    def run(self, on_ready: Callable[[], None]) -> None:
        """Play out until the source has ended for good or `stop` is set.

        `on_ready` is called once, when outputs have connected or failed, or after `_CONNECT_S`.

        Raises InputError if the source could not be read, and the errors of publishing and
        upscaling.
        """
        ready = False
        while not self._stop.is_set() and not self._encoder.is_over:
            if not ready and (self._encoder.is_ready or now() > self._began + _CONNECT_S):
                ready = True
                on_ready()
            item = self._mailbox.take(min(POLL, max(0.0, self._due - now())))
            if isinstance(item, Frame):
                self._picture(item)
            elif isinstance(item, SoundPacket):
                self._send_sound(self._audio.take(item))
            elif isinstance(item, Connected):
                self._connected(item)
            elif isinstance(item, Measured):
                self._take_rate(item.rate)
            elif isinstance(item, Said):
                self._log.warn_rarely(f"{self._name} {item.words}", item.kind)
            elif isinstance(item, Lost):
                if item.final:
                    self._end(item)
                    break
                self._lost(item)
            if self._mailbox.sounds_dropped > self._sounds_dropped:
                self._sounds_dropped = self._mailbox.sounds_dropped
                self._warn("sound is left out: more comes than can wait", "sound waits")
            while self._mailbox.dropped:
                self._drop(self._mailbox.dropped.popleft(), "more pictures come than can wait")
            if now() >= self._due:
                self._fill()
        self._send_sound(self._audio.finish())

    def _picture(self, frame: Frame) -> None:
        arrived = frame.stamps.read
        if self._last is None and self._mailbox.waiting:
            return  # queued while engines loaded: begin with the newest
        if self._clock.skips(arrived):
            self._drop(frame, "pictures came in a burst after a pause: what is too old is left out")
            self._due = now() + _FILL_AFTER  # frames do arrive, only too old ones
            return
        if self._encoder.encode_s is not None:
            self._ladder.record_encoding(self._encoder.encode_s)
        if self._rungs_version != self._rungs.version:
            self._learn_costs()
        rung = self._ladder.choose(now(), arrived, self._mailbox.waiting)
        if rung == DROP:
            self._drop(frame, "even bicubic is late: pictures are dropped")
            return
        self._change_to(self._ladder.rung)
        began = now()
        done = self._rungs.upscale(frame, rung)
        if done.event != FALLBACK:
            self._ladder.record_cost(rung, now() - began)
        elif self._rungs.is_disabled(rung):
            self._ladder.exclude(rung)
        if self._last is None:
            self._began = now()
            self._audio.forget_before(frame.time)
        self._last = done.planes
        self._slate.end()
        time = self._clock.picture(frame.time, arrived)
        self._board.set_images(frame.planes, done.planes)
        self._encoder.send_frame(self._numbered(done, time), time, self._clock.origin(frame.time))
        self._due = now() + max(_FILL_AFTER, 3 * self._interval)
        self._send_sound(self._audio.fill(time))

    def _record(self, frame: Frame) -> None:
        """Record a frame on the status board and, unless it is repeated, in the ledger."""
        row = Row.of(frame)
        self._board.add_frame(row)
        if frame.event != "repeated":
            self._report.ledger.add(row)

    def _learn_costs(self) -> None:
        """Update the ladder's costs after engines were loaded or replaced. Raises BackendError."""
        self._rungs_version = self._rungs.version
        if self._rungs.failure is not None:
            raise self._rungs.failure
        costs = self._rungs.costs
        for rung in reversed(range(len(costs))):
            if costs[rung] != self._costs[rung]:
                self._ladder.set_cost(rung, costs[rung], now())
        self._costs = costs

    def _numbered(self, frame: Frame, time: float) -> Frame:
        """Return a frame with an index that counts across sessions, and its output time."""
        index, self._report.frames_in = self._report.frames_in, self._report.frames_in + 1
        pts = round(max(0.0, time) * TIME_BASE.denominator)
        return replace(frame, index=index, pts=pts, time_base=TIME_BASE)

    def _change_to(self, rung: int) -> None:
        if rung != self._rung:
            self._log.info(
                "now by %s instead of %s", *(self._rungs.names[k] for k in (rung, self._rung))
            )
            self._rung = rung

    def _drop(self, frame: Frame, why: str) -> None:
        """Drop a frame and log the reason as a warning."""
        if self._last is None and frame.stamps.read < self._began:
            return
        self._dropped += 1
        self._log.warn_rarely(why)
        frame.event = "dropped"
        self._encoder.report_not_shown(self._numbered(frame, self._clock.last))

    def _send_sound(self, packets: Iterable[AudioItem]) -> None:
        for heard in packets:
            self._encoder.send_audio(heard)

    def _connected(self, item: Connected) -> None:
        self._sessions += 1
        self._take_rate(item.info.rate)
        self._say(item.notes)
        level = logging.INFO if self._away else logging.DEBUG
        self._away = False
        self._clock.end_session()
        self._audio.begin(item.sound)
        self._log.log(level, "%s is back", self._name)

    def _take_rate(self, rate: Fraction) -> None:
        """Adopt a session's frame rate for repeated frames and the ladder."""
        self._interval = self._clock.interval = float(1 / rate)
        self._ladder.settings = replace(self._ladder.settings, interval=self._interval)

    def _warn(self, words: str, kind: str) -> None:
        """Log a warning about the source's audio, at most once a minute per kind."""
        self._log.warn_rarely(f"{self._name}: {words}", kind)

    def _say(self, notes: Sequence[str]) -> None:
        """Log and report, once each, notes on what is lost or changed in the source's frames."""
        for note in notes:
            words = f"{self._name}: {note}"
            if words not in self._report.notes:
                self._report.notes.append(words)
                self._log.warning("%s", words)

    def _lost(self, item: Lost) -> None:
        self._report.lost += item.missing
        self._clock.end_session()
        self._audio.lose()
        self._due = min(self._due, now() + self._interval)
        if self._settings.ingest.loop and not item.failed:
            return  # it restarts as configured
        if not self._away:  # one warning for a series of failed attempts
            self._log.warning(
                "%s; the last picture stays, %s", item.reason, self._settings.ingest.next
            )
        self._away = True

    def _end(self, item: Lost) -> None:
        if item.failed:
            raise InputError(item.reason)
        self._log.info("%s", item.reason)
        if item.missing:
            self._report.losses.append(item.reason)
            self._report.lost += item.missing

    def _fill(self) -> None:
        """Send the last frame again, or the slate, with silence."""
        wall = now()
        self._due = max(self._due + self._interval, wall - self._interval)
        if self._last is None:
            return
        time = self._clock.filler(wall)
        planes = self._slate.show(self._last, wall)
        self._board.set_images(None, planes)
        frame = Frame(
            planes=planes, index=-1, pts=0, time_base=Fraction(1),
            duration=0, format=self._info.planes, colour=self._info.colour,
            stamps=Stamps(read=wall, decoded=wall, infer_start=wall, infer_end=wall),
            event="repeated",
        )  # fmt: skip
        self._repeated += 1
        self._encoder.send_frame(frame, time)
        self._send_sound(self._audio.fill(time))

    def close(self) -> None:
        """End every output's session and complete the report, within about 1.4 s."""
        self._encoder.close()
        report = self._report
        report.seconds = now() - self._began
        report.frames_in += self._mailbox.unnamed
        report.frames_out = self._encoder.sent
        report.lost += self._dropped + self._mailbox.unnamed
        report.packets_refused = self._mailbox.sounds_dropped
        report.unsent = max(state["pictures_dropped"] for state in self._encoder.states())

    def check_published(self) -> None:
        """Raise OutputError if no output was ever open."""
        if not self._encoder.was_open:
            reasons = [state["last_error"] for state in self._encoder.states()]
            why = next(filter(None, reasons), "no output was open in time")
            raise OutputError(f"nothing was published: {why}")

    def figures(self) -> dict[str, Any]:
        """Return the statistics of the report's `live` entry."""
        repairs, outputs = self._clock.repairs, self._encoder.states()
        measured = (output["av_offset_ms"] for output in outputs)
        sound = self._audio.figures()
        sound["sound_dropped"] += self._mailbox.sounds_dropped
        return sound | {
            "rung": self.rung,
            "rung_changes": self._ladder.changes,
            "sessions": self._sessions,
            "repeated": self._repeated,
            "dropped": self._dropped + self._mailbox.unnamed,
            "showing": self._slate.showing,
            "slate_s": round(self._slate.seconds, 3),
            "skipped": repairs.skipped,
            "jumps": repairs.jumps,
            "nudged": repairs.nudged,
            "outputs": outputs,
            "waiting": self._mailbox.waiting,
            "encoding": self._encoder.waiting,
            "av_offset_ms": next((ms for ms in measured if ms is not None), None),
        }
