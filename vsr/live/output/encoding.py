"""Runs one encoder of a relay, and tracks the frames in it."""

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
from vsr.media.side_data import kinds_written_by
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

TIME_BASE: Final = Fraction(1, 90_000)
KEY_EVERY: Final = 2.0
"""Key frame interval that streaming services require, in seconds."""
_FAILURES: Final = 3
_FAILURES_S: Final = 60.0
"""Period in seconds within which `_FAILURES` failures of an encoder end the relay."""
_LEVEL_AT: Final = 7
"""Offset of the level in the H.264 header (after start code, NAL type, profile, constraints)."""
_DEEP: Final = 10
_BUFFER_S: Final = 0.5
"""Size of the rate buffer of an encoder for a slow connection, in seconds."""


@dataclass(frozen=True)
class Shown:
    """A frame for the outputs."""

    frame: Frame
    time: float
    """Output time (s)."""
    origin: float | None
    """Source time (s); None: it is a repeated frame."""


@dataclass(frozen=True)
class Encoded:
    """A packet, and information about its frame."""

    packet: Packet
    item: Shown | None
    """Frame of the packet; None if no frame matches it."""
    delivery: Delivery | None
    outputs: Sequence[Output]


class Encoding:
    """Runs an encoder, and reopens it when it fails. Not thread-safe."""

    def __init__(self, opener: Callable[[], av.VideoCodecContext], step: float) -> None:
        """`step` is the frame interval (s). Raises UsageError or OutputError."""
        self._opener, self._step = opener, step
        self.context = opener()
        self._under_way = PacketMatcher[tuple[Shown, Delivery, Sequence[Output]]]()
        self._outputs: Sequence[Output] = ()
        self._failures: deque[float] = deque(maxlen=_FAILURES)
        self._last_key = -KEY_EVERY
        self._asked: float | None = None
        """Time of the newest requested key frame, until its packet arrives (s)."""

    def encode(
        self, picture: av.VideoFrame, item: Shown, delivery: Delivery, outputs: Sequence[Output]
    ) -> Iterator[Encoded]:
        """Encode a frame for some of the outputs; yield the packets that are ready.

        Raises OutputError if the encoder failed too often recently.
        """
        # by time, not by count: the frame rate may differ from the one that the source declared
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
        """Flush the encoder and yield its last packets, unless it fails."""
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
        """Count the frames still in the encoder as missed."""
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
    """Return the bits per sample of live outputs for a high bit depth source: 10, or 8 in H.264.

    Few players support 10-bit H.264, so it is used only if its pixel format is configured. Raises
    UsageError.
    """
    if settings.pixel_format is not None:
        return _DEEP if planes_for(settings.pixel_format).bits > 8 else 8
    codec = av.Codec(encoder_name(settings, "flv"), "w")
    formats = [] if codec.canonical_name == "h264" else codec.video_formats or []
    return _DEEP if any(planes_for(form.name).bits > 8 for form in formats) else 8


def live_side_data(settings: EncoderSettings) -> frozenset[str]:
    """Return the kinds of side data of source frames that live outputs carry."""
    return kinds_written_by(encoder_name(settings, "flv"), settings.options)


def bitrate_of(settings: EncoderSettings) -> int | None:
    """Return the configured bitrate (bit/s), from the setting or FFmpeg's option `b`, or None."""
    if settings.bitrate is None and "b" in settings.options:
        return parse_bits(settings.options["b"])
    return settings.bitrate


def reduced(settings: EncoderSettings, bitrate: int, like: av.VideoCodecContext) -> EncoderSettings:
    """Return the settings with a lower bitrate (bit/s), for a stream that `like` began."""
    rates = ("b", "maxrate", "minrate", "bufsize", "crf", "qp", "cq", "global_quality")
    options = {key: value for key, value in settings.options.items() if key not in rates}
    header = like.extradata or b""
    if like.name == "libx264" and len(header) > _LEVEL_AT and "level" not in options:
        options["level"] = str(header[_LEVEL_AT])  # else a lower level would be chosen and written
    return replace(
        settings, crf=None, bitrate=bitrate, maxrate=bitrate, bufsize=round(_BUFFER_S * bitrate),
        options=options,
    )  # fmt: skip
