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
KEY_INTERVAL_S: Final = 2.0
"""Key frame interval that streaming services require, in seconds."""
_FAILURES: Final = 3
_FAILURES_S: Final = 60.0
"""Period in seconds within which `_FAILURES` failures of an encoder end the relay."""
_LEVEL_AT: Final = 7
"""Offset of the level in the H.264 header (after start code, NAL type, profile, constraints)."""
_DEEP_BITS: Final = 10
_BUFFER_S: Final = 0.5
"""Size of the rate buffer of an encoder for a slow connection, in seconds."""


@dataclass(frozen=True)
class VideoItem:
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
    item: VideoItem | None
    """Frame of the packet; None if no frame matches it."""
    delivery: Delivery | None
    outputs: Sequence[Output]


class Encoding:
    """Runs an encoder, and reopens it when it fails. Not thread-safe."""

    def __init__(self, opener: Callable[[], av.VideoCodecContext], frame_interval_s: float) -> None:
        """`frame_interval_s` is the frame interval (s). Raises UsageError or OutputError."""
        self._opener, self._frame_interval_s = opener, frame_interval_s
        self.context = opener()
        self._in_flight = PacketMatcher[tuple[VideoItem, Delivery, Sequence[Output]]]()
        self._outputs: Sequence[Output] = ()
        self._failures: deque[float] = deque(maxlen=_FAILURES)
        self._last_key = -KEY_INTERVAL_S
        self._key_requested_at: float | None = None
        """Time of the newest requested key frame, until its packet arrives (s)."""

    def encode(
        self, picture: av.VideoFrame, item: VideoItem, delivery: Delivery, outputs: Sequence[Output]
    ) -> Iterator[Encoded]:
        """Encode a frame for some of the outputs; yield the packets that are ready.

        Raises OutputError if the encoder failed too often recently.
        """
        # by time, not by count: the frame rate may differ from the one that the source declared
        is_due = item.time - self._last_key >= KEY_INTERVAL_S - self._frame_interval_s / 2
        has_new_output = any(output not in self._outputs for output in outputs)
        self._outputs = outputs
        picture.pict_type = PictureType.NONE
        is_requested = self._key_requested_at is None and any(
            output.needs_key_frame for output in outputs
        )
        if is_due or has_new_output or is_requested:
            picture.pict_type = PictureType.I
            self._last_key = self._key_requested_at = item.time
        assert picture.pts is not None
        self._in_flight.add(picture.pts, (item, delivery, outputs))
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
            left = len(self._in_flight)
            log.error(
                "%s at the end of the stream; %d frames are lost", self._failure_text(exc), left
            )
        self._discard_in_flight()

    def _matched(self, packet: Packet) -> Encoded:
        found = self._in_flight.take(packet)
        if found is None:
            return Encoded(packet, None, None, self._outputs)
        if self._key_requested_at is not None and found[0].time >= self._key_requested_at:
            self._key_requested_at = None
        if packet.is_keyframe:
            self._last_key = found[0].time
        return Encoded(packet, *found)

    def _reopen(self, exc: Exception) -> None:
        message, lost = self._failure_text(exc), len(self._in_flight)
        self._discard_in_flight()
        self._failures.append(now())
        if len(self._failures) == _FAILURES and now() - self._failures[0] < _FAILURES_S:
            raise OutputError(message) from exc
        log.error("%s; reopening it, %d frames are lost", message, lost)
        self.context = self._opener()

    def _failure_text(self, exc: Exception) -> str:
        return f"the encoder {self.context.name} failed: {reason(exc)}"

    def _discard_in_flight(self) -> None:
        """Count the frames still in the encoder as missed."""
        self._key_requested_at = None
        for _, delivery, outputs in self._in_flight.clear():
            for output in outputs:
                output.tally.missed(delivery)


def open_live_encoder(settings: EncoderSettings, video: VideoFormat) -> av.VideoCodecContext:
    """Open an encoder for live outputs. Raises UsageError or OutputError."""
    name = encoder_name(settings, "flv")
    context = cast(av.VideoCodecContext, av.CodecContext.create(name, "w"))
    open_encoder(context, settings, video, KEY_INTERVAL_S)
    return context


def live_bit_depth(settings: EncoderSettings) -> int:
    """Return the bits per sample of live outputs for a high bit depth source: 10, or 8 in H.264.

    Few players support 10-bit H.264, so it is used only if its pixel format is configured. Raises
    UsageError.
    """
    if settings.pixel_format is not None:
        return _DEEP_BITS if planes_for(settings.pixel_format).bits > 8 else 8
    codec = av.Codec(encoder_name(settings, "flv"), "w")
    formats = [] if codec.canonical_name == "h264" else codec.video_formats or []
    return _DEEP_BITS if any(planes_for(form.name).bits > 8 for form in formats) else 8


def live_side_data(settings: EncoderSettings) -> frozenset[str]:
    """Return the kinds of side data of source frames that live outputs carry."""
    return kinds_written_by(encoder_name(settings, "flv"), settings.options)


def bitrate_of(settings: EncoderSettings) -> int | None:
    """Return the configured bitrate (bit/s), from the setting or FFmpeg's option `b`, or None."""
    if settings.bitrate is None and "b" in settings.options:
        return parse_bits(settings.options["b"])
    return settings.bitrate


def with_reduced_bitrate(
    settings: EncoderSettings, bitrate: int, like: av.VideoCodecContext
) -> EncoderSettings:
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
