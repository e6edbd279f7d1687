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
    config_of,
    config_of_adts,
    open_matching_encoder,
    short_config,
    silent_packet,
    silent_samples,
)
from vsr.live.output.encode import AudioItem
from vsr.live.sample_timeline import SampleTimeline
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

_MAX_FILLED_GAP_S: Final = 15.0
"""Longest gap that is filled with silence, in seconds; a longer one remains a gap."""
_SILENCE_AFTER_LONG_GAP_S: Final = 2.0
"""Silence sent after a longer gap than that, in seconds: a machine that slept does not send all."""
_MIN_LOST_GAP_S: Final = 0.1
"""Shortest gap between two packets that counts as lost audio, not as jitter, in seconds."""


@dataclass
class AudioCounts:
    """Counters of lost and replaced audio of the source."""

    late: int = 0
    """Number of packets that were not sent because their time had passed."""
    undecodable: int = 0
    silence_s: float = 0.0
    """Duration of the silence sent in place of audio, in seconds."""


class OutputAudio:
    """Produces an output's audio packets. Not thread-safe."""

    def __init__(self, source: av.AudioCodecContext | None) -> None:
        """`source` is the first session's audio decoder; None: no audio. Raises OutputError."""
        self.context = open_matching_encoder(source)
        """Encoder context, which describes the output's audio."""
        self.end_s = 0.0
        """Output time at which the audio made so far ends."""
        self.counts = AudioCounts()
        self._config = config_of(self.context)
        self._silence = silent_packet(self.context)
        self._rate = self.context.rate
        self._frame_s = self.context.frame_size / self._rate
        self._encoder = FrameEncoder(self.context)
        self._timeline = SampleTimeline(self.context)
        self._last_sent_s = -1.0
        """Output time of the newest packet."""
        self.set_source(source)

    def set_source(self, source: av.AudioCodecContext | None) -> None:
        """Continue with audio that `source` decodes; None if there is no audio."""
        self._decoder = source
        self._source_config = config_of(source) if source else None
        self._adts_filter = av.BitStreamFilterContext("aac_adtstoasc", "aac")
        self.is_copying = False
        self._seek(self.end_s)
        self._set_copying(source is not None and self._source_config == self._config)

    def convert(self, packet: Packet, time: float, source_time: float = 0.0) -> Iterator[AudioItem]:
        """Yield the output packets for a source packet that is to be played at `time` (s).

        `source_time` is its time in the source (s).
        """
        if self._decoder is None:
            return
        if packet.has_sidedata("new_extradata"):  # the stream changes or restarts
            self._source_config = short_config(bytes(packet.get_sidedata("new_extradata")))
        aac = self._decoder.codec.canonical_name == "aac"
        header = config_of_adts(packet) if aac else None
        self._set_copying(aac and (header or self._source_config) == self._config)
        if not self.is_copying:
            yield from self._encode(packet, time, source_time)
        elif time + self._frame_s / 2 <= self.end_s or time < 0:
            self.counts.late += time >= 0  # audio before output time 0 does not count
        else:
            before = self.end_s
            yield from self._fill_silence(time)
            self._count_silence(self.end_s - before)
            for bare in self._strip_adts(packet) if header else [packet]:
                yield from self._retimed(bare, time, source_time)

    def add_silence(self, end: float) -> Iterator[AudioItem]:
        """Yield whole frames of silence from the end of the audio to `end` (s)."""
        if end - self.end_s > _MAX_FILLED_GAP_S:
            self._seek(end - _SILENCE_AFTER_LONG_GAP_S)
        before = self.end_s
        yield from self._fill_silence(end)
        self.counts.silence_s += self.end_s - before

    def _set_copying(self, is_copying: bool) -> None:
        """Switch to copying packets, or to encoding them."""
        if is_copying != self.is_copying:
            self._seek(self.end_s)
        self.is_copying = is_copying

    def _seek(self, time: float) -> None:
        self.end_s = max(time, self.end_s)
        self._encoder.seek(round(self.end_s * self._rate))
        self._timeline.reset()

    def _fill_silence(self, end: float) -> Iterator[AudioItem]:
        if self._decoder is not None and not self.is_copying:
            missing = int(end * self._rate) - self._encoder.end
            if missing > 0:
                self._timeline.reset()
                yield from self._encode_samples(silent_samples(self.context, missing))
            return
        if end - self.end_s > _MAX_FILLED_GAP_S:
            return
        while self.end_s + self._frame_s <= end:
            packet: Packet = av.Packet(self._silence)
            packet.time_base = Fraction(1, self._rate)
            packet.duration = self.context.frame_size
            yield from self._retimed(packet, self.end_s, None)

    def _count_silence(self, seconds: float) -> None:
        self.counts.silence_s += seconds if seconds > _MIN_LOST_GAP_S else 0.0

    def _strip_adts(self, packet: Packet) -> Iterable[Packet]:
        try:
            return self._adts_filter.filter(packet)
        except (av.error.FFmpegError, ValueError) as exc:
            self._count_damaged(exc)
            return ()

    def _count_damaged(self, exc: Exception) -> None:
        """Count a damaged packet."""
        self.counts.undecodable += 1
        log.debug("skipped a damaged audio packet: %s", reason(exc))

    def _retimed(
        self, packet: Packet, time: float, source_time: float | None
    ) -> Iterator[AudioItem]:
        assert packet.time_base is not None
        packet.pts = packet.dts = round(time / packet.time_base)
        self.end_s = time + self._frame_s
        if time > self._last_sent_s:
            self._last_sent_s = time
            yield AudioItem(packet, source_time)

    def _encode(self, packet: Packet, time: float, source_time: float) -> Iterator[AudioItem]:
        assert self._decoder is not None
        begin, base, late, at = packet.pts, packet.time_base, 0, 0.0
        try:
            for frame in self._decoder.decode(packet):
                if frame.pts is not None and begin is not None and base is not None:
                    at = float((frame.pts - begin) * base)  # without the encoder's priming samples
                length = frame.samples / frame.sample_rate
                gap = time + at - self.end_s
                if gap > _MAX_FILLED_GAP_S:
                    self._seek(time + at)
                else:
                    self._count_silence(gap)
                samples = self._timeline.place(
                    frame, time + at, source_time + at, self._encoder.end
                )
                if samples is None:
                    late = int(time + at >= 0)
                else:
                    yield from self._encode_samples(samples)
                at += length
        except (av.error.FFmpegError, ValueError) as exc:
            self._count_damaged(exc)
        self.counts.late += late

    def _encode_samples(self, samples: Samples) -> Iterator[AudioItem]:
        packets = list(self._encoder.encode(samples))
        self.end_s = self._encoder.end / self._rate
        for packet in packets:
            assert packet.pts is not None
            time = packet.pts / self._rate
            if time >= 0 and time > self._last_sent_s:
                self._last_sent_s = time
                middle = packet.pts + self.context.frame_size // 2
                source_time = self._timeline.source_time(middle)
                half = self._frame_s / 2
                yield AudioItem(packet, None if source_time is None else source_time - half)
