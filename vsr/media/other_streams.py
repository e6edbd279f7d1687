"""Decides for each other stream of an input whether an output copies, encodes or omits it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import av

from vsr.media.adts import AacFormatKeeper
from vsr.media.channel_layout import can_decode, has_own_order, layout_of
from vsr.media.copying import (
    HOLDS_ATTACHMENTS,
    attach_cover,
    can_copy,
    codec_name,
    copy_stream,
    is_cover,
    stream_label,
)
from vsr.media.hidden import StartCutter
from vsr.media.passthrough import MP4_FAMILY
from vsr.media.stream_tags import describe_lost_marks, stream_tags
from vsr.media.timestamps import MonotonicDts, Packet
from vsr.media.transcode import (
    AudioTranscoder,
    SubtitleConverter,
    audio_encoder_for,
    subtitle_encoder_for,
)

AUDIO_MODES: Final = ("copy", "encode", "none")
"""Audio modes: copy, and encode only if the container cannot hold the codec; always encode; leave
out."""
_BLU_RAY_ENDING: Final = ".m2ts"
"""File ending for which FFmpeg's muxer writes a Blu-ray transport stream."""
_TS_NONSTRICT: Final = 0x20000
"""FFmpeg's flag AVFMT_TS_NONSTRICT: the muxer accepts equal timestamps."""
_MIXED: Final = 8
"""Number of channels up to which FFmpeg mixes all into a smaller layout."""
_ERRORS: Final = (av.error.FFmpegError, ValueError)


class _PacketConverter(Protocol):
    """Makes output packets from input packets."""

    @property
    def stream(self) -> av.stream.Stream: ...

    def packets(self, packet: Packet) -> Iterator[Packet]: ...

    def flush(self) -> Iterator[Packet]: ...


class _Copier:
    """Passes packets on unchanged."""

    def __init__(self, stream: av.stream.Stream) -> None:
        self.stream = stream

    def packets(self, packet: Packet) -> Iterator[Packet]:
        yield packet

    def flush(self) -> Iterator[Packet]:
        return iter(())


@dataclass
class OtherStreams:
    """Copies or encodes the other streams of one input for one output. Use from one thread."""

    output: "av.container.OutputContainer"
    audio: str = "copy"
    """Audio mode, one of `AUDIO_MODES`."""
    covers: Mapping[int, bytes] = field(default_factory=dict)
    """Picture of each cover art stream, by the stream's index in the input."""
    left_out: list[str] = field(default_factory=list)
    """Names of streams that the container cannot hold in any form, for messages."""
    lost: list[str] = field(default_factory=list)
    """Properties that the container drops of streams it holds, for messages."""
    converted: list[str] = field(default_factory=list)
    """Descriptions of streams that get another codec, for messages."""
    _converters: dict[int, _PacketConverter] = field(default_factory=dict)
    _cutters: dict[int, StartCutter] = field(default_factory=dict)
    _dts: dict[int, MonotonicDts] = field(default_factory=dict)

    def add(self, stream: av.stream.Stream) -> None:
        """Add an input stream to the output, or record that it is left out."""
        sound = stream.type == "audio"
        if sound and self.audio == "none":
            return
        form = self.output.format.name
        if is_cover(stream) and form == HOLDS_ATTACHMENTS:
            if not attach_cover(self.output, stream, self.covers.get(stream.index, b"")):
                self.left_out.append(stream_label(stream))
            return
        blu_ray = form == "mpegts" and self.output.name.lower().endswith(_BLU_RAY_ENDING)
        converter: _PacketConverter | None = None
        decodable = isinstance(stream, av.AudioStream) and can_decode(stream)
        if not (decodable and self.audio == "encode") and can_copy(stream, form, blu_ray):
            converter = self._copying(stream)
            if form not in MP4_FAMILY and _is_in_own_order(stream):
                self.lost.append(f"the order of the channels of {stream_label(stream)}")
        elif isinstance(stream, av.AudioStream) and decodable:
            converter = self._encoded(stream, audio_encoder_for(stream, form))
        elif encoder := subtitle_encoder_for(stream, form):
            converter = self._encoded(stream, encoder)
        if converter is None:
            self.left_out.append(stream_label(stream))
            return
        self._converters[stream.index] = converter
        encoded = isinstance(converter, AudioTranscoder)
        self._cutters[stream.index] = StartCutter(form, stream, encoded)
        if marks := describe_lost_marks(stream, form):
            self.lost.append(f"{marks} of {stream_label(stream)}")

    def _copying(self, stream: av.stream.Stream) -> _PacketConverter:
        copy = copy_stream(self.output, stream)
        if not isinstance(stream, av.AudioStream) or self.output.format.name == "mpegts":
            return _Copier(copy)
        adts = codec_name(stream) == "aac" and not stream.codec_context.extradata
        return AacFormatKeeper(copy, stream) if adts else _Copier(copy)

    def _encoded(self, stream: av.stream.Stream, encoder: str | None) -> _PacketConverter | None:
        if encoder is None:
            return None
        made: AudioTranscoder | SubtitleConverter
        try:
            if isinstance(stream, av.AudioStream):
                made = AudioTranscoder(self.output, stream, encoder)
            else:
                made = SubtitleConverter(self.output, stream, encoder)
        except _ERRORS:
            return None
        made.stream.metadata.update(stream_tags(stream, self.output.format.name))
        made.stream.disposition = stream.disposition
        note = f"{stream_label(stream)} becomes {codec_name(made.stream)}"
        self.converted.append(note + _mixed_down(stream, made.stream))
        return made

    def packets(self, packet: Packet) -> Iterator[Packet]:
        """Yield the output packets for an input packet, ready to be muxed."""
        index = packet.stream.index
        converter = self._converters.get(index)
        if converter is not None:
            yield from self._muxable(index, converter, converter.packets(packet))

    def flush(self) -> Iterator[Packet]:
        """Flush the encoders and yield their packets."""
        for index, converter in self._converters.items():
            yield from self._muxable(index, converter, converter.flush())

    def _muxable(
        self, index: int, converter: _PacketConverter, made: Iterator[Packet]
    ) -> Iterator[Packet]:
        """Assign packets to their stream, with rising timestamps in its time base."""
        dts = self._dts.get(index)
        if dts is None:
            base = converter.stream.time_base
            assert base is not None
            equal = bool(self.output.format.flags & _TS_NONSTRICT)
            dts = self._dts[index] = MonotonicDts(base, equal)
        cutter = self._cutters[index]
        for packet in made:
            if cutter.admit(packet):
                packet.stream = converter.stream
                dts.correct(packet)
                yield packet


def _is_in_own_order(stream: av.stream.Stream) -> bool:
    """Return whether it is PCM, whose channels are not in FFmpeg's order; others state theirs."""
    if not isinstance(stream, av.AudioStream) or not codec_name(stream).startswith("pcm_"):
        return False
    return has_own_order(stream)


def _mixed_down(stream: av.stream.Stream, encoded: av.stream.Stream) -> str:
    """Describe that audio is encoded with fewer channels, for messages; else return ""."""
    if not (isinstance(stream, av.AudioStream) and isinstance(encoded, av.AudioStream)):
        return ""
    before, after = layout_of(stream.codec_context), layout_of(encoded.codec_context)
    if after.nb_channels >= before.nb_channels:
        return ""
    lost = " (channels of which it has none are lost)" if before.nb_channels > _MIXED else ""
    return f", mixed down from {before.name} to {after.name}{lost}"
