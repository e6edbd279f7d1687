"""Corrects the timestamps of inputs whose clock jumps, before anything else reads them."""

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import av

if TYPE_CHECKING:
    Packet = av.Packet[Any]
else:
    Packet = av.Packet  # subscriptable in its stub only

_JUMP: Final = Fraction(1, 2)
"""Seconds by which a stream's dts may step back before that counts as a jump."""
_GAP: Final = 10
"""Seconds by which it may step forward in a broadcast."""


class TimestampCorrector:
    """Corrects timestamps that jump, as in recordings that were joined end to end.

    A jump is a step back by more than half a second anywhere, or forward by more than ten in a
    broadcast, where FFmpeg takes a step back for a wrap of the clock. Other files keep long gaps.

    What follows a jump is moved behind everything before it, all streams alike, so that sound and
    picture stay together; FFmpeg's own tools do the same for discontinuities.
    """

    def __init__(self, note: Callable[[str, str, bool], None], broadcast: bool) -> None:
        self._note, self._broadcast = note, broadcast
        self._shift = Fraction(0)
        self.end = Fraction(0)
        """Time in seconds at which the packets read so far end."""
        self.jumps = 0
        """Jumps that were closed."""
        self._last: dict[int, Fraction] = {}

    def correct(self, packet: Packet) -> None:
        """Shift the packet's times in place if its stream, or another one before, jumped."""
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
