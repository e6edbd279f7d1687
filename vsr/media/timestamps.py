"""Puts right the times of inputs whose clock jumps, before anything else sees them."""

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import av

if TYPE_CHECKING:
    Packet = av.Packet[Any]
else:
    Packet = av.Packet  # subscriptable in its stub only

_JUMP: Final = Fraction(1, 2)
"""Seconds by which a stream's decoding times may run backwards before it counts as a jump."""
_GAP: Final = 10
"""Seconds by which they may run ahead in a broadcast."""


class Timeline:
    """Mends times that jump, as recordings joined end to end have them.

    Backwards by more than half a second anywhere; forwards by more than ten in a broadcast, where
    FFmpeg takes a step back for its clock's wrap. In other files a long gap is a long gap.

    What follows a jump is moved behind everything before it, all streams alike, so that sound and
    picture stay together; FFmpeg's own tools do the same for discontinuities.
    """

    def __init__(self, note: Callable[[str, str, bool], None], broadcast: bool) -> None:
        self._note, self._broadcast = note, broadcast
        self._shift = Fraction(0)
        self.end = Fraction(0)
        """Seconds at which what was read so far has ended."""
        self.jumps = 0
        """Jumps that were closed."""
        self._last: dict[int, Fraction] = {}

    def mend(self, packet: Packet) -> None:
        """Move the packet's times in place if its stream, or an earlier one, jumped."""
        if packet.pts is None or not packet.time_base:
            return
        if packet.dts is not None:
            self._shift_times(packet, packet.dts, packet.pts)
        self.end = max(self.end, (packet.pts + (packet.duration or 0)) * packet.time_base)

    def _shift_times(self, packet: Packet, dts: int, pts: int) -> None:
        base, index = packet.time_base, packet.stream.index
        last = self._last.get(index)
        if last is not None and self._jumps(packet, dts * base + self._shift - last):
            self._shift = self.end - pts * base
            self.jumps += 1
            self._note("times", f"times jump at {float(last):.2f} s; joined there", True)
        if self._shift:
            moved = round((dts * base + self._shift) / base)
            if last is not None and moved * base <= last:
                moved = int(last // base) + 1  # the streams of a part need not end together
            packet.pts, packet.dts = pts + moved - dts, moved
            dts = moved
        self._last[index] = dts * base

    def _jumps(self, packet: Packet, step: Fraction) -> bool:
        steady = packet.stream.type in ("audio", "video")  # subtitles may pause for minutes
        return step < -_JUMP or (self._broadcast and steady and step > _GAP)
