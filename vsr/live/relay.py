"""One live stream, upscaled and published: in time, and without ever going dark.

Three threads: ingest reads and decodes, this one's caller chooses a rung and enlarges, `publish`
encodes once and offers every packet to every output. When no picture comes, the last one goes out
again, so that the output's session, its viewers and its clock go on.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

from vsr.errors import InputError, InterruptedRunError, OutputError
from vsr.frame import Frame, Planes, Stamps, now
from vsr.live import status_snapshot
from vsr.live.audio import Sound
from vsr.live.clock import OutputClock
from vsr.live.ingest import Ingest
from vsr.live.ladder import DROP, Ladder, LadderSettings
from vsr.live.mailbox import Connected, Heard, Lost, Mailbox
from vsr.live.pool import Pool
from vsr.live.publish import TIME_BASE, Publisher, check_encoder
from vsr.live.rolling import RollingLedger
from vsr.live.rung_models import Stage, Wanted, default_ladder
from vsr.live.rungs import FALLBACK
from vsr.live.settings import Named, RelaySettings, check_ingest, check_urls
from vsr.live.slate import Slate
from vsr.live.status_board import StatusBoard
from vsr.location import shown
from vsr.report import Report

log = logging.getLogger(__name__)

_FILL_AFTER: Final = 0.5
"""Seconds without a picture after which the last one is shown again."""
_QUIET: Final = 0.6
"""Seconds without sound after which there is silence."""
_POLL: Final = 0.05
_TELL_AGAIN: Final = 60.0
"""Seconds after which the same trouble is worth another line."""


class Relay:
    """One relay, from checked settings to the end of its source. Make one per run."""

    def __init__(
        self,
        input_: str,
        outputs: Sequence[str],
        settings: RelaySettings,
        pool: Pool | None = None,
    ) -> None:
        """`pool` is what relays of one process share.

        Raises UsageError or InputError for what can be seen to be wrong before anything is opened.
        """
        check_urls(input_, outputs)
        check_ingest(input_, settings.ingest)
        check_encoder(settings.encoder)
        self._outputs, self._settings = list(outputs), settings
        self._log = Named(log, {"name": settings.name})
        self._pool = pool or Pool()
        self._slate = Slate(settings.slate_after, settings.slate)
        self._name = shown(input_)
        listens = settings.ingest.listen
        self._next = "waiting for a publisher" if listens else "trying again"
        self._mailbox = Mailbox(frames=64)
        self._ingest = Ingest(input_, settings.ingest, self._mailbox)
        self._last: Planes | None = None
        self._away = False
        self._sound: Sound | None = None
        self._heard_at = 0.0
        self._told = ("", 0.0)
        self._ladder: Ladder | None = None
        self.report = Report(
            input={"name": self._name},
            output={"name": ", ".join(map(shown, outputs))},
            deadline=settings.max_latency,
        )
        self._ledger = RollingLedger(
            settings.rolling, 1000 * settings.max_latency, self.report.facts_of
        )
        self.report.ledger = self._ledger
        self.sessions = self.repeated = self.dropped = 0
        self.board = StatusBoard(self._name, settings.max_latency)
        self._shifts: list[float | None] = [None, None]
        self.begun = False
        """Whether there is anything to report."""

    def run(self, stop: threading.Event) -> Report:
        """Relay until the source is given up or `stop` is set. Raises VsrError.

        `report` holds what was done however it ends.
        """
        self._stop, settings = stop, self._settings
        lighter = settings.ladder or tuple(default_ladder(settings.model, settings.scale)[1:])
        wanted = Wanted(
            names=(settings.model, *lighter), scale=settings.scale, precision=settings.precision,
            backend=settings.backend, device=settings.device,
        )  # fmt: skip
        self._pool.find(wanted)  # what is wrong with it is said before anything is waited for
        self._ingest.start()
        try:
            first = self._first_session()
            stage = Stage(size=(first.info.width, first.info.height), colour=first.info.colour)
            self._rungs = self._pool.rungs(wanted, stage, stop.is_set)
            self._slate.fit(self._rungs.out_size, stage.colour)
            if stop.is_set():
                raise InterruptedRunError("stopped before anything was published")
            self._go_live(first)
            try:
                self._loop()
            finally:
                self._ingest.close()
                self._publisher.close()
                self._conclude()
            self._check_published()
        except InterruptedRunError as exc:
            self._log.info("%s", exc)
            self.report.interrupted = self.begun = True
        finally:
            self._ingest.close()
        return self.report

    def _first_session(self) -> Connected:
        """Wait for the source, which says what everything else must be like."""
        while not self._stop.is_set():
            item = self._mailbox.take(_POLL)
            if isinstance(item, Connected):
                return item
            if isinstance(item, Lost):
                if item.final:
                    raise InputError(item.reason)
                self._tell(f"{item.reason}; {self._next}")
        raise InterruptedRunError("stopped before the source was there; nothing was published")

    def _tell(self, words: str) -> None:
        """Warn, but of the same trouble not again and again."""
        before, at = self._told
        if words != before or now() - at > _TELL_AGAIN:
            self._log.warning("%s", words)
            self._told = words, now()

    def _go_live(self, first: Connected) -> None:
        info = first.info
        self._interval = float(1 / info.rate)
        self._clock = OutputClock(self._interval)
        self._sound = Sound(first.sound) if first.sound else None
        context = self._sound.context if self._sound else None
        self._publisher = Publisher(
            self._outputs, self._settings.encoder, info, self._rungs.out_size, context,
            self._ledger, self.board, self._stop.is_set,
        )  # fmt: skip
        names, costs = self._rungs.names, self._rungs.costs
        self._renewed, self._costs = self._rungs.renewed, costs
        times = LadderSettings(interval=self._interval, max_latency=self._settings.max_latency)
        self._ladder = Ladder(costs, times, now())
        self._rung = self._ladder.rung
        size = [info.width, info.height]
        self.report.input |= {"size": size, "rate": str(info.rate), "codec": first.codec}
        self.report.output |= {"size": list(self._rungs.out_size), "rungs": names}
        rungs = zip(names, costs, strict=True)
        self._log.info(
            "live: %s, %dx%d at %.5g fps, by %s; rungs: %s",
            self._name, *size, info.rate, names[self._rung],
            ", ".join(f"{name} {1000 * cost:.1f} ms" for name, cost in rungs),
        )  # fmt: skip
        self.board.go_live(
            status_snapshot.Stage(
                source=self.report.input,
                output=self.report.output,
                rungs=names,
                colour=first.info.colour,
            ),
            self.figures,
        )
        self._began = now()
        self.begun = True
        self._due = self._began + _FILL_AFTER
        self._ingest.go()

    def _loop(self) -> None:
        """Until the source is given up or `stop` is set."""
        while not self._stop.is_set():
            item = self._mailbox.take(min(_POLL, max(0.0, self._due - now())))
            if isinstance(item, Frame):
                self._picture(item)
            elif isinstance(item, Heard):
                self._hear(item)
            elif isinstance(item, Connected):
                self._connected(item)
            elif isinstance(item, Lost):
                if item.final:
                    self._end(item)
                    return
                self._lost(item)
            while self._mailbox.dropped:
                self._drop(self._mailbox.dropped.popleft())
            if now() >= self._due:
                self._fill()

    def _picture(self, frame: Frame) -> None:
        arrived = frame.stamps.read
        if self._last is None and arrived < self._began:
            return  # it waited for the engines: live begins with what comes now
        assert self._ladder is not None
        if self._clock.skips(arrived):
            self._drop(frame)
            self._due = now() + _FILL_AFTER  # there is a picture: it is only too old
            return
        if self._publisher.tail is not None:
            self._ladder.followed(self._publisher.tail)
        if self._renewed != self._rungs.renewed:
            self._learn_costs()
        rung = self._ladder.choose(now(), arrived, self._mailbox.waiting)
        if rung == DROP:
            self._drop(frame)
            return
        self._change_to(self._ladder.rung)
        began = now()
        done = self._rungs.enlarge(frame, rung)
        if done.event != FALLBACK:
            self._ladder.done(rung, now() - began)
        elif self._rungs.is_lost(rung):
            self._ladder.give_up(rung)
        self._last = done.planes
        self._slate.end()
        time = self._clock.picture(frame.time, arrived)
        self._shifts[0] = time - frame.time
        self.board.pictures(frame.planes, done.planes)
        self._publisher.show(self._numbered(done, time), time)
        self._due = now() + max(_FILL_AFTER, 3 * self._interval)
        self._quieten(time)

    def _learn_costs(self) -> None:
        """Engines that were built meanwhile have taken the place of slower ones."""
        assert self._ladder is not None
        self._renewed = self._rungs.renewed
        costs = self._rungs.costs
        for rung in reversed(range(len(costs))):
            if costs[rung] != self._costs[rung]:
                self._ladder.learn(rung, costs[rung], now())
        self._costs = costs

    def _numbered(self, frame: Frame, time: float) -> Frame:
        """The frame as a row of the ledger: counted through all sessions, at the output's time."""
        index, self.report.frames_in = self.report.frames_in, self.report.frames_in + 1
        pts = round(max(0.0, time) * TIME_BASE.denominator)
        return replace(frame, index=index, pts=pts, time_base=TIME_BASE)

    def _change_to(self, rung: int) -> None:
        if rung != self._rung:
            self._log.info(
                "now by %s instead of %s", *(self._rungs.names[k] for k in (rung, self._rung))
            )
            self._rung = rung

    def _drop(self, frame: Frame) -> None:
        """Even bicubic would have been late, or what stood in for it has had its time."""
        if self._last is None and frame.stamps.read < self._began:
            return
        self.dropped += 1
        self._tell("even bicubic is late: pictures are dropped")
        frame.event = "dropped"
        self._publisher.note(self._numbered(frame, self._clock.last))

    def _hear(self, heard: Heard) -> None:
        time = self._clock.sound(heard.time)
        if self._sound is None or time is None:
            return
        self._shifts[1] = time - heard.time
        for packet in self._sound.send(heard.packet, time):
            self._heard_at = now()  # not before: what gives no sound leaves silence
            self._publisher.sound(packet)

    def _quieten(self, end: float) -> None:
        """Silence where sound should be."""
        if self._sound and now() - self._heard_at > _QUIET:
            for packet in self._sound.silence(end):
                self._publisher.sound(packet)

    def _connected(self, item: Connected) -> None:
        self._shifts = [None, None]
        self.sessions += 1
        level = logging.INFO if self._away else logging.DEBUG
        self._away = False
        self._clock.end_session()
        if self._sound:
            self._sound.begin(item.sound)
        elif item.sound:
            self._tell(f"{self._name} has sound now; the output began without and stays so")
        self._log.log(level, "%s is back", self._name)

    def _lost(self, item: Lost) -> None:
        self.report.lost += item.missing
        self._clock.end_session()
        self._due = min(self._due, now() + self._interval)
        if self._settings.ingest.loop and not item.failed:
            return  # it begins again as it was asked to
        if not self._away:  # of all the attempts that fail, nobody wants to read
            self._log.warning("%s; the last picture stays, %s", item.reason, self._next)
        self._away = True

    def _end(self, item: Lost) -> None:
        if item.failed:
            raise InputError(item.reason)
        self._log.info("%s", item.reason)
        if item.missing:
            self.report.losses.append(item.reason)
            self.report.lost += item.missing

    def _fill(self) -> None:
        """The last picture again, or the slate, with silence."""
        wall = now()
        self._due = max(self._due + self._interval, wall - self._interval)
        if self._last is None:
            return
        time = self._clock.filler(wall)
        frame = Frame(
            planes=self._slate.show(self._last, wall), index=-1, pts=0, time_base=Fraction(1),
            duration=0,
            stamps=Stamps(read=wall, decoded=wall, infer_start=wall, infer_end=wall),
            event="repeated",
        )  # fmt: skip
        self.repeated += 1
        self._publisher.show(frame, time)
        self._quieten(time)

    def _conclude(self) -> None:
        report = self.report
        report.seconds = now() - self._began
        report.frames_out = self._publisher.shown
        report.lost += self.dropped
        report.concealed = self._ledger.count_events("concealed")
        report.interrupted = self._stop.is_set()
        report.live = self.figures()
        if report.degraded:
            self._log.warning(
                "%d pictures did not go out, %d were damaged",
                max(report.lost, report.frames_in - report.frames_out), report.concealed,
            )  # fmt: skip
        self._ledger.close()

    def _check_published(self) -> None:
        """Raises OutputError when everything was in vain."""
        if not (self._publisher.was_open or self._stop.is_set()):
            reasons = [state["last_error"] for state in self._publisher.states()]
            why = next(filter(None, reasons), "no output was open in time")
            raise OutputError(f"nothing was published: {why}")

    def figures(self) -> dict[str, Any]:
        """What a report ends with; of a relay that has gone live."""
        assert self._ladder is not None
        repairs = self._clock.repairs
        return {
            "rung": self._rungs.names[self._rung],
            "rung_changes": self._ladder.changes,
            "sessions": self.sessions + 1,
            "repeated": self.repeated,
            "dropped": self.dropped,
            "skipped": repairs.skipped,
            "jumps": repairs.jumps + self._ingest.jumps,
            "nudged": repairs.nudged,
            "outputs": self._publisher.states(),
            "waiting": self._mailbox.waiting,
            "encoding": self._publisher.waiting,
            "av_offset_ms": self._offset_ms(),
        }

    def _offset_ms(self) -> float | None:
        """By how much pictures were moved further than their sound."""
        picture, sound = self._shifts
        return None if picture is None or sound is None else round(1000 * (picture - sound), 3)
