"""Puts packets into the order of their times, where a container keeps streams apart."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import av

from vsr.media.timestamps import Packet

_LONGEST_S: Final = 6.5
"""Seconds of one stream that wait for another: HLS recommends pieces of 6 s."""
_MOST_BYTES: Final = 64 << 20


@dataclass
class _Waiting:
    """Packets of a stream that wait for those of others."""

    packets: deque[Packet] = field(default_factory=deque)
    absent: bool = False
    """Whether it was waited for in vain, and none of its packets came since."""

    @property
    def first(self) -> float:
        """Time of the oldest (s)."""
        return _time(self.packets[0])


def interleaved(packets: Iterator[Packet], streams: list["av.stream.Stream"]) -> Iterator[Packet]:
    """Yield the packets of some streams in the order of their decoding times.

    Pieces of fragmented MP4 hold all pictures before all sound: played as they are read, the sound
    would be late by the length of a piece. Packets of other streams, and without a time, are passed
    on at once. What waits is bounded; a stream that does not come is not waited for any longer.
    """
    waiting = {stream.index: _Waiting() for stream in streams}
    held = 0
    for packet in packets:
        mine = waiting.get(packet.stream.index)
        if mine is None:
            yield packet
            continue
        if packet.dts is None:  # the end
            yield from _in_order(waiting)
            held = 0
            yield packet
            continue
        mine.packets.append(packet)
        mine.absent, held = False, held + packet.size
        while packet_due := _due(waiting, held):
            held -= packet_due.size
            yield packet_due
    yield from _in_order(waiting)


def _due(waiting: dict[int, _Waiting], held: int) -> Packet | None:
    """Take the packet that no other can come before; None while one may."""
    filled = [part for part in waiting.values() if part.packets]
    if not filled:
        return None
    longest = max(_time(part.packets[-1]) - part.first for part in filled)
    full = longest > _LONGEST_S or held > _MOST_BYTES
    for part in waiting.values():
        if not part.packets and not part.absent:
            if not full:
                return None
            part.absent = True
    return min(filled, key=lambda part: part.first).packets.popleft()


def _in_order(waiting: dict[int, _Waiting]) -> Iterator[Packet]:
    while filled := [part for part in waiting.values() if part.packets]:
        yield min(filled, key=lambda part: part.first).packets.popleft()


def _time(packet: Packet) -> float:
    assert packet.dts is not None
    assert packet.time_base is not None
    return float(packet.dts * packet.time_base)
