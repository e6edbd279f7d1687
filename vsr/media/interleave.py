"""Interleaves packets by time, for containers that store their streams separately."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import av

from vsr.media.timestamps import Packet

_MAX_QUEUE_S: Final = 6.5
"""Maximum duration of one stream's queue, in seconds; HLS recommends segments of 6 s."""
_MAX_QUEUE_BYTES: Final = 64 << 20


@dataclass
class _Queue:
    """Queue of a stream's packets that wait for those of other streams."""

    packets: deque[Packet] = field(default_factory=deque)
    timed_out: bool = False
    """Whether waiting for this stream reached the limit, and no packet has arrived since."""

    @property
    def first(self) -> float:
        """Decoding time of the oldest packet, in seconds."""
        return _time(self.packets[0])


def interleaved(packets: Iterator[Packet], streams: list["av.stream.Stream"]) -> Iterator[Packet]:
    """Yield the packets of some streams in the order of their decoding times.

    Fragments of an MP4 hold all video before all audio: in reading order, the audio would be late
    by the length of a fragment. Packets of other streams are passed on at once; a packet without a
    dts first flushes the queues. The queues are bounded: once they are full, streams that send
    nothing are not waited for any longer.
    """
    waiting = {stream.index: _Queue() for stream in streams}
    held = 0
    for packet in packets:
        mine = waiting.get(packet.stream.index)
        if mine is None:
            yield packet
            continue
        if packet.dts is None:  # end of the input
            yield from _in_order(waiting)
            held = 0
            yield packet
            continue
        mine.packets.append(packet)
        mine.timed_out, held = False, held + packet.size
        while packet_due := _due(waiting, held):
            held -= packet_due.size
            yield packet_due
    yield from _in_order(waiting)


def _due(waiting: dict[int, _Queue], held: int) -> Packet | None:
    """Pop the next packet in order; None while an earlier one may still arrive."""
    filled = [part for part in waiting.values() if part.packets]
    if not filled:
        return None
    longest = max(_time(part.packets[-1]) - part.first for part in filled)
    full = longest > _MAX_QUEUE_S or held > _MAX_QUEUE_BYTES
    for part in waiting.values():
        if not part.packets and not part.timed_out:
            if not full:
                return None
            part.timed_out = True
    return min(filled, key=lambda part: part.first).packets.popleft()


def _in_order(waiting: dict[int, _Queue]) -> Iterator[Packet]:
    while filled := [part for part in waiting.values() if part.packets]:
        yield min(filled, key=lambda part: part.first).packets.popleft()


def _time(packet: Packet) -> float:
    assert packet.dts is not None
    assert packet.time_base is not None
    return float(packet.dts * packet.time_base)
