"""Reads and decodes a live source on a thread, and reconnects when it is lost.

The thread passes frames, audio and events to the relay through a `Mailbox`, which never blocks it:
a relay that is behind loses its oldest frames, not its connection.
"""

import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import av

from vsr.errors import InputError, UsageError, reason
from vsr.live.common import Backoff
from vsr.live.input.fit import Canvas, Carried
from vsr.live.input.mailbox import Connected, Lost, Mailbox, Measured, Said, SoundPacket
from vsr.live.input.pace import Evened, from_newest, paced
from vsr.live.input.rate import RateMeter, Restamper
from vsr.live.input.source import LiveSource
from vsr.live.input.successor import Opener, Successor
from vsr.live.settings import IngestSettings
from vsr.media.frame import Frame, now
from vsr.media.location import check_address, check_protocol, is_url, masked, shown
from vsr.media.timestamps import Packet
from vsr.media.variants import Fits, Wanted

if TYPE_CHECKING:  # loaded for --listen only, as it imports ssl
    from vsr.live.input.rtmp.server import RtmpListener
    from vsr.live.input.rtmp.session import PublishedStream

log = logging.getLogger(__name__)

_LONGEST_DELAY: Final = 2.5
"""Longest pause before reconnecting, in seconds: a source that returns is found soon."""
_GROWTH: Final = 1.6
"""Ratio of a pause before reconnecting to the previous one."""
_STALL_S: Final = 1.0
"""Time without a frame, from a connected source, after which a stall is reported, in seconds."""
_SERVERS: Final = ("rtmp", "rtmps", "rtmpt", "http", "https")
"""Protocols whose servers accept a second connection while the first one is open."""


def check_input(url: str, settings: IngestSettings) -> None:
    """Raise UsageError for an unreadable URL, and for settings that would have no effect."""
    if not settings.listen:
        check_address(url)
        check_protocol(url)
    if settings.loop and (is_url(url) or settings.listen):
        raise UsageError("--loop reads a file again; a stream is always taken up again")
    if settings.listen and settings.retry_max:
        raise UsageError("--listen waits for publishers without end: leave out --retry-max")
    if settings.tls_cert is None and settings.tls_key is not None:
        raise UsageError("--tls-key belongs to a --tls-cert")
    if settings.tls_cert is not None and not settings.listen:
        raise UsageError("--tls-cert is for --listen: servers that vsr connects to have their own")


def _listener(url: str, settings: IngestSettings) -> "RtmpListener":
    """Create the listener. Raises UsageError."""
    from vsr.live.input.rtmp.server import RtmpListener
    from vsr.live.input.rtmp.tls import Certificate

    cert = settings.tls_cert
    certificate = None if cert is None else Certificate(cert, settings.tls_key)
    return RtmpListener(url, settings.stream_timeout, certificate=certificate)


def _time_of(packet: Packet) -> float | None:
    """Return a packet's source time in seconds; None if it has none."""
    if packet.pts is None or not packet.time_base:
        return None
    return float(packet.pts * packet.time_base)


@dataclass
class _Repeats:
    """Frames or audio packets that come again after a publisher's stream was rewound."""

    until: float
    """Source time of the newest one that was passed on before (s)."""
    left: int
    """Largest number of items among which there are repeated ones."""

    def take(self, time: float) -> bool:
        """Return whether the next item, at `time` (s), is repeated."""
        self.left -= 1
        return self.left >= 0 and time <= self.until


