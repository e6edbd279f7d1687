"""One live stream, upscaled and published: in time, and without ever going dark.

Three threads: ingest reads and decodes, this one's caller chooses a rung and enlarges, `publish`
encodes once and offers every packet to every output. When no picture comes, the last one goes out
again, so that the output's session, its viewers and its clock go on.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final

from vsr.backends import load_backend
from vsr.encoder import EncoderSettings
from vsr.errors import InputError, InterruptedRunError, UsageError
from vsr.frame import Frame, Planes, Stamps, now
from vsr.info import VideoInfo
from vsr.live.audio import Silence, Sound
from vsr.live.clock import OutputClock
from vsr.live.ingest import Connected, Ingest, IngestSettings, Lost, Mailbox
from vsr.live.ladder import DROP, Ladder, LadderSettings
from vsr.live.publish import Publisher
from vsr.live.rungs import Rungs, Stage, default_ladder
from vsr.location import shown
from vsr.models import DEFAULT
from vsr.report import Report
from vsr.source import LiveSource
from vsr.timeline import Packet

log = logging.getLogger(__name__)

_FILL_AFTER: Final = 0.5
"""Seconds without a picture after which the last one is shown again."""
_POLL: Final = 0.05
_SLATE_DIM: Final = 4
"""By how much the last picture is darkened where it stands in for long."""
_BLACK: Final = 16


@dataclass(frozen=True, kw_only=True)
class RelaySettings:
    """What to do; every field is an option of `vsr relay`. Times are seconds."""

    model: str = DEFAULT
    scale: int | None = None
    precision: str = "auto"
    backend: str = "auto"
    device: str | None = None
    ladder: tuple[str, ...] = ()
    """Lighter networks to go down to, best first; none: what is built in."""
    max_latency: float = 0.5
    """From the arrival of a picture's packet to that of its own."""
    slate_after: float = 5.0
    """Without a source for so long, the picture is darkened."""
    ingest: IngestSettings = field(default_factory=IngestSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)


