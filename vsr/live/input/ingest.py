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
from vsr.live.input.fit import Canvas, OutputCapabilities
from vsr.live.input.mailbox import AudioPacket, Connected, Lost, Mailbox, RateMeasured, SourceNotice
from vsr.live.input.pace import AdaptivePacer, pace, skip_backlog
from vsr.live.input.rate import RateMeter, Restamper
from vsr.live.input.reopener import Opener, Reopener
from vsr.live.input.source import LiveSource
from vsr.live.settings import IngestSettings
from vsr.media.frame import Frame, now
from vsr.media.location import check_address, check_protocol, is_url, mask_secrets, url_for_messages
from vsr.media.timestamps import Packet
from vsr.media.variants import BEST, Fits, VariantChoice

if TYPE_CHECKING:  # loaded for --listen only, as it imports ssl
    from vsr.live.input.rtmp.server import RtmpListener
    from vsr.live.input.rtmp.session import PublishedStream

log = logging.getLogger(__name__)

_MAX_DELAY_S: Final = 2.5
"""Longest pause before reconnecting, in seconds: a source that returns is found soon."""
_GROWTH: Final = 1.6
"""Ratio of a pause before reconnecting to the previous one."""
_STALL_S: Final = 1.0
"""Time without a frame, from a connected source, after which a stall is reported, in seconds."""
_PARALLEL_PROTOCOLS: Final = ("rtmp", "rtmps", "rtmpt", "http", "https")
"""Protocols whose servers accept a second connection while the first one is open."""