class Ingest:
    """Reads a URL or file into a mailbox; see `IngestSettings`."""

    def __init__(
        self,
        url: str,
        settings: IngestSettings,
        mailbox: Mailbox,
        fits: Fits = lambda *_: True,
        carried: Carried | None = None,
    ) -> None:
        """`fits` returns whether a variant can be upscaled in time; it may take a second.
        `carried` describes what outputs carry.

        Raises UsageError for a URL that cannot be listened at, and for an invalid variant.
        """
        self._variant = Wanted.parse(settings.variant, fits)
        self._listener = _listener(url, settings) if settings.listen else None
        self.url, self.name = url, shown(url)
        self.settings, self.mailbox, self._carried = settings, mailbox, carried
        self.rate: Fraction | None = None
        """Frame rate of the current session in Hz; None if unknown."""
        self.jumps = 0
        """Number of jumps of the source's clock that were corrected while reading."""
        self._live, self._stop = threading.Event(), threading.Event()
        self._canvas: Canvas | None = None
        self._began, self._missing = False, 0
        self._newest = 0.0
        """Source time of the newest frame passed on (s)."""
        self._newest_audio: float | None = None
        """Source time of the session's newest audio packet passed on (s)."""
        self._repeats: dict[str, _Repeats] = {}
        """Which frames (`video`) and packets (`audio`) are repeated after a rewind."""
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Begin to connect. Raises InputError if the address to listen at cannot be used."""
        if self._listener:
            self._listener.open()
        self._thread.start()

    def go(self) -> None:
        """Let a paced input begin, because its frames are shown from now on."""
        self._live.set()

    def close(self) -> None:
        """Stop at once; a blocked read ends by its timeout, on a daemon thread."""
        self._stop.set()
        self._live.set()
        if self._listener:
            self._listener.close()

    def _run(self) -> None:
        failures = 0
        backoff = Backoff(first=self.settings.retry_delay, longest=_LONGEST_DELAY, growth=_GROWTH)
        while not self._stop.is_set():
            why = self._attempt()
            failures = 0 if self._began or self._listener else failures + 1
            given_up = 0 < self.settings.retry_max <= failures
            why += f"; given up at attempt {failures}" if given_up else ""
            delay = backoff.pause(failures)
            if not is_url(self.url):  # a retry of a file does not change the result
                given_up = not (self._began and self.settings.loop)
                delay = 0.0
            elif self._listener:  # the next attempt waits for a publisher
                delay = 0.0
            if self._stop.is_set():
                return
            failed, missing = not self._began, self._missing
            self.mailbox.put(Lost(why, delay, final=given_up, failed=failed, missing=missing))
            if given_up or self._stop.wait(delay):
                return

    def _attempt(self) -> str:
        """Read one connection to its end and return the reason why it ended."""
        self._began, self._missing = False, 0
        self._newest_audio, self._repeats = None, {}
        try:
            return self._session()
        except InputError as exc:
            why = str(exc)
        except (av.error.FFmpegError, OSError) as exc:
            why = f"{self.name} broke off: {masked(reason(exc), self.url)}"
        except Exception as exc:  # a bug must not end a relay that runs for days
            log.debug(masked(traceback.format_exc(), self.url))
            why = f"reading {self.name} failed unexpectedly ({type(exc).__name__})"
        if not is_url(self.url):
            self._missing = max(1, self._missing)  # the number is unknown
        return why

    def _session(self) -> str:
        with self._feed() as feed:
            source = self._open(feed)
            while True:
                with closing(source):
                    following = self._deliver(source, feed)
                    notes = source.losses.notes.values()
                if following is None:
                    return "; ".join([f"{self.name} ended", *notes])
                source = following()
                self._say("has further streams now: they are taken up", "streams")

    def _deliver(self, source: LiveSource, feed: "PublishedStream | None") -> Opener | None:
        """Pass on a source's items until it ends; return an opener if it is to be replaced."""
        self._canvas = source.canvas
        self._began = True
        sound, jumps = source.audio, self.jumps
        decoder = sound.codec_context if sound else None
        self.rate = source.info.rate
        self.mailbox.put(Connected(source.info, source.codec, decoder, source.notes))
        scheme = self.url.partition("://")[0].lower()
        beside = feed is None and scheme in _SERVERS

        def grown() -> int:
            return source.unseen + (feed.changes if feed else 0)

        try:
            again = Successor(source, lambda: self._again(feed), beside, grown)
            with closing(again) as successor:
                for item in self._in_time(source):
                    if self._stop.is_set():
                        break
                    self.jumps = jumps + source.jumps
                    if isinstance(item, Frame):
                        self._newest = item.time
                        self.mailbox.put(item)
                    elif item.stream is sound and (time := _time_of(item)) is not None:
                        self._newest_audio = time
                        self.mailbox.put(SoundPacket(item, time))
                    following = successor.look() if is_url(self.url) else None
                    if following is not None:
                        return following
        finally:
            self._missing += source.losses.lost
        return None

    def _again(self, feed: "PublishedStream | None") -> LiveSource:
        """Open the current source again, with all the streams that it has now."""
        if feed is not None:
            frames, packets = feed.rewind()
            self._repeats = {"video": _Repeats(self._newest, frames)}
            if self._newest_audio is not None:
                self._repeats["audio"] = _Repeats(self._newest_audio, packets)
        return self._open(feed)

    def _in_time(self, source: LiveSource) -> Iterator[Frame | Packet]:
        """Yield the source's items when they are due."""
        items = self._fresh(self._measured(source), source.audio)
        if self.settings.realtime or source.in_pieces or not is_url(self.url):
            return paced(items, self._live, self._stop)
        newest = from_newest(items, float(1 / source.info.rate))
        return Evened(self._stop, lambda words: self._say(words, "bursts"))(newest)

    def _fresh(
        self, items: Iterator[Frame | Packet], audio: av.AudioStream | None
    ) -> Iterator[Frame | Packet]:
        """Leave out what was passed on before a publisher's stream was rewound."""
        for item in items:
            kind, time = "", None
            if isinstance(item, Frame):
                kind, time = "video", item.time
            elif item.stream is audio:
                kind, time = "audio", _time_of(item)
            repeats = self._repeats.get(kind)
            if repeats is None or time is None or not repeats.take(time):
                yield item

    def _measured(self, source: LiveSource) -> Iterator[Frame | Packet]:
        """Yield the source's items as they are read, with usable timestamps."""
        url = is_url(self.url)
        stamps = Restamper(source.has_clock or not url, url and not source.in_pieces)
        meter, before = RateMeter(source.info.rate), now()
        for item in source:
            if isinstance(item, Frame):
                stall = item.stamps.read - before
                if stall > _STALL_S and url and not source.in_pieces:
                    self._say(f"stood still for {stall:.1f} s", "stall")
                if stamps.stamp(item):
                    self._say("has no usable clock: its pictures are shown as they come", "clock")
                if meter.add(item.time):
                    self.rate = meter.rate
                    self.mailbox.put(Measured(meter.rate))
            yield item
            before = now() if isinstance(item, Frame) else before

    def _say(self, words: str, kind: str) -> None:
        self.mailbox.put(Said(words, kind))

    def _feed(self) -> "AbstractContextManager[PublishedStream | None]":
        """Wait for a publisher if listening; return a context of its stream, else of None."""
        return closing(self._listener.accept()) if self._listener else nullcontext()

    def _open(self, feed: "PublishedStream | None") -> LiveSource:
        settings = self.settings
        return LiveSource(
            self.url,
            settings.stream_timeout,
            self._canvas,
            feed,
            settings.tls_verify,
            self._variant,
            settings.deinterlace,
            self._carried,
        )
