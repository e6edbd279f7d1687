"""Sends the audio of a relay at output times, and silence while none arrives."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import av

from vsr.live.audio import OutputAudio
from vsr.live.clock import OutputClock
from vsr.live.input.mailbox import AudioPacket
from vsr.live.output.encode import AudioItem
from vsr.media.frame import now

_MIN_AUDIO_WAIT_S: Final = 1.0
"""Shortest delay of silence behind the video, in seconds: audio may still arrive."""
_MAX_AUDIO_WAIT_S: Final = 10.0
_LATENESS_FACTOR: Final = 1.25
"""Factor from the measured lateness of audio to the time to wait for it."""
_LATENESS_DECAY: Final = 0.9995
"""Factor by which that lateness decays with each packet: by half in half a minute."""
_AUDIO_WAIT_MARGIN_S: Final = 0.3
"""Additional time to wait for audio, in seconds."""
_MAX_HELD: Final = 1000
"""Limit of packets that wait for the frame that determines their output time."""
_MAX_HELD_S: Final = 5.0
"""Longest time that they wait, in seconds."""
_MISMATCH: Final = "its timestamps do not match the video's"
_AFTER_PAUSE: Final = "it came too late after a pause, or no frame followed it"


class PlayoutAudio:
    """Makes the output's audio packets from the source's. Not thread-safe."""

    def __init__(
        self,
        clock: OutputClock,
        decoder: av.AudioCodecContext | None,
        warn: Callable[[str, str], None],
    ) -> None:
        """`decoder` is the first session's audio decoder; the output has audio even if it is None.

        `warn` is called with a message and its kind when audio is dropped or replaced. Raises
        OutputError.
        """
        self._clock, self._warn = clock, warn
        self._audio = OutputAudio(decoder)
        self._held: deque[tuple[AudioPacket, float]] = deque()
        """Packets whose output time is not known yet, with their arrival times (s)."""
        self._misplaced = 0
        """Number of packets dropped because their output time remained unknown or implausible."""
        self._lateness_s = 0.0
        """Recent lateness of audio relative to the video of its time, in seconds."""
        self._has_audio, self._is_source_lost = decoder is not None, False

    @property
    def context(self) -> av.AudioCodecContext:
        """Encoder context, which describes the output's audio."""
        return self._audio.context

    def figures(self) -> dict[str, Any]:
        """Return the audio statistics for the report."""
        counts = self._audio.counts
        return {
            "sound_dropped": self._misplaced + counts.late + counts.undecodable,
            "silence_s": round(counts.silence_s, 3),
            "has_sound": self._has_audio,
            "sound_late_ms": round(1000 * self._lateness_s),
        }

    def start_session(self, decoder: av.AudioCodecContext | None) -> None:
        """Begin a session, or a stream in it; `decoder` decodes its audio (None: no audio)."""
        self._count_dropped(len(self._held), "no frames arrived for it")
        self._held.clear()
        self._audio.set_source(decoder)
        self._has_audio, self._is_source_lost = decoder is not None, False

    def end_session(self) -> None:
        """Stop waiting for audio, because the session is over."""
        self._is_source_lost = True

    def drop_before(self, time: float) -> None:
        """Discard audio from long before the output's first frame, queued while engines loaded.

        `time` is the source time of that frame (s).
        """
        while self._held and self._held[0][0].time < time - _MIN_AUDIO_WAIT_S:
            self._held.popleft()

    def add(self, packet: AudioPacket) -> Iterator[AudioItem]:
        """Yield the output packets for a source packet."""
        self._held.append((packet, now()))
        yield from self._send_held()

    def fill_to(self, end: float) -> Iterator[AudioItem]:
        """Yield audio that waited for a frame, and silence once the wait for audio is over.

        `end` is the output time of the newest frame (s).
        """
        yield from self._send_held()
        before = self._audio.counts.silence_s
        yield from self._audio.add_silence(end - self._audio_wait_s())
        if self._audio.counts.silence_s > before and self._has_audio and not self._is_source_lost:
            self._warn("no audio from the source: silence is sent instead", "no audio")

    def finish(self) -> Iterator[AudioItem]:
        """Yield silence up to the last frame."""
        self.end_session()
        yield from self._audio.add_silence(self._clock.last)

    def _audio_wait_s(self) -> float:
        if self._is_source_lost or not self._has_audio:
            return 0.0
        return min(
            _MAX_AUDIO_WAIT_S,
            max(_MIN_AUDIO_WAIT_S, _LATENESS_FACTOR * self._lateness_s + _AUDIO_WAIT_MARGIN_S),
        )

    def _send_held(self) -> Iterator[AudioItem]:
        """Yield packets for held ones whose time is known; drop those that waited too long."""
        while self._held:
            packet, arrived = self._held[0]
            time = self._clock.place_audio(packet.time, self._lateness_s)
            if time is None:
                waited = len(self._held) > _MAX_HELD or now() - arrived >= _MAX_HELD_S
                follows_pause = self._clock.place_audio(packet.time, math.inf) is not None
                if not waited and not (follows_pause and self._has_caught_up):
                    return
                self._held.popleft()
                self._count_dropped(1, _AFTER_PAUSE if follows_pause else _MISMATCH)
                if follows_pause and not self._has_caught_up:
                    self._clock.follow_audio(self._held[-1][0].time, self._lateness_s)
                continue
            self._held.popleft()
            yield from self._send(packet, time)

    @property
    def _has_caught_up(self) -> bool:
        """Whether the newest audio has a time, so that none has to wait for a frame."""
        if not self._held:
            return True
        return self._clock.place_audio(self._held[-1][0].time, self._lateness_s) is not None

    def _send(self, packet: AudioPacket, time: float) -> Iterator[AudioItem]:
        late = self._clock.audio_lag(packet.time, time)
        self._lateness_s = max(late, self._lateness_s * _LATENESS_DECAY)
        counts = self._audio.counts
        before = counts.late, counts.undecodable
        yield from self._audio.convert(packet.packet, time, self._clock.unique_time(packet.time))
        missed = counts.late > before[0] and packet.time >= self._clock.epoch_start
        if missed and late > _MIN_AUDIO_WAIT_S:
            self._warn(
                f"audio dropped: it arrived {late:.1f} s after its frames; from now on, silence "
                f"replaces audio only after {self._audio_wait_s():.1f} s", "late",
            )  # fmt: skip
        elif missed:
            self._warn("audio dropped: it arrived too late", "late")
        if counts.undecodable > before[1]:
            self._warn("audio packets dropped: they cannot be decoded", "undecodable")

    def _count_dropped(self, count: int, why: str) -> None:
        if count and self._clock.last >= 0:
            self._misplaced += count
            self._warn(f"audio dropped: {why}", "misplaced")
