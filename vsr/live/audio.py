"""Makes the audio of a relay: copies AAC packets if possible, else encodes to AAC.

Every server and player accepts AAC. The first session determines sample rate and channels; audio
of later sessions is converted to them. Gaps are filled with silence, because many players stop when
the audio stops. Times are output times (see `clock.py`), in seconds, and only increase.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av

from vsr.errors import reason
from vsr.live.aac import (
    FrameEncoder,
    Samples,
    adts_config,
    config_of,
    encoder_like,
    no_samples,
    short_config,
    silent_packet,
)
from vsr.live.output.encode import AudioItem
from vsr.live.track import SampleLine
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

_LONGEST: Final = 2.0
"""Silence sent after a gap above `_GAP`, in seconds: a machine that slept does not send it all."""
_GAP: Final = 15.0
"""Longest gap that is filled with silence, in seconds; a longer one remains a gap."""
_PAUSE: Final = 0.1
"""Shortest gap between two packets that counts as lost audio, not as jitter, in seconds."""


@dataclass
class SoundCounts:
    """Counters of lost and replaced audio of the source."""

    late: int = 0
    """Number of packets that were not sent because their time had passed."""
    undecodable: int = 0
    silence_s: float = 0.0
    """Duration of the silence sent in place of audio, in seconds."""


class Sound:
    """Produces an output's audio packets. Not thread-safe."""

    def __init__(self, source: av.AudioCodecContext | None) -> None:
        """`source` is the first session's audio decoder; None: no audio. Raises OutputError."""
        self.context = encoder_like(source)
        """Encoder context, which describes the output's audio."""
        self.until = 0.0
        """Output time at which the audio made so far ends."""
        self.counts = SoundCounts()
        self._config = config_of(self.context)
        self._silence = silent_packet(self.context)
        self._rate = self.context.rate
        self._frame_s = self.context.frame_size / self._rate
        self._encoder = FrameEncoder(self.context)
        self._line = SampleLine(self.context)
        self._sent = -1.0
        """Output time of the newest packet."""
        self.begin(source)

    def begin(self, source: av.AudioCodecContext | None) -> None:
        """Continue with audio that `source` decodes; None if there is no audio."""
        self._decoder = source
        self._told = config_of(source) if source else None
        self._headless = av.BitStreamFilterContext("aac_adtstoasc", "aac")
        self.copied = False
        self._go_on_at(self.until)
        self._copy(source is not None and self._told == self._config)

    def send(self, packet: Packet, time: float, origin: float = 0.0) -> Iterator[AudioItem]:
        """Yield the output packets for a source packet that is to be played at `time` (s).

        `origin` is its source time (s).
        """
        if self._decoder is None:
            return
        if packet.has_sidedata("new_extradata"):  # the stream changes or restarts
            self._told = short_config(bytes(packet.get_sidedata("new_extradata")))
        aac = self._decoder.codec.canonical_name == "aac"
        header = adts_config(packet) if aac else None
        self._copy(aac and (header or self._told) == self._config)
        if not self.copied:
            yield from self._encoded(packet, time, origin)
        elif time + self._frame_s / 2 <= self.until or time < 0:
            self.counts.late += time >= 0  # audio before output time 0 does not count
        else:
            before = self.until
            yield from self._silent(time)
            self._count_silence(self.until - before)
            for bare in self._without_header(packet) if header else [packet]:
                yield from self._moved(bare, time, origin)

    def silence(self, end: float) -> Iterator[AudioItem]:
        """Yield whole frames of silence from the end of the audio to `end` (s)."""
        if end - self.until > _GAP:
            self._go_on_at(end - _LONGEST)
        before = self.until
        yield from self._silent(end)
        self.counts.silence_s += self.until - before

    def _copy(self, copied: bool) -> None:
        """Switch to copying packets, or to encoding them."""
        if copied != self.copied:
            self._go_on_at(self.until)
        self.copied = copied

    def _go_on_at(self, time: float) -> None:
        self.until = max(time, self.until)
        self._encoder.move(round(self.until * self._rate))
        self._line.interrupt()

    def _silent(self, end: float) -> Iterator[AudioItem]:
        if self._decoder is not None and not self.copied:
            missing = int(end * self._rate) - self._encoder.end
            if missing > 0:
                self._line.interrupt()
                yield from self._put(no_samples(self.context, missing))
            return
        if end - self.until > _GAP:
            return
        while self.until + self._frame_s <= end:
            packet: Packet = av.Packet(self._silence)
            packet.time_base = Fraction(1, self._rate)
            packet.duration = self.context.frame_size
            yield from self._moved(packet, self.until, None)

    def _count_silence(self, seconds: float) -> None:
        self.counts.silence_s += seconds if seconds > _PAUSE else 0.0

    def _without_header(self, packet: Packet) -> Iterable[Packet]:
        try:
            return self._headless.filter(packet)
        except (av.error.FFmpegError, ValueError) as exc:
            self._skip(exc)
            return ()

    def _skip(self, exc: Exception) -> None:
        """Count a damaged packet."""
        self.counts.undecodable += 1
        log.debug("a packet of sound is skipped: %s", reason(exc))

    def _moved(self, packet: Packet, time: float, origin: float | None) -> Iterator[AudioItem]:
        assert packet.time_base is not None
        packet.pts = packet.dts = round(time / packet.time_base)
        self.until = time + self._frame_s
        if time > self._sent:
            self._sent = time
            yield AudioItem(packet, origin)

    def _encoded(self, packet: Packet, time: float, origin: float) -> Iterator[AudioItem]:
        assert self._decoder is not None
        begin, base, late, at = packet.pts, packet.time_base, 0, 0.0
        try:
            for frame in self._decoder.decode(packet):
                if frame.pts is not None and begin is not None and base is not None:
                    at = float((frame.pts - begin) * base)  # without the encoder's priming samples
                length = frame.samples / frame.sample_rate
                gap = time + at - self.until
                if gap > _GAP:
                    self._go_on_at(time + at)
                else:
                    self._count_silence(gap)
                samples = self._line.lay(frame, time + at, origin + at, self._encoder.end)
                if samples is None:
                    late = int(time + at >= 0)
                else:
                    yield from self._put(samples)
                at += length
        except (av.error.FFmpegError, ValueError) as exc:
            self._skip(exc)
        self.counts.late += late

    def _put(self, samples: Samples) -> Iterator[AudioItem]:
        packets = list(self._encoder.encode(samples))
        self.until = self._encoder.end / self._rate
        for packet in packets:
            assert packet.pts is not None
            time = packet.pts / self._rate
            if time >= 0 and time > self._sent:
                self._sent = time
                middle = packet.pts + self.context.frame_size // 2
                origin = self._line.origin(middle)
                half = self._frame_s / 2
                yield AudioItem(packet, None if origin is None else origin - half)