class Relay:
    """One relay, from checked settings to the end of its source or to `stop`. Make one per run."""

    def __init__(
        self, input_: str, outputs: Sequence[str], settings: RelaySettings, stop: threading.Event
    ) -> None:
        if not outputs:
            raise UsageError("give at least one OUTPUT_URL")
        self._input, self._outputs, self._settings = input_, list(outputs), settings
        self._stop = stop
        self._rungs: Rungs | None = None
        self._last: Planes | None = None
        self._last_shown = 0.0
        self._lost_since: float | None = None
        self._sound: Sound | None = None
        self._silence: Silence | None = None
        self._silent_from = 0.0
        self._sound_until = 0.0
        self.report = Report(
            input={"name": shown(input_)},
            output={"name": ", ".join(map(shown, outputs))},
            deadline=settings.max_latency,
        )
        self.sessions = self.repeated = self.dropped = 0

    def run(self) -> Report:
        """Relay until the source is given up or `stop` is set. Raises VsrError."""
        settings = self._settings
        rungs = settings.ladder or tuple(default_ladder(settings.model, settings.scale)[1:])
        backend = load_backend(settings.backend, settings.device, live=True)
        self._mailbox = Mailbox(frames=64)
        ingest = Ingest(self._input, settings.ingest, self._mailbox)
        ingest.start()
        try:
            source = self._first_session()
            info = source.info
            self._rungs = Rungs(
                [settings.model, *rungs], backend,
                Stage(
                    size=(info.width, info.height), colour=info.colour, scale=settings.scale,
                    precision=settings.precision,
                ),
            )  # fmt: skip
            self._go_live(source)
            try:
                self._loop()
            finally:
                self._publisher.close()
        finally:
            ingest.close()
        self._conclude()
        return self.report

    def _first_session(self) -> LiveSource:
        """Wait for the source, which says what everything else must be like."""
        while not self._stop.is_set():
            item = self._mailbox.take(_POLL)
            if isinstance(item, Connected):
                return item.source
            if isinstance(item, Lost):
                if item.final:
                    raise InputError(item.reason)
                log.warning("%s; trying again in %.1f s", item.reason, item.delay)
        raise InterruptedRunError("stopped before the source was there; nothing was published")

    def _go_live(self, source: LiveSource) -> None:
        assert self._rungs is not None
        info = replace(source.info, time_base=Fraction(1, 90_000))
        self.interval = float(1 / info.rate)
        self._clock = OutputClock(self.interval)
        self._take_sound(source)
        context = self._sound.context if self._sound else None
        self._publisher = Publisher(
            self._outputs, self._settings.encoder, info, self._rungs.out_size, context,
            self.report.ledger,
        )  # fmt: skip
        self._ladder = Ladder(
            self._rungs.costs,
            LadderSettings(interval=self.interval, max_latency=self._settings.max_latency),
            now(),
        )
        self._describe(info)
        names = ", ".join(
            f"{name} {1000 * cost:.1f} ms"
            for name, cost in zip(self._rungs.names, self._rungs.costs, strict=True)
        )
        log.info("live: %s at %s fps; rungs: %s", shown(self._input), info.rate, names)
        self._last_shown = self._began = now()

    def _take_sound(self, source: LiveSource) -> None:
        stream = source.audio
        self._sound = Sound(stream) if stream is not None else None
        if self._sound and self._silence is None:
            self._silence = Silence(self._sound.context)

    def _loop(self) -> None:
        """Until the source is given up or `stop` is set."""
        while not self._stop.is_set():
            item = self._mailbox.take(_POLL)
            if isinstance(item, Frame):
                self._picture(item)
            elif isinstance(item, Connected):
                self._connected(item)
            elif isinstance(item, Lost):
                if item.final:
                    log.info("%s: %s", shown(self._input), item.reason)
                    return
                self._lost(item)
            elif item is not None:
                self._heard(item)
            while self._mailbox.dropped:
                self._drop(self._mailbox.dropped.popleft())
            if now() - self._last_shown > max(_FILL_AFTER, 3 * self.interval):
                self._fill()

    def _picture(self, frame: Frame) -> None:
        assert self._rungs is not None
        if frame.stamps.read < self._began:
            return  # it waited for the engines: live begins with what comes now
        self.report.frames_in += 1
        rung = self._ladder.choose(now(), frame.stamps.read, self._mailbox.waiting)
        if rung == DROP:
            self._drop(frame)
            return
        before, began = self._ladder.changes, now()
        done, lost = self._rungs.enlarge(frame, rung)
        self._ladder.done(rung, now() - began)
        if lost:
            self._ladder.give_up(rung)
        if self._ladder.changes != before:
            log.info("now by %s", self._rungs.names[rung])
        self._last, self._last_shown = done.planes, now()
        self._lost_since = None
        time = self._clock.picture(frame.time, now())
        self._publisher.show(done, time)

    def _drop(self, frame: Frame) -> None:
        """Even bicubic would have been late."""
        self.dropped += 1
        self._publisher.note(replace(frame, event="dropped"))

    def _heard(self, packet: Packet) -> None:
        sound = self._sound
        if sound is None or packet.stream.type != "audio" or packet.pts is None:
            return
        assert packet.time_base is not None
        time = self._clock.sound(float(packet.pts * packet.time_base))
        if time is None or time < 0:
            return
        for ready in sound.send(packet, time):
            self._sound_until = time
            self._publisher.sound(ready)

    def _connected(self, item: Connected) -> None:
        self.sessions += 1
        self._clock.end_session()
        self._take_sound(item.source)
        log.info("%s is back", shown(self._input))

    def _lost(self, item: Lost) -> None:
        self._clock.end_session()
        if self._lost_since is None:
            self._lost_since = now()
            log.warning("%s; the last picture stays, trying again", item.reason)

    def _fill(self) -> None:
        """The last picture again; darkened when it stands in for long, and with silence."""
        if self._last is None:
            return
        wall = now()
        self._lost_since = self._lost_since or self._last_shown
        planes = self._last
        if wall - self._lost_since > self._settings.slate_after:
            y, u, v = planes
            planes = (_BLACK + (y - _BLACK) // _SLATE_DIM * (y > _BLACK), u // 4 + 96, v // 4 + 96)
        time = self._clock.filler(wall)
        frame = Frame(
            planes=planes, index=-1, pts=0, time_base=Fraction(1), duration=0,
            stamps=Stamps(read=wall, decoded=wall, infer_start=wall, infer_end=wall),
            event="repeated",
        )  # fmt: skip
        self.repeated += 1
        self._last_shown = max(self._last_shown + self.interval, wall - self.interval)
        self._publisher.show(frame, time)
        if self._silence and self._sound:
            for packet in self._silence.until(self._sound_until, time):
                self._publisher.sound(packet)
            self._sound_until = max(self._sound_until, time)

    def _describe(self, info: VideoInfo) -> None:
        assert self._rungs is not None
        self.report.input |= {
            "size": [info.width, info.height],
            "rate": str(info.rate),
            "codec": info.stream.codec_context.name,
        }
        self.report.output |= {
            "size": list(self._rungs.out_size),
            "rungs": self._rungs.names,
        }

    def _conclude(self) -> None:
        report, ladder = self.report, self._ladder
        report.seconds = now() - self._began
        report.frames_out = self._publisher.shown
        report.lost = self.dropped
        report.interrupted = self._stop.is_set()
        report.live = self.figures() | {"rung_changes": ladder.changes}

    def figures(self) -> dict[str, Any]:
        """What a status page shows, and a report ends with."""
        return {
            "rung": self._rungs.names[self._ladder.rung] if self._rungs else None,
            "sessions": self.sessions + 1,
            "repeated": self.repeated,
            "dropped": self.dropped,
            "jumps": self._clock.repairs.jumps,
            "nudged": self._clock.repairs.nudged,
            "outputs": self._publisher.states(),
        }