def check_input(url: str, settings: IngestSettings) -> None:
    """Raise UsageError for an unreadable URL, and for settings that would have no effect."""
    if not settings.listen:
        check_address(url)
        check_protocol(url)
    if settings.loop and (is_url(url) or settings.listen):
        raise UsageError("--loop works only with files: streams always reconnect")
    if settings.listen and settings.retry_max:
        raise UsageError("--listen waits for publishers without a limit: remove --retry-max")
    if settings.listen and settings.variant != BEST:
        raise UsageError("--variant works only with playlists: remove it, or --listen")
    if settings.tls_cert is None and settings.tls_key is not None:
        raise UsageError("--tls-key needs --tls-cert")
    if settings.tls_cert is not None and not settings.listen:
        raise UsageError("--tls-cert works only with --listen: remove it, or add --listen")


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
        capabilities: OutputCapabilities | None = None,
    ) -> None:
        """`fits` returns whether a variant can be upscaled in time; it may take a second.
        `capabilities` describes what outputs carry.

        Raises UsageError for a URL that cannot be listened at, and for an invalid variant.
        """
        self._variant = VariantChoice.parse(settings.variant, fits)
        self._listener = _listener(url, settings) if settings.listen else None
        self.url, self.name = url, url_for_messages(url)
        self.settings, self.mailbox, self._capabilities = settings, mailbox, capabilities
        self.rate: Fraction | None = None
        """Frame rate of the current session in Hz; None if unknown."""
        self.jumps = 0
        """Number of jumps of the source's clock that were corrected while reading."""
        self._may_play, self._stop = threading.Event(), threading.Event()
        self._canvas: Canvas | None = None
        self._has_begun, self._missing = False, 0
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

    def start_playback(self) -> None:
        """Let a paced input begin, because its frames are shown from now on."""
        self._may_play.set()

    def close(self) -> None:
        """Stop at once; a blocked read ends by its timeout, on a daemon thread."""
        self._stop.set()
        self._may_play.set()
        if self._listener:
            self._listener.close()

    def _run(self) -> None:
        failures = 0
        backoff = Backoff(first=self.settings.retry_delay, longest=_MAX_DELAY_S, growth=_GROWTH)
        while not self._stop.is_set():
            why = self._read_once()
            failures = 0 if self._has_begun or self._listener else failures + 1
            given_up = 0 < self.settings.retry_max <= failures
            why += f"; stopped after attempt {failures} (--retry-max)" if given_up else ""
            delay = backoff.pause(failures)
            if not is_url(self.url):  # a retry of a file does not change the result
                given_up = not (self._has_begun and self.settings.loop)
            if self._listener or not is_url(self.url):  # the listener waits for a publisher
                delay = 0.0
            if self._stop.is_set():
                return
            failed, missing = not self._has_begun, self._missing
            self.mailbox.put(Lost(why, delay, final=given_up, failed=failed, missing=missing))
            if given_up or self._stop.wait(delay):
                return

    def _read_once(self) -> str:
        """Read one connection to its end and return the reason why it ended."""
        self._has_begun, self._missing = False, 0
        self._newest_audio, self._repeats = None, {}
        try:
            return self._session()
        except InputError as exc:
            why = str(exc)
        except (av.error.FFmpegError, OSError) as exc:
            why = f"reading {self.name} failed: {mask_secrets(reason(exc), self.url)}"
        except Exception as exc:  # a bug must not end a relay that runs for days
            log.debug(mask_secrets(traceback.format_exc(), self.url))
            what = mask_secrets(f"{type(exc).__name__}: {reason(exc)}", self.url)
            why = f"reading {self.name} failed unexpectedly ({what})"
        if not is_url(self.url):
            self._missing = max(1, self._missing)  # the number is unknown
        return why

    def _session(self) -> str:
        with self._accept_publisher() as feed:
            source = self._open_source(feed)
            while True:
                with closing(source):
                    following = self._deliver(source, feed)
                    notes = source.losses.notes.values()
                if following is None:
                    return "; ".join([f"{self.name} ended", *notes])
                source = following()
                self._notify("has new streams: reopened to read them", "streams")

    def _deliver(self, source: LiveSource, feed: "PublishedStream | None") -> Opener | None:
        """Pass on a source's items until it ends; return an opener if it is to be replaced."""
        self._canvas = source.canvas
        self._has_begun = True
        sound, jumps = source.audio, self.jumps
        decoder = sound.codec_context if sound else None
        self.rate = source.info.rate
        self.mailbox.put(Connected(source.info, source.codec, decoder, source.notes))
        scheme = self.url.partition("://")[0].lower()
        in_parallel = feed is None and scheme in _PARALLEL_PROTOCOLS

        def count_streams() -> int:
            return source.new_streams + (feed.audio_codec_changes if feed else 0)

        try:
            reopener = Reopener(source, lambda: self._reopen(feed), in_parallel, count_streams)
            with closing(reopener):
                for item in self._paced(source):
                    if self._stop.is_set():
                        break
                    self.jumps = jumps + source.jumps
                    if isinstance(item, Frame):
                        self._newest = item.time
                        self.mailbox.put(item)
                    elif item.stream is sound and (time := _time_of(item)) is not None:
                        self._newest_audio = time
                        self.mailbox.put(AudioPacket(item, time))
                    following = reopener.poll() if is_url(self.url) else None
                    if following is not None:
                        return following
        finally:
            self._missing += source.losses.lost
        return None

    def _reopen(self, feed: "PublishedStream | None") -> LiveSource:
        """Open the current source again, with all the streams that it has now."""
        if feed is not None:
            frames, packets = feed.rewind()
            self._repeats = {"video": _Repeats(self._newest, frames)}
            if self._newest_audio is not None:
                self._repeats["audio"] = _Repeats(self._newest_audio, packets)
        return self._open_source(feed)

    def _paced(self, source: LiveSource) -> Iterator[Frame | Packet]:
        """Yield the source's items when they are due."""
        items = self._without_repeats(self._with_usable_times(source), source.audio)
        if self.settings.realtime or source.is_segmented or not is_url(self.url):
            return pace(items, self._may_play, self._stop)
        newest = skip_backlog(items, float(1 / source.info.rate))
        return AdaptivePacer(self._stop, lambda message: self._notify(message, "bursts"))(newest)

    def _without_repeats(
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

    def _with_usable_times(self, source: LiveSource) -> Iterator[Frame | Packet]:
        """Yield the source's items as they are read, with usable timestamps."""
        url = is_url(self.url)
        stamps = Restamper(source.has_timestamps or not url, url and not source.is_segmented)
        meter, before = RateMeter(source.info.rate), now()
        for item in source:
            if isinstance(item, Frame):
                stall = item.stamps.read - before
                if stall > _STALL_S and url and not source.is_segmented:
                    self._notify(f"sent no frames for {stall:.1f} s", "stall")
                if stamps.stamp(item):
                    self._notify("has no usable timestamps: frames are shown on arrival", "clock")
                if meter.add(item.time):
                    self.rate = meter.rate
                    self.mailbox.put(RateMeasured(meter.rate))
            yield item
            before = now() if isinstance(item, Frame) else before

    def _notify(self, message: str, kind: str) -> None:
        self.mailbox.put(SourceNotice(message, kind))

    def _accept_publisher(self) -> "AbstractContextManager[PublishedStream | None]":
        """Wait for a publisher if listening; return a context of its stream, else of None."""
        return closing(self._listener.accept()) if self._listener else nullcontext()

    def _open_source(self, feed: "PublishedStream | None") -> LiveSource:
        settings = self.settings
        return LiveSource(
            self.url,
            settings.stream_timeout,
            self._canvas,
            feed,
            settings.tls_verify,
            self._variant,
            settings.deinterlace,
            self._capabilities,
        )
