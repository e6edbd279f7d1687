"""Audio of a relay at the output's times, and silence while none comes."""

from collections.abc import Iterator
from typing import Final

import av

from vsr.live.audio import Sound
from vsr.live.clock import OutputClock
from vsr.live.input.mailbox import SoundPacket
from vsr.live.output.encode import Heard
from vsr.media.frame import now

_QUIET: Final = 0.6
"""Seconds without sound after which there is silence."""


class PlayoutAudio:
    """Makes the output's packets of sound from the source's. For one thread."""

    def __init__(self, clock: OutputClock, decoder: av.AudioCodecContext | None) -> None:
        """`decoder` is the first session's; without one, the output has no sound for good.

        Raises OutputError.
        """
        self._clock = clock
        self._sound = Sound(decoder) if decoder else None
        self._misplaced = 0
        """Packets whose time in the output is unknown or absurd."""
        self._sent_at = 0.0

    @property
    def context(self) -> av.AudioCodecContext | None:
        """Describes the output's audio; None if it has none."""
        return self._sound.context if self._sound else None

    @property
    def dropped(self) -> int:
        """Packets that were not sent after the first picture."""
        return self._misplaced + (self._sound.dropped if self._sound else 0)

    def begin(self, decoder: av.AudioCodecContext | None) -> None:
        """Begin a session whose audio `decoder` decodes; None if it has none."""
        if self._sound:
            self._sound.begin(decoder)

    def take(self, packet: SoundPacket) -> Iterator[Heard]:
        """Yield the output's packets for one of the source."""
        time = self._clock.sound(packet.time)
        if self._sound is None:
            return
        if time is None:
            self._misplaced += self._clock.last >= 0
            return
        for made in self._sound.send(packet.packet, time):
            self._sent_at = now()  # not before: what gives no sound leaves silence
            assert made.pts is not None
            assert made.time_base is not None
            yield Heard(made, packet.time + float(made.pts * made.time_base) - time)

    def fill(self, end: float) -> Iterator[Heard]:
        """Yield silence up to that time (s) if no sound came lately."""
        if self._sound and now() - self._sent_at > _QUIET:
            for made in self._sound.silence(end):
                yield Heard(made, None)
