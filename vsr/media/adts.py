"""Keeps ADTS AAC of broadcasts (ISO 14496-3, 1.A.2.2) in one format if it changes mid-stream."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Self

import av

from vsr.media.timestamps import Packet
from vsr.media.transcode import AudioReencoder

log = logging.getLogger(__name__)

_HEADER_BYTES: Final = 7
_RATES: Final = (
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
)  # fmt: skip
_LAYOUTS: Final = {
    1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0(side)", 6: "5.1(side)", 7: "7.1",
}  # fmt: skip
_LOW_COMPLEXITY: Final = 1
_BITS_PER_CHANNEL: Final = 96_000


@dataclass(frozen=True)
class AdtsConfig:
    """Audio format that the header of an ADTS frame declares."""

    profile: int
    rate_index: int
    channels: int

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """Parse an ADTS header at the start of a packet; return None if there is no valid one."""
        if len(data) < _HEADER_BYTES or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
            return None
        channels = (data[2] & 1) << 2 | data[3] >> 6
        found = cls(data[2] >> 6, data[2] >> 2 & 0xF, channels)
        return found if found.rate_index < len(_RATES) and channels in _LAYOUTS else None

    @property
    def extradata(self) -> bytes:
        """The same configuration as AAC extradata (ISO 14496-3, 1.6.2.1)."""
        kind, rate = self.profile + 1, self.rate_index
        return bytes((kind << 3 | rate >> 1, (rate & 1) << 7 | self.channels << 3))

    def __str__(self) -> str:
        return f"{_RATES[self.rate_index]} Hz {_LAYOUTS[self.channels].removesuffix('(side)')}"

    def open_encoder(self) -> av.AudioCodecContext:
        """Open an encoder for packets of this configuration. Raises FFmpegError, ValueError."""
        context = av.CodecContext.create("aac", "w")
        assert isinstance(context, av.AudioCodecContext)
        context.sample_rate, context.layout = _RATES[self.rate_index], _LAYOUTS[self.channels]
        context.format = "fltp"
        context.bit_rate = _BITS_PER_CHANNEL * context.layout.nb_channels
        context.time_base = Fraction(1, context.sample_rate)
        context.open()
        return context

    def with_header(self, packet: Packet) -> Packet:
        """Copy a raw AAC packet and prepend an ADTS header."""
        size = packet.size + _HEADER_BYTES
        header = bytes([
            0xFF, 0xF1, _LOW_COMPLEXITY << 6 | self.rate_index << 2 | self.channels >> 2,
            (self.channels & 3) << 6 | size >> 11, size >> 3 & 0xFF, (size & 7) << 5 | 0x1F, 0xFC,
        ])  # fmt: skip
        made: Packet = av.Packet(header + bytes(packet))
        made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
        made.duration, made.is_keyframe = packet.duration, True
        return made


class AacFormatKeeper:
    """Copies AAC packets until their format changes, then re-encodes them to the first format.

    MP4, Matroska and FLV declare the packet format once per track; a broadcast may change from
    stereo to 5.1 for a film, and the later packets would be played wrongly. Use from one thread.
    """

    def __init__(self, copy: av.stream.Stream, source: av.AudioStream) -> None:
        self.stream, self._source = copy, source
        self._first: AdtsConfig | None = None
        self._encoding: AudioReencoder | None = None
        self._begin = Fraction(0)

    def packets(self, packet: Packet) -> Iterator[Packet]:
        """Yield the output packets for one input packet."""
        config = AdtsConfig.parse(bytes(memoryview(packet)[:_HEADER_BYTES]))
        self._first = self._first or config
        if self._encoding is None and config is not None and config != self._first:
            self._start_reencoding(packet, config)
        if self._encoding is None:
            yield packet
        else:
            yield from self._with_headers(self._encoding.packets(packet))

    def flush(self) -> Iterator[Packet]:
        """Flush the encoder, if there is one, and yield its packets."""
        if self._encoding is not None:
            yield from self._with_headers(self._encoding.flush())

    def _start_reencoding(self, packet: Packet, config: AdtsConfig) -> None:
        assert self._first is not None
        self._begin = Fraction(packet.pts or 0) * (packet.time_base or 1)
        log.warning(
            "audio #%d changes from %s to %s at %.2f s: re-encoded to the first format from there",
            self._source.index, self._first, config, float(self._begin),
        )  # fmt: skip
        context = self._first.open_encoder()
        self._encoding = AudioReencoder(self._source.codec_context, context, self._source.time_base)

    def _with_headers(self, made: Iterator[Packet]) -> Iterator[Packet]:
        assert self._first is not None
        for packet in made:
            assert packet.pts is not None
            assert packet.time_base is not None
            if packet.pts * packet.time_base >= self._begin:  # drops encoder priming
                yield self._first.with_header(packet)
