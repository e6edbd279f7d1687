"""Audio of a relay at the output's times, and silence while none comes."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import av

from vsr.live.audio import Sound
from vsr.live.clock import OutputClock
from vsr.live.input.mailbox import SoundPacket
from vsr.live.output.encode import Heard
from vsr.media.frame import now

_PATIENCE: Final = 1.0
"""Seconds by which silence stays behind the pictures at least: sound may still come."""
_LONGEST_PATIENCE: Final = 10.0
_MORE: Final = 1.25
"""Share of the lateness that sound showed for which it is waited."""
_FORGETS: Final = 0.9995
"""By which that lateness shrinks with each packet: by half in half a minute."""
_MARGIN: Final = 0.3
"""Seconds for which it is waited beyond that."""
_HELD: Final = 1000
"""Packets that wait for the picture which tells their time."""
_HELD_S: Final = 5.0
"""Seconds for which they wait."""


class PlayoutAudio:
    """Makes the output's packets of sound from the source's. For one thread."""

    def __init__(
        self,
        clock: OutputClock,
        decoder: av.AudioCodecContext | None,
        warn: Callable[[str, str], None],
    ) -> None:
        """`decoder` is the first session's sound; the output has sound even without.

        `warn` is told, in words and by kind, of sound that is left out or replaced. Raises
        OutputError.
        """
        self._clock, self._warn = clock, warn
        self._sound = Sound(decoder)
        self._held: deque[tuple[SoundPacket, float]] = deque()
        """Packets whose time in the output is not known yet, and when they came."""
        self._misplaced = 0
        """Packets whose time stayed unknown or absurd."""
        self._late = 0.0
        """Seconds by which sound came after the pictures of its time, of late."""
        self._has_sound, self._away = decoder is not None, False

    @property
    def context(self) -> av.AudioCodecContext:
        """Describes the output's audio."""
        return self._sound.context

    def figures(self) -> dict[str, Any]:
        """Return what became of the sound, for the report."""
        counts = self._sound.counts
        return {
            "sound_dropped": self._misplaced + counts.late + counts.undecodable,
            "silence_s": round(counts.silence_s, 3),
            "has_sound": self._has_sound,
            "sound_late_ms": round(1000 * self._late),
        }

    def begin(self, decoder: av.AudioCodecContext | None) -> None:
        """Begin a session, or a stream in it, whose sound `decoder` decodes; None: it has none."""
        self._leave_out(len(self._held), "its pictures did not come")
        self._held.clear()
        self._sound.begin(decoder)
        self._has_sound, self._away = decoder is not None, False

    def lose(self) -> None:
        """Wait for no sound: the session is over."""
        self._away = True

    def forget_before(self, time: float) -> None:
        """Forget sound of long before the output's first picture: it waited for the engines.

        `time` is the picture's in the source (s).
        """
        while self._held and self._held[0][0].time < time - _PATIENCE:
            self._held.popleft()

    def take(self, packet: SoundPacket) -> Iterator[Heard]:
        """Yield the output's packets for one of the source."""
        self._held.append((packet, now()))
        yield from self._release()

    def fill(self, end: float) -> Iterator[Heard]:
        """Yield sound that waited for a picture, and silence where none can come any more.

        `end` is the newest picture's time in the output (s).
        """
        yield from self._release()
        before = self._sound.counts.silence_s
        yield from self._sound.silence(end - self._patience())
        if self._sound.counts.silence_s > before and self._has_sound and not self._away:
            self._warn("no sound comes from the source: silence is sent in its place", "no sound")

    def finish(self) -> Iterator[Heard]:
        """Yield silence up to the last picture."""
        self.lose()
        yield from self._sound.silence(self._clock.last)

    def _patience(self) -> float:
        if self._away or not self._has_sound:
            return 0.0
        return min(_LONGEST_PATIENCE, max(_PATIENCE, _MORE * self._late + _MARGIN))

    def _release(self) -> Iterator[Heard]:
        """Yield packets for the held ones whose time is known; drop what waits in vain."""
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

    def _send(self, packet: SoundPacket, time: float) -> Iterator[Heard]:
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
