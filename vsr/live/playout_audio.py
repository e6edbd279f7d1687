"""Sends the audio of a relay at output times, and silence while none arrives."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import av

from vsr.live.audio import Sound
from vsr.live.clock import OutputClock
from vsr.live.input.mailbox import SoundPacket
from vsr.live.output.encode import AudioItem
from vsr.media.frame import now

_PATIENCE: Final = 1.0
"""Shortest delay of silence behind the video, in seconds: audio may still arrive."""
_LONGEST_PATIENCE: Final = 10.0
_MORE: Final = 1.25
"""Factor from the measured lateness of audio to the time to wait for it."""
_FORGETS: Final = 0.9995
"""Factor by which that lateness decays with each packet: by half in half a minute."""
_MARGIN: Final = 0.3
"""Additional time to wait for audio, in seconds."""
_HELD: Final = 1000
"""Limit of packets that wait for the frame that determines their output time."""
_HELD_S: Final = 5.0
"""Longest time that they wait, in seconds."""


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
        self._sound = Sound(decoder)
        self._held: deque[tuple[SoundPacket, float]] = deque()
        """Packets whose output time is not known yet, with their arrival times (s)."""
        self._misplaced = 0
        """Number of packets dropped because their output time remained unknown or implausible."""
        self._late = 0.0
        """Recent lateness of audio relative to the video of its time, in seconds."""
        self._has_sound, self._away = decoder is not None, False

    @property
    def context(self) -> av.AudioCodecContext:
        """Encoder context, which describes the output's audio."""
        return self._sound.context

    def figures(self) -> dict[str, Any]:
        """Return the audio statistics for the report."""
        counts = self._sound.counts
        return {
            "sound_dropped": self._misplaced + counts.late + counts.undecodable,
            "silence_s": round(counts.silence_s, 3),
            "has_sound": self._has_sound,
            "sound_late_ms": round(1000 * self._late),
        }

    def begin(self, decoder: av.AudioCodecContext | None) -> None:
        """Begin a session, or a stream in it; `decoder` decodes its audio (None: no audio)."""
        self._leave_out(len(self._held), "its pictures did not come")
        self._held.clear()
        self._sound.begin(decoder)
        self._has_sound, self._away = decoder is not None, False

    def lose(self) -> None:
        """Stop waiting for audio, because the session is over."""
        self._away = True

    def forget_before(self, time: float) -> None:
        """Discard audio from long before the output's first frame, queued while engines loaded.

        `time` is the source time of that frame (s).
        """
        while self._held and self._held[0][0].time < time - _PATIENCE:
            self._held.popleft()

    def take(self, packet: SoundPacket) -> Iterator[AudioItem]:
        """Yield the output packets for a source packet."""
        self._held.append((packet, now()))
        yield from self._release()

    def fill(self, end: float) -> Iterator[AudioItem]:
        """Yield audio that waited for a frame, and silence once the wait for audio is over.

        `end` is the output time of the newest frame (s).
        """
        yield from self._release()
        before = self._sound.counts.silence_s
        yield from self._sound.silence(end - self._patience())
        if self._sound.counts.silence_s > before and self._has_sound and not self._away:
            self._warn("no sound comes from the source: silence is sent in its place", "no sound")

    def finish(self) -> Iterator[AudioItem]:
        """Yield silence up to the last frame."""
        self.lose()
        yield from self._sound.silence(self._clock.last)

    def _patience(self) -> float:
        if self._away or not self._has_sound:
            return 0.0
        return min(_LONGEST_PATIENCE, max(_PATIENCE, _MORE * self._late + _MARGIN))

    def _release(self) -> Iterator[AudioItem]:
        """Yield packets for held ones whose time is known; drop those that waited too long."""
        while self._held:
            packet, came = self._held[0]
            time = self._clock.sound(packet.time)
            if time is None:
                if len(self._held) <= _HELD and now() - came < _HELD_S:
                    return
                self._held.popleft()
                self._leave_out(1, "its times have nothing to do with those of the pictures")
                continue
            self._held.popleft()
            yield from self._send(packet, time)

    def _send(self, packet: SoundPacket, time: float) -> Iterator[AudioItem]:
        late = self._clock.last - time
        self._late = max(late, self._late * _FORGETS)
        counts = self._sound.counts
        before = counts.late, counts.undecodable
        yield from self._sound.send(packet.packet, time, self._clock.origin(packet.time))
        missed = counts.late > before[0] and packet.time >= self._clock.since
        if missed and late > _PATIENCE:
            self._warn(
                f"sound came {late:.1f} s after its pictures and is left out; from now on "
                f"{self._patience():.1f} s are waited for it", "late",
            )  # fmt: skip
        elif missed:
            self._warn("sound whose time has passed is left out", "late")
        if counts.undecodable > before[1]:
            self._warn("packets of sound that cannot be decoded are left out", "undecodable")

    def _leave_out(self, count: int, why: str) -> None:
        if count and self._clock.last >= 0:
            self._misplaced += count
            self._warn(f"sound is left out: {why}", "misplaced")
