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
from vsr.live.common import POLL_S, RelayLog
from vsr.live.input.mailbox import AudioPacket, Connected, Lost, Mailbox, RateMeasured, SourceNotice
from vsr.live.ladder.live_upscaler import LiveUpscaler
from vsr.live.ladder.rungs import Rungs
from vsr.live.output.encode import AudioItem, LiveEncoder
from vsr.live.output.encoding import TIME_BASE
from vsr.live.output.spares import Spares
from vsr.live.playout_audio import PlayoutAudio
from vsr.live.settings import RelaySettings
from vsr.live.slate import Slate
from vsr.live.status.board import StatusBoard
from vsr.live.troubles import Troubles
from vsr.media.frame import Frame, Planes, Stamps, now
from vsr.report.ledger import Row
from vsr.report.report import Report

_CONNECT_WAIT_S: Final = 5.0
"""Longest wait for outputs to connect before a paced input begins, in seconds."""
_QUEUE_FULL: Final = "input queue is full"
_REPEAT_AFTER_S: Final = 0.5
"""Time without a frame after which the last one is repeated, in seconds."""


class Playout:
    """Joins clock, ladder, audio, encoder and outputs of a live relay. Use from one thread."""

    def __init__(
        self, outputs: Sequence[str], settings: RelaySettings, first: Connected, *, rungs: Rungs,
        mailbox: Mailbox, slate: Slate, report: Report, board: StatusBoard, log: RelayLog,
        stop: threading.Event, spares: Spares | None = None,
    ) -> None:  # fmt: skip
        """Connect to the outputs, for a source whose first session is `first`.

        `report` records the input, its ledger and `board` record every frame, `log` gets
        changes. Raises UsageError or OutputError.
        """
        self._settings, self._mailbox, self._slate = settings, mailbox, slate
        self._report, self._board, self._log, self._stop = report, board, log, stop
        self._troubles = Troubles(log)
        self._name, self._info = report.input["name"], first.info
        self._interval = float(1 / first.info.rate)
        self._clock = OutputClock(self._interval)
        self._audio = PlayoutAudio(self._clock, first.audio, self._warn)
        self._encoder = LiveEncoder(
            outputs, settings.encoder, first.info, rungs.out_size, self._audio.context,
            self._record, stop.is_set, settings.output, spares,
        )  # fmt: skip
        self._upscaler = LiveUpscaler(rungs, settings, self._interval, report, log)
        self._last: Planes | None = None
        self._is_source_lost = False
        self._sessions, self._repeated, self._dropped, self._audio_dropped = 1, 0, 0, 0
        self._add_notes(first.notes)
        mailbox.reset_counters()
        self._began = now()
        self._repeat_at = self._began + _REPEAT_AFTER_S

    @property
    def rung(self) -> str:
        """Name of the network in use."""
        return self._upscaler.network

    @property
    def is_hopeless(self) -> bool:
        """Whether all outputs were given up and none was ever open."""
        return self._encoder.is_over and not self._encoder.was_open

    def run(self, on_ready: Callable[[], None]) -> None:
        """Play out until the source has ended for good or `stop` is set.

        `on_ready` is called once, when all outputs have connected or failed and one is open, or
        after `_CONNECT_WAIT_S`.

        Raises InputError if the source could not be read, and the errors of publishing and
        upscaling.
        """
        ready = False
        while not self._stop.is_set() and not self._encoder.is_over:
            if not ready and (self._encoder.is_ready or now() > self._began + _CONNECT_WAIT_S):
                ready = True
                on_ready()
            item = self._mailbox.take(min(POLL_S, max(0.0, self._repeat_at - now())))
            if isinstance(item, Frame):
                self._process_frame(item)
            elif isinstance(item, AudioPacket):
                self._send_audio(self._audio.add(item))
            elif isinstance(item, Connected):
                self._start_session(item)
            elif isinstance(item, RateMeasured):
                self._set_rate(item.rate)
            elif isinstance(item, SourceNotice):
                self._troubles.add(f"{self._name} {item.message}", item.kind)
            elif isinstance(item, Lost):
                if item.final:
                    self._finish(item)
                    break
                self._end_session(item)
            if self._mailbox.audio_dropped > self._audio_dropped:
                self._audio_dropped = self._mailbox.audio_dropped
                self._warn("audio dropped: input queue is full", "audio queue")
            while self._mailbox.dropped:
                self._drop(self._mailbox.dropped.popleft(), _QUEUE_FULL)
            if now() >= self._repeat_at:
                self._repeat_frame()
        self._send_audio(self._audio.finish())

    def _process_frame(self, frame: Frame) -> None:
        arrived = frame.stamps.read
        if self._last is None and self._mailbox.frames_waiting:
            return  # queued while engines loaded: begin with the newest
        if self._clock.must_skip(arrived):
            self._drop(frame, "too old, they arrived in a burst after a pause")
            self._repeat_at = now() + _REPEAT_AFTER_S  # frames do arrive, only too old ones
            return
        waiting, encode_s = self._mailbox.frames_waiting, self._encoder.encode_s
        done = self._upscaler.upscale(frame, waiting, encode_s)
        if done is None:
            self._drop(frame, "they were too late, even for bicubic")
            return
        if self._last is None:
            self._began = now()
            self._audio.drop_before(frame.time)
        self._last = done.planes
        self._slate.end()
        time = self._clock.place_frame(frame.time, arrived)
        self._board.set_images(frame.planes, done.planes)
        origin = self._clock.unique_time(frame.time)
        self._encoder.send_frame(self._with_index(done, time), time, origin)
        self._repeat_at = now() + max(_REPEAT_AFTER_S, 3 * self._interval)
        self._send_audio(self._audio.fill_to(time))
        self._upscaler.try_better_network(frame, self._mailbox.frames_waiting)

    def _record(self, frame: Frame) -> None:
        """Record a frame on the status board and, unless it is repeated, in the ledger."""
        row = Row.of(frame)
        self._board.add_frame(row)
        if frame.event != "repeated":
            self._report.ledger.add(row)

    def _with_index(self, frame: Frame, time: float) -> Frame:
        """Return a frame with an index that counts across sessions, and its output time."""
        index, self._report.frames_in = self._report.frames_in, self._report.frames_in + 1
        pts = round(max(0.0, time) * TIME_BASE.denominator)
        return replace(frame, index=index, pts=pts, time_base=TIME_BASE)

    def _drop(self, frame: Frame, why: str) -> None:
        """Drop a frame; log and count the reason, which is the encoder if that is too slow."""
        if self._last is None and frame.stamps.read < self._began:
            return
        self._dropped += 1
        self._count_dropped(why)
        frame.event = "dropped"
        self._encoder.report_not_shown(self._with_index(frame, self._clock.last))

    def _count_dropped(self, why: str, frames: int = 1) -> None:
        took = self._encoder.frame_s
        if took > self._interval:
            why = (
                f"the encoder takes {1000 * took:.1f} ms per frame, the frame interval is "
                f"{1000 * self._interval:.1f} ms: use a faster --preset or codec"
            )
        self._troubles.add_dropped(why, "encoder" if took > self._interval else why, frames)

    def _send_audio(self, packets: Iterable[AudioItem]) -> None:
        for heard in packets:
            self._encoder.send_audio(heard)

    def _start_session(self, item: Connected) -> None:
        self._sessions += 1
        self._set_rate(item.info.rate)
        self._add_notes(item.notes)
        level = logging.INFO if self._is_source_lost else logging.DEBUG
        self._is_source_lost = False
        self._clock.end_session()
        self._audio.start_session(item.audio)
        self._log.log(level, "%s: source reconnected", self._name)

    def _set_rate(self, rate: Fraction) -> None:
        """Adopt a session's frame rate for repeated frames and the ladder."""
        self._interval = self._clock.interval = float(1 / rate)
        self._upscaler.set_interval(self._interval)

    def _warn(self, message: str, kind: str) -> None:
        """Count a trouble with the source's audio, and log it at most once a minute per kind."""
        self._troubles.add(f"{self._name}: {message}", kind)

    def _add_notes(self, notes: Sequence[str]) -> None:
        """Log and report, once each, notes on what is lost or changed in the source's frames."""
        for note in notes:
            message = f"{self._name}: {note}"
            if message not in self._report.notes:
                self._report.notes.append(message)
                self._log.warning("%s", message)

    def _end_session(self, item: Lost) -> None:
        self._report.lost += item.missing
        self._clock.end_session()
        self._audio.end_session()
        self._repeat_at = min(self._repeat_at, now() + self._interval)
        if self._settings.ingest.loop and not item.failed:
            return  # it restarts as configured
        if not self._is_source_lost:  # one warning for a series of failed attempts
            self._log.warning(
                "%s; repeating the last frame, %s", item.reason, self._settings.ingest.after_loss
            )
        self._is_source_lost = True

    def _finish(self, item: Lost) -> None:
        if item.failed:
            raise InputError(item.reason)
        self._log.info("%s", item.reason)
        if item.missing:
            self._report.losses.append(item.reason)
            self._report.lost += item.missing

    def _repeat_frame(self) -> None:
        """Send the last frame again, or the slate, with silence."""
        wall = now()
        self._repeat_at = max(self._repeat_at + self._interval, wall - self._interval)
        if self._last is None:
            return
        time = self._clock.place_repeat(wall)
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
        self._send_audio(self._audio.fill_to(time))

    def close(self) -> None:
        """End every output's session and complete the report, within about 1.4 s."""
        self._encoder.close()
        report = self._report
        report.seconds = now() - self._began
        self._count_dropped(_QUEUE_FULL, self._mailbox.dropped_unlisted)
        report.notes += self._troubles.notes()
        counts = {
            "audio packets dropped": self.figures()["sound_dropped"],
            "frames had another size and were resized": report.ledger.count_events("resized"),
        }
        report.notes += [f"{number} {what}" for what, number in counts.items() if number]
        report.frames_in += self._mailbox.dropped_unlisted
        report.frames_out = self._encoder.sent
        report.lost += self._dropped + self._mailbox.dropped_unlisted
        report.packets_refused = self._mailbox.audio_dropped
        report.unsent = max(state["pictures_dropped"] for state in self._encoder.states())

    def check_published(self) -> None:
        """Raise OutputError if no output was ever open."""
        if not self._encoder.was_open:
            reasons = [state["last_error"] for state in self._encoder.states()]
            why = next(filter(None, reasons), "no output connected in time")
            raise OutputError(f"nothing was published: {why}")

    def figures(self) -> dict[str, Any]:
        """Return the statistics of the report's `live` entry."""
        repairs, outputs = self._clock.corrections, self._encoder.states()
        measured = (output["av_offset_ms"] for output in outputs)
        sound = self._audio.figures()
        sound["sound_dropped"] += self._mailbox.audio_dropped
        return sound | {
            "rung": self.rung,
            "rung_changes": self._upscaler.changes,
            "sessions": self._sessions,
            "repeated": self._repeated,
            "dropped": self._dropped + self._mailbox.dropped_unlisted,
            "showing": self._slate.showing,
            "slate_s": round(self._slate.seconds, 3),
            "skipped": repairs.skipped,
            "jumps": repairs.jumps,
            "nudged": repairs.nudged,
            "outputs": outputs,
            "waiting": self._mailbox.frames_waiting,
            "encoding": self._encoder.waiting,
            "av_offset_ms": next((ms for ms in measured if ms is not None), None),
        }
