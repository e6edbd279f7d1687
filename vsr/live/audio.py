"""The sound of a relay: copied where the output can carry it, else encoded anew as AAC.

Times are the output's (see `clock.py`); they only go forward.
"""

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, cast

import av
from av.audio.resampler import AudioResampler

from vsr.errors import OutputError, reason
from vsr.timeline import Packet

log = logging.getLogger(__name__)

COPIED: Final = frozenset({"aac", "mp3"})
"""What every RTMP server and player takes."""
_RATE: Final = 48_000
_BITS: Final = 160_000
_FORMAT: Final = "fltp"


class Sound:
    """One session's sound on its way. Not thread-safe."""

    def __init__(self, stream: av.AudioStream) -> None:
        self.copied = stream.codec_context.name in COPIED
        self.context = stream.codec_context if self.copied else _encoder(stream)
        self._resampler = AudioResampler(_FORMAT, self.context.layout.name, self.context.rate)
        self._next = 0
        """The next sample's place in the output, in samples."""
        self._last_dts = -1

    def send(self, packet: Packet, time: float) -> Iterator[Packet]:
        """The packets of the output for one of the source that plays at `time` seconds there."""
        made = self._moved(packet, time) if self.copied else self._encoded(packet, time)
        for ready in made:
            if ready.dts is None or ready.dts <= self._last_dts:
                continue  # a jump back: what was said already is not said again
            self._last_dts = ready.dts
            yield ready

    def _moved(self, packet: Packet, time: float) -> Iterator[Packet]:
        if packet.time_base is None or packet.pts is None:
            return
        packet.pts = packet.dts = round(time / packet.time_base)
        yield packet

    def _encoded(self, packet: Packet, time: float) -> Iterator[Packet]:
        wanted = round(time * self.context.rate)
        if abs(wanted - self._next) > self.context.rate // 10:  # a gap: begin there anew
            self._next = wanted
        try:
            for frame in cast(list[av.AudioFrame], packet.decode()):
                for part in self._resampler.resample(frame):
                    part.pts, part.time_base = self._next, Fraction(1, self.context.rate)
                    self._next += part.samples
                    yield from self.context.encode(part)
        except av.error.FFmpegError as exc:
            log.debug("a packet of sound is skipped: %s", reason(exc))


def _encoder(stream: av.AudioStream) -> av.AudioCodecContext:
    """An AAC encoder for a stream's sound; mono stays mono, everything else becomes stereo."""
    context = av.CodecContext.create("aac", "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate = _RATE
    context.layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
    context.format = _FORMAT
    context.bit_rate = _BITS
    context.time_base = Fraction(1, _RATE)
    context.flags |= av.codec.context.Flags.global_header
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as exc:
        raise OutputError(f"the AAC encoder cannot start: {reason(exc)}") from exc
    return context


class Silence:
    """AAC frames of nothing, for players that stop when sound stops."""

    def __init__(self, like: av.AudioCodecContext) -> None:
        self._context = av.CodecContext.create("aac", "w")
        assert isinstance(self._context, av.AudioCodecContext)
        self._context.sample_rate, self._context.layout = like.rate, like.layout
        self._context.format = _FORMAT
        self._context.time_base = Fraction(1, like.rate)
        self._context.flags |= av.codec.context.Flags.global_header
        self._context.open()
        self._frame = av.AudioFrame(_FORMAT, self._context.layout.name, self._context.frame_size)
        for plane in self._frame.planes:
            plane.update(bytes(plane.buffer_size))
        self._frame.sample_rate = like.rate

    def until(self, begin: float, end: float) -> Iterator[Packet]:
        """Silence from one output time to another (s), as whole AAC frames."""
        assert isinstance(self._context, av.AudioCodecContext)
        rate, size = self._context.rate, self._context.frame_size
        place = round(begin * rate)
        while place + size <= end * rate:
            self._frame.pts, self._frame.time_base = place, Fraction(1, rate)
            place += size
            for packet in self._context.encode(self._frame):
                packet.pts = packet.dts = self._frame.pts
                yield packet
