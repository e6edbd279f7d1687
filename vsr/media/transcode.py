"""Re-encodes audio, and converts text subtitles, that a container cannot hold unchanged."""

import io
import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.filter import Graph
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream

from vsr.errors import reason
from vsr.media.channel_layout import encoder_layout
from vsr.media.passthrough import close_quietly
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

LOSSY: Final = ("aac", "libopus", "ac3")
"""Audio encoders to try, best first: for MP4 and most others, for WebM, for the rest."""
LOSSLESS: Final = ("flac", "alac", *LOSSY)
"""Encoders to try for lossless audio, best first; MOV holds ALAC, not FLAC."""
TEXT: Final = ("subrip", "mov_text", "webvtt")
"""Text subtitle encoders to try: for Matroska, the MP4 family, WebM."""
_SUPPORTED: Final = {"mpegts": ("aac", "ac3"), "flv": ("aac",)}
"""Container -> audio encoders that players support, if FFmpeg writes others too."""
_MAX_SAMPLE: Final = 32.0
"""Maximum sample value that is not taken for damage; full scale is 1."""
_BITS_PER_CHANNEL: Final = 96_000
_MIN_GAP_S: Final = 0.02
"""Minimum gap that is filled with silence, in seconds; shorter ones are clock jitter."""
_EMPTY_SCRIPT: Final = b"[Script Info]\n[V4+ Styles]\n[Events]\n"
"""Minimal ASS header with which subtitle encoders start."""
_ERRORS: Final = (av.error.FFmpegError, ValueError)


def packed_format(name: str) -> str:
    """Return the packed sample format of the same samples: all channels in one plane.

    PyAV 18.1 looks for the planes of a planar frame up to an empty pointer, and a frame of eight
    or more channels has none: it crashes. So planes are read and written in packed frames only.
    """
    return name.removesuffix("p")


def limit_samples(frame: AudioFrame) -> None:
    """Clip samples far beyond full scale, as decoded from damaged audio, in place.

    FFmpeg's AAC encoder does not return on such samples, and refuses NaN. The frame is packed; see
    `packed_format`.
    """
    assert frame.format.is_packed, frame.format.name
    if frame.format.name != "flt":
        return
    samples = np.frombuffer(cast(Any, frame.planes[0]), np.float32)  # the stub has no buffer
    if not np.abs(samples).max(initial=0) <= _MAX_SAMPLE:  # also true if one is NaN
        samples[:] = np.clip(np.nan_to_num(samples), -_MAX_SAMPLE, _MAX_SAMPLE)


def audio_encoder_for(stream: av.AudioStream, container: str) -> str | None:
    """Return FFmpeg's encoder for an audio stream in a container; None if there is none."""
    codec = stream.codec_context.codec
    lossless = codec.lossless and not codec.lossy
    return _first_supported(LOSSLESS if lossless else LOSSY, container)


def subtitle_encoder_for(stream: av.stream.Stream, container: str) -> str | None:
    """Return FFmpeg's encoder for a text subtitle in a container; None if there is none.

    Image subtitles are not text.
    """
    context = stream.codec_context
    if stream.type != "subtitle" or context is None or not context.codec.text_sub:
        return None
    return _first_supported(TEXT, container)


def _first_supported(encoders: tuple[str, ...], container: str) -> str | None:
    played = _SUPPORTED.get(container, encoders)
    return next((name for name in encoders if name in played and _can_hold(name, container)), None)


def _can_hold(encoder: str, container: str) -> bool:
    trial = av.open(io.BytesIO(), "w", format=container)
    try:
        stream = trial.add_stream(encoder)
        stream.time_base = Fraction(1, 1000)
        if isinstance(stream, SubtitleStream):
            stream.codec_context.subtitle_header = _EMPTY_SCRIPT
        trial.start_encoding()
    except _ERRORS:
        return False
    finally:
        close_quietly(trial)
    return True


