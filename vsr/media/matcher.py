"""Matches encoded packets to the frames they were made from."""

from typing import Generic, TypeVar

from vsr.media.timestamps import Packet

T = TypeVar("T")


class PacketMatcher(Generic[T]):
    """Matches encoded packets to frames by pts: B-frames come out in another order."""

    def __init__(self) -> None:
        self._encoding: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._encoding)

    def add(self, pts: int, item: T) -> None:
        """Remember the item of the picture with that pts, in the encoder's time base."""
        self._encoding[pts] = item

    def take(self, packet: Packet) -> T | None:
        """Return and forget the item of the picture in that packet; None if it was not added."""
        return None if packet.pts is None else self._encoding.pop(packet.pts, None)

    def clear(self) -> list[T]:
        """Forget the pictures whose packets will not arrive; return their items."""
        items = list(self._encoding.values())
        self._encoding.clear()
        return items
