"""AAC of a relay's outputs: encoder, silent packets, and the configuration in packets."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt

from vsr.errors import OutputError, reason
from vsr.media.adts import AdtsConfig
from vsr.media.timestamps import Packet
from vsr.media.transcode import packed_format

log = logging.getLogger(__name__)

FORMAT: Final = "fltp"
"""Sample format of FFmpeg's AAC encoder."""
PACKED: Final = packed_format(FORMAT)
"""Sample format of the frames that are passed to it; it makes them planar."""
_FALLBACK_RATES: Final = (44_100, 48_000)
"""Sample rates of an encoder that does not match an AAC source, in Hz."""
_BITRATE: Final = 160_000
_CONFIG_BYTES: Final = 2
"""Leading bytes of AAC extradata with object type, rate, channels (ISO 14496-3, 1.6.2.1)."""
_ADTS_HEADER_BYTES: Final = 7
"""Size of the header of each packet if there is no extradata, in bytes (ISO 13818-7, 6.2)."""
_MORE_FRAMES_MASK: Final = 3
"""Mask for its last byte: the number of AAC frames in a packet after the first."""

Samples = npt.NDArray[np.float32]
"""Samples of all channels, -1 to 1, of shape (channels, samples)."""


def config_of(context: av.AudioCodecContext) -> bytes | None:
    """Return the AAC configuration, which must match to copy packets; None if unknown."""
    aac = context.codec.canonical_name == "aac"
    return short_config(context.extradata or b"") if aac else None


def short_config(extradata: bytes) -> bytes | None:
    """Return the part of AAC's extradata that two streams must share; None if it is too short."""
    return extradata[:_CONFIG_BYTES] if len(extradata) >= _CONFIG_BYTES else None


def config_of_adts(packet: Packet) -> bytes | None:
    """Return the configuration in a packet's ADTS header.

    None if it has no such header, or several frames, which other formats need as several packets.
    """
    head = bytes(memoryview(packet)[:_ADTS_HEADER_BYTES])
    found = AdtsConfig.parse(head)
    is_single = found is not None and not head[_ADTS_HEADER_BYTES - 1] & _MORE_FRAMES_MASK
    return found.extradata if found is not None and is_single else None


def open_matching_encoder(source: av.AudioCodecContext | None) -> av.AudioCodecContext:
    """Open an AAC encoder that matches an AAC source, else mono or stereo at 44.1 or 48 kHz.

    Raises OutputError.
    """
    if source is None:
        return open_encoder(max(_FALLBACK_RATES), "stereo")
    is_complete = source.rate and source.layout.nb_channels  # a damaged stream may lack them
    if is_complete and source.codec.canonical_name == "aac":
        try:
            like = open_encoder(source.rate, source.layout.name)
            if config_of(source) in (config_of(like), None):
                return like
        except OutputError:
            log.debug("no AAC encoder for %s at %d Hz", source.layout.name, source.rate)
    rate = source.rate if source.rate in _FALLBACK_RATES else max(_FALLBACK_RATES)
    return open_encoder(rate, "mono" if source.layout.nb_channels == 1 else "stereo")


def open_encoder(rate: int, layout: str) -> av.AudioCodecContext:
    """Open an AAC encoder. Raises OutputError."""
    context = av.CodecContext.create("aac", "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.layout, context.format = rate, layout, FORMAT
    context.bit_rate = _BITRATE
    context.time_base = Fraction(1, rate)
    context.flags |= av.codec.context.Flags.global_header
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as exc:
        raise OutputError(f"the AAC encoder cannot start: {reason(exc)}") from exc
    return context


class FrameEncoder:
    """Encodes samples in whole frames with an AAC encoder. Not thread-safe."""

    def __init__(self, context: av.AudioCodecContext) -> None:
        self.context = context
        self.end = 0
        """Place at which the samples passed so far end, in samples."""
        self._rest = silent_samples(context)

    def seek(self, place: int) -> None:
        """Continue at another place; discard the samples of an incomplete frame."""
        self.end, self._rest = place, silent_samples(self.context)

    def encode(self, samples: Samples) -> Iterator[Packet]:
        """Yield the packets that these samples complete; pts are in samples."""
        size = self.context.frame_size
        whole = np.concatenate([self._rest, samples], axis=1)
        place = self.end - self._rest.shape[1]
        self.end += samples.shape[1]
        count = whole.shape[1] // size
        self._rest = whole[:, count * size :]
        for k in range(count):
            part = whole[:, k * size : (k + 1) * size]
            yield from self.context.encode(_frame(part, self.context, place + k * size))


def silent_packet(like: av.AudioCodecContext) -> bytes:
    """Return an encoded frame of silence with the rate and layout of `like`."""
    encoder = FrameEncoder(open_encoder(like.rate, like.layout.name))
    packets: list[av.Packet[Any]] = list(encoder.encode(silent_samples(like, 4 * like.frame_size)))
    return bytes(packets[-1])  # after the encoder's start-up


def silent_samples(like: av.AudioCodecContext, count: int = 0) -> Samples:
    """Return `count` samples of silence."""
    return np.zeros((like.layout.nb_channels, count), np.float32)


def _frame(samples: Samples, like: av.AudioCodecContext, place: int) -> av.AudioFrame:
    whole = np.ascontiguousarray(samples.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(whole, format=PACKED, layout=like.layout.name)
    frame.sample_rate, frame.pts = like.rate, place
    frame.time_base = Fraction(1, like.rate)
    return frame