class AudioReencoder:
    """Decodes the packets of an audio stream and re-encodes them; times and gaps are kept.

    Audio that changes its rate, format or layout mid-stream is converted to the encoder's.
    """

    def __init__(
        self,
        decoder: av.AudioCodecContext,
        encoder: av.AudioCodecContext,
        time_base: Fraction | None,
    ) -> None:
        """`time_base` is the input's time base in seconds; `encoder` is already open."""
        self._decoder, self._context, self._time_base = decoder, encoder, time_base
        self._graph: Graph | None = None
        self._kind: object = None
        self.undecodable = 0
        """Number of packets that could not be decoded."""

    def packets(self, packet: Packet) -> Iterator[Packet]:
        """Decode an input packet; yield the packets encoded from it."""
        try:
            frames = self._decoder.decode(packet)
        except _ERRORS as exc:
            self.undecodable += 1
            log.debug("an audio packet is skipped: %s", reason(exc))
            return
        for frame in frames:
            yield from self._encoded(frame)

    def flush(self) -> Iterator[Packet]:
        """Flush decoder, filters and encoder; yield the last packets."""
        try:
            for frame in self._decoder.decode(None):
                yield from self._encoded(frame)
        except _ERRORS as exc:
            log.debug("the end of an audio stream is skipped: %s", reason(exc))
        yield from self._drained()
        yield from self._context.encode(None)

    def _encoded(self, frame: AudioFrame) -> Iterator[Packet]:
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            yield from self._drained()
            self._graph, self._kind = self._new_graph(frame), kind
        assert self._graph is not None
        if frame.pts is not None and frame.time_base is None:
            frame.time_base = self._time_base
        self._graph.push(frame)
        yield from self._pulled(self._graph)

    def _drained(self) -> Iterator[Packet]:
        """Flush and drop the filters; yield the packets encoded from them."""
        graph, self._graph, self._kind = self._graph, None, None
        if graph is not None:
            graph.push(None)
            yield from self._pulled(graph)

    def _pulled(self, graph: Graph) -> Iterator[Packet]:
        while True:
            try:
                frame = graph.pull()
            except (BlockingIOError, EOFError):
                return
            assert isinstance(frame, AudioFrame)
            limit_samples(frame)
            yield from self._context.encode(frame)

    def _new_graph(self, frame: AudioFrame) -> Graph:
        """Build filters that fill gaps with silence and convert to the encoder's format.

        The frames are packed; the encoder makes them planar if it needs that.
        """
        context = self._context
        graph = Graph()
        form = packed_format(context.format.name)
        wanted = f"sample_fmts={form}:channel_layouts={context.layout.name}"
        graph.link_nodes(
            graph.add_abuffer(
                format=frame.format.name, layout=frame.layout.name, sample_rate=frame.sample_rate,
                time_base=frame.time_base or self._time_base,
            ),
            graph.add("aresample", f"{context.sample_rate}:async=1:min_hard_comp={_MIN_GAP_S}"),
            graph.add("aformat", f"{wanted}:sample_rates={context.sample_rate}"),
            graph.add("abuffersink"),
        ).configure()  # fmt: skip
        return graph


class AudioTranscoder(AudioReencoder):
    """Re-encodes an audio stream of the input for the output, with another codec."""

    def __init__(
        self, output: "av.container.OutputContainer", stream: av.AudioStream, encoder: str
    ) -> None:
        """Add a stream like `stream` to `output`. Raises FFmpegError or ValueError."""
        source = stream.codec_context
        layout = encoder_layout(encoder, source.layout)
        if layout is None:  # before a stream is added, as it could not be removed
            raise ValueError(f"{encoder} does not encode {source.layout.name}")
        added = output.add_stream(encoder, rate=_rate(encoder, source.sample_rate))
        assert isinstance(added, av.AudioStream)
        context = added.codec_context
        context.layout = layout
        context.format = _format(context.codec, source.format.name)
        if not context.codec.lossless:
            context.bit_rate = _BITS_PER_CHANNEL * context.layout.nb_channels
        context.time_base = Fraction(1, context.sample_rate)
        context.open()
        added.time_base = context.time_base
        super().__init__(source, context, stream.time_base)
        self.stream = added


def _rate(encoder: str, rate: int) -> int:
    """Return the encoder's lowest sample rate that loses nothing, else its highest."""
    rates = av.Codec(encoder, "w").audio_rates
    if not rates or rate in rates:
        return rate
    return min((r for r in rates if r > rate), default=max(rates))


def _format(codec: av.Codec, wanted: str) -> str:
    """Return the encoder's sample format nearest to the decoder's."""
    names = [f.name for f in codec.audio_formats or ()]
    plain = wanted.removesuffix("p")
    for name in (wanted, f"{plain}p", plain):
        if name in names:
            return name
    deep = next((name for name in names if name.startswith("s32")), "")
    return deep if deep and plain not in ("u8", "s16") else names[0]


class SubtitleConverter:
    """Decodes a text subtitle stream and encodes it in another format; times are kept."""

    def __init__(
        self, output: "av.container.OutputContainer", stream: av.stream.Stream, encoder: str
    ) -> None:
        """Add a stream like `stream` to `output`. Raises FFmpegError or ValueError."""
        decoder = stream.codec_context
        assert isinstance(decoder, SubtitleCodecContext)
        decoder.open(strict=False)  # creates its header
        added = output.add_stream(encoder)
        self.stream, self._decoder = added, decoder
        context = added.codec_context
        assert isinstance(context, SubtitleCodecContext)
        self._context = context
        context.subtitle_header = decoder.subtitle_header or _EMPTY_SCRIPT
        context.time_base = added.time_base = stream.time_base or Fraction(1, 1000)
        context.open()

    def packets(self, packet: Packet) -> Iterator[Packet]:
        """Convert a packet; an empty one, which ends the text before it in MP4, yields nothing."""
        try:
            text = self._decoder.decode2(packet)
            if text is None or not len(text):
                return
            made = self._context.encode_subtitle(text)
        except _ERRORS as exc:
            log.debug("a subtitle packet is skipped: %s", reason(exc))
            return
        made.time_base, made.pts, made.dts = packet.time_base, packet.pts, packet.dts
        made.duration = packet.duration
        yield made

    def flush(self) -> Iterator[Packet]:
        """Return an empty iterator: nothing is buffered."""
        return iter(())
