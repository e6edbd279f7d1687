"""Audio of a relay: copies AAC packets where it can, else encodes to AAC.

AAC is what every server and player takes. The first session settles rate and channels; what later
ones bring is converted to them, and where nothing comes there is silence: many players stop with
the sound. Times are the output's (see `clock.py`), in seconds; they only go forward.
"""

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final, cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler

from vsr.errors import OutputError, reason
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

_RATES: Final = (44_100, 48_000)
"""What everything that is not AAC becomes."""
_BITS: Final = 160_000
_FORMAT: Final = "fltp"
_CONFIG: Final = 2
"""Leading bytes of AAC's extradata, which tell kind, rate, channels (ISO 14496-3, 1.6.2.1)."""
_SLACK: Final = 0.1
"""Seconds by which sound may be off its time before it is put there anew."""
_LONGEST: Final = 2.0
"""Seconds of silence at once: a machine that slept does not catch up on it."""


class Sound:
    """Produces an output's audio packets. Not thread-safe."""

    def __init__(self, source: av.AudioCodecContext) -> None:
        """`source` decodes the first session's sound. Raises OutputError."""
        self.context = _encoder(source)
        """Describes the output's sound."""
        self.until = 0.0
        """Time at which what was sent so far ends."""
        self.dropped = 0
        """Packets that were not sent because their time had passed, or that cannot be decoded."""
        self._silence = _silent_packet(self.context)
        self._step = Fraction(1, self.context.rate)
        self._frame_s = self.context.frame_size / self.context.rate
        self._rest = _samples(self.context)
        """Samples that make no whole frame yet; `_place` counts those before them in the output."""
        self._place = 0
        self._kind: tuple[str, str, int] | None = None
        self.begin(source)

    def begin(self, source: av.AudioCodecContext | None) -> None:
        """Begin a session whose audio `source` decodes; None if it has none."""
        self._decoder = source
        self.copied = source is not None and _config(source) == _config(self.context)
        self._restart(round(self.until * self.context.rate))

    def send(self, packet: Packet, time: float) -> Iterator[Packet]:
        """Yield the output's packets for a packet of the source, played at `time` (s)."""
        if self._decoder is None:
            return
        if packet.has_sidedata("new_extradata"):  # it changes on the way, or begins again
            told = bytes(packet.get_sidedata("new_extradata"))
            self.copied = self.copied and told[:_CONFIG] == _config(self.context)
        made = self._moved(packet, time) if self.copied else self._encoded(packet, time)
        for ready in made:
            assert ready.pts is not None
            assert ready.time_base is not None
            at = float(ready.pts * ready.time_base)
            if at + self._frame_s / 2 <= self.until or at < 0:
                self.dropped += 1
                continue  # a step back: what was said already is not said again
            self.until = at + self._frame_s
            yield ready

    def silence(self, end: float) -> Iterator[Packet]:
        """Yield whole frames of silence from the end of the audio to that time."""
        place = round(max(self.until, end - _LONGEST) * self.context.rate)
        while (place + self.context.frame_size) * self._step <= end:
            packet: Packet = av.Packet(self._silence)
            packet.time_base, packet.pts, packet.dts = self._step, place, place
            packet.duration = self.context.frame_size
            place += self.context.frame_size
            self.until = float(place * self._step)
            yield packet

    def _moved(self, packet: Packet, time: float) -> Iterator[Packet]:
        assert packet.time_base is not None
        packet.pts = packet.dts = round(time / packet.time_base)
        yield packet

    def _encoded(self, packet: Packet, time: float) -> Iterator[Packet]:
        assert self._decoder is not None
        assert packet.pts is not None
        assert packet.time_base is not None
        try:
            for frame in self._decoder.decode(packet):
                # decoders leave out what encoders put before the sound
                late = 0 if frame.pts is None else frame.pts - packet.pts
                if self._fits(round((time + late * packet.time_base) * self.context.rate)):
                    yield from self._resampled(frame)
                else:
                    self.dropped += 1
        except (av.error.FFmpegError, ValueError) as exc:
            self.dropped += 1
            log.debug("a packet of sound is skipped: %s", reason(exc))

    def _fits(self, place: int) -> bool:
        """Whether audio at that sample continues what was sent; False if it lies before its end."""
        held = self._place + self._rest.shape[1]
        slack = _SLACK * self.context.rate
        if place > held + slack:
            self._restart(place)
        return bool(place >= held - slack)

    def _resampled(self, frame: av.AudioFrame) -> Iterator[Packet]:
        frame.pts = None  # the output's times are counted in samples
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:  # such as from stereo to mono, on the way
            self._kind = kind
            self._resampler = self._new_resampler()
        for part in self._resampler.resample(frame):
            samples = cast(npt.NDArray[np.float32], part.to_ndarray())
            self._rest = np.concatenate([self._rest, samples], axis=1)
            yield from self._whole_frames()

    def _whole_frames(self) -> Iterator[Packet]:
        size = self.context.frame_size
        while self._rest.shape[1] >= size:
            chunk, self._rest = self._rest[:, :size], self._rest[:, size:]
            yield from self.context.encode(_frame(chunk, self.context, self._place))
            self._place += size

    def _restart(self, place: int) -> None:
        """Place the next samples there."""
        self._place = place
        self._rest = _samples(self.context)
        self._kind = None

    def _new_resampler(self) -> AudioResampler:
        return AudioResampler(_FORMAT, self.context.layout.name, self.context.rate)


