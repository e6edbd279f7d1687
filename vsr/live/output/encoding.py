"""One encoder of a relay, and the pictures that are under way in it."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, cast

import av
from av.video.frame import PictureType

from vsr.errors import OutputError, reason
from vsr.live.output.delivery import Delivery
from vsr.live.output.output import Output
from vsr.media.bitrate import parse_bits
from vsr.media.encoder import (
    EncoderSettings,
    VideoFormat,
    encoder_name,
    open_encoder,
)
from vsr.media.frame import Frame, now
from vsr.media.matcher import PacketMatcher
from vsr.media.plane_format import planes_for
from vsr.media.side_data import written_by
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

TIME_BASE: Final = Fraction(1, 90_000)
KEY_EVERY: Final = 2.0
"""Seconds between key frames: what streaming services ask for."""
_FAILURES: Final = 3
_FAILURES_S: Final = 60.0
"""So many failures of an encoder in so many seconds end a relay."""
_LEVEL_AT: Final = 7
"""Byte of H.264's header (start code, NAL type, profile, constraints) that holds the level."""
_DEEP: Final = 10
_BUFFER_S: Final = 0.5
"""Seconds of bits that an encoder for a slow line may be ahead."""


@dataclass(frozen=True)
class Shown:
    """A picture for the outputs."""

    frame: Frame
    time: float
    """Its time in the output (s)."""
    origin: float | None
    """Its time in the source (s); None: it is shown again."""


@dataclass(frozen=True)
class Encoded:
    """A packet, and what is known of its picture."""

    packet: Packet
    item: Shown | None
    """None for a packet that no picture was given for."""
    delivery: Delivery | None
    outputs: Sequence[Output]


class Encoding:
    """Runs an encoder, and opens it again when it fails. For one thread."""

    def __init__(self, opener: Callable[[], av.VideoCodecContext], step: float) -> None:
        """`step` is what lies between two pictures (s). Raises UsageError or OutputError."""
        self._opener, self._step = opener, step
        self.context = opener()
        self._under_way = PacketMatcher[tuple[Shown, Delivery, Sequence[Output]]]()
        self._outputs: Sequence[Output] = ()
        self._failures: deque[float] = deque(maxlen=_FAILURES)
        self._last_key = -KEY_EVERY
        self._asked: float | None = None
        """Time of the newest key frame that was asked for, until its packet comes (s)."""

    def encode(
        self, picture: av.VideoFrame, item: Shown, delivery: Delivery, outputs: Sequence[Output]
    ) -> Iterator[Encoded]:
        """Encode a picture for some of the outputs, and yield the packets that are done.

        Raises OutputError if the encoder failed too often lately.
        """
        # by time, not by number: pictures may come at another rate than the source declared
        due = item.time - self._last_key >= KEY_EVERY - self._step / 2
        joined = any(output not in self._outputs for output in outputs)
        self._outputs = outputs
        picture.pict_type = PictureType.NONE
        wanted = self._asked is None and any(output.wants_key for output in outputs)
        if due or joined or wanted:
            picture.pict_type = PictureType.I
            self._last_key = self._asked = item.time
        assert picture.pts is not None
        self._under_way.add(picture.pts, (item, delivery, outputs))
        try:
            packets = self.context.encode(picture)
        except (av.error.FFmpegError, ValueError) as exc:
            self._reopen(exc)
            return
        yield from map(self._matched, packets)

    def drain(self) -> Iterator[Encoded]:
        """End the encoder and yield its last packets, as far as it gives them."""
        try:
            yield from map(self._matched, self.context.encode(None))
        except (av.error.FFmpegError, ValueError) as exc:
            left = len(self._under_way)
            log.error("%s at its end; %d pictures are lost", self._words(exc), left)
        self._forget()

    def _matched(self, packet: Packet) -> Encoded:
        found = self._under_way.take(packet)
        if found is None:
            return Encoded(packet, None, None, self._outputs)
        if self._asked is not None and found[0].time >= self._asked:
            self._asked = None
        if packet.is_keyframe:
            self._last_key = found[0].time
        return Encoded(packet, *found)

    def _reopen(self, exc: Exception) -> None:
        words, left = self._words(exc), len(self._under_way)
        self._forget()
        self._failures.append(now())
        if len(self._failures) == _FAILURES and now() - self._failures[0] < _FAILURES_S:
            raise OutputError(words) from exc
        log.error("%s; it is opened again, %d pictures are lost", words, left)
        self.context = self._opener()

    def _words(self, exc: Exception) -> str:
        return f"the encoder {self.context.name} failed: {reason(exc)}"

    def _forget(self) -> None:
        """Give up the pictures whose packets will not come."""
        self._asked = None
        for _, delivery, outputs in self._under_way.clear():
            for output in outputs:
                output.missed(delivery)


def open_live_encoder(settings: EncoderSettings, video: VideoFormat) -> av.VideoCodecContext:
    """Open an encoder for live outputs. Raises UsageError or OutputError."""
    name = encoder_name(settings, "flv")
    context = cast(av.VideoCodecContext, av.CodecContext.create(name, "w"))
    open_encoder(context, settings, video, KEY_EVERY)
    return context


def live_bits(settings: EncoderSettings) -> int:
    """Bits per sample of deep sources' pictures that live outputs carry: 10, or 8 in H.264.

    10-bit H.264, which few players know, is for those who ask for it by its pixel format. Raises
    UsageError.
    """
    if settings.pixel_format is not None:
        return _DEEP if planes_for(settings.pixel_format).bits > 8 else 8
    codec = av.Codec(encoder_name(settings, "flv"), "w")
    formats = [] if codec.canonical_name == "h264" else codec.video_formats or []
    return _DEEP if any(planes_for(form.name).bits > 8 for form in formats) else 8


def live_side_data(settings: EncoderSettings) -> frozenset[str]:
    """Kinds of side data of a source's pictures that live outputs carry."""
    return written_by(encoder_name(settings, "flv"), settings.options)


def bitrate_of(settings: EncoderSettings) -> int | None:
    """Return the bitrate that was asked for (bit/s), by its option or FFmpeg's."""
    if settings.bitrate is None and "b" in settings.options:
        return parse_bits(settings.options["b"])
    return settings.bitrate


def reduced(settings: EncoderSettings, bitrate: int, like: av.VideoCodecContext) -> EncoderSettings:
    """Return the settings at a lower bitrate (bit/s), for a stream that began with `like`."""
    rates = ("b", "maxrate", "minrate", "bufsize", "crf", "qp", "cq", "global_quality")
    options = {key: value for key, value in settings.options.items() if key not in rates}
    header = like.extradata or b""
    if like.name == "libx264" and len(header) > _LEVEL_AT and "level" not in options:
        options["level"] = str(header[_LEVEL_AT])  # or a lower one would be chosen, and announced
    return replace(
        settings, crf=None, bitrate=bitrate, maxrate=bitrate, bufsize=round(_BUFFER_S * bitrate),
        options=options,
    )  # fmt: skip