def _config(context: av.AudioCodecContext) -> bytes | None:
    """Return the AAC configuration that must match for packets to be copied; else None."""
    extradata = context.extradata or b""
    aac = context.codec.canonical_name == "aac" and len(extradata) >= _CONFIG
    return extradata[:_CONFIG] if aac else None


def _encoder(source: av.AudioCodecContext) -> av.AudioCodecContext:
    """Open an AAC encoder like the source, else mono or stereo at one of `_RATES`."""
    told = source.rate and source.layout.nb_channels  # a damaged stream may not say
    if told and source.codec.canonical_name == "aac":
        try:
            like = _opened(source.rate, source.layout.name)
            if _config(like) == _config(source):
                return like
        except OutputError:
            log.debug("no AAC of %s at %d Hz", source.layout.name, source.rate)
    rate = source.rate if source.rate in _RATES else max(_RATES)
    return _opened(rate, "mono" if source.layout.nb_channels == 1 else "stereo")


def _opened(rate: int, layout: str) -> av.AudioCodecContext:
    context = av.CodecContext.create("aac", "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.layout, context.format = rate, layout, _FORMAT
    context.bit_rate = _BITS
    context.time_base = Fraction(1, rate)
    context.flags |= av.codec.context.Flags.global_header
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as exc:
        raise OutputError(f"the AAC encoder cannot start: {reason(exc)}") from exc
    return context


def _silent_packet(like: av.AudioCodecContext) -> bytes:
    """Encode a frame of silence with an encoder like that one."""
    context = _opened(like.rate, like.layout.name)
    nothing = _samples(like, like.frame_size)
    packets: list[av.Packet[Any]] = []
    for k in range(4):  # past its start-up
        packets += context.encode(_frame(nothing, like, k * like.frame_size))
    return bytes(packets[-1])


def _samples(like: av.AudioCodecContext, count: int = 0) -> npt.NDArray[np.float32]:
    return np.zeros((like.layout.nb_channels, count), np.float32)


def _frame(
    samples: npt.NDArray[np.float32], like: av.AudioCodecContext, place: int
) -> av.AudioFrame:
    whole = np.ascontiguousarray(samples)
    frame = av.AudioFrame.from_ndarray(whole, format=_FORMAT, layout=like.layout.name)
    frame.sample_rate, frame.pts = like.rate, place
    frame.time_base = Fraction(1, like.rate)
    return frame
