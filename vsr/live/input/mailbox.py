"""A bounded queue from the thread that reads a live source to the relay.

A relay that stands still for a while must neither hold up the source's connection nor fill the
memory: the oldest pictures and the oldest sound make room.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av

from vsr.media.frame import Frame
from vsr.media.info import VideoInfo
from vsr.media.timestamps import Packet

_NAMED: Final = 1000
"""Pictures that had to make room which are named one by one; the others are counted."""


@dataclass(frozen=True)
class Connected:
    """A session of the source began."""

    info: VideoInfo
    """Of the pictures as they are delivered."""
    codec: str
    sound: av.AudioCodecContext | None
    """The decoder of its sound, which is the taker's; None: it has none."""
    notes: Sequence[str] = ()
    """In words, what is lost or changed of its pictures."""


@dataclass(frozen=True)
class Lost:
    """A session ended or could not begin; another attempt follows after `delay` seconds."""

    reason: str
    delay: float
    final: bool = False
    """Whether it is given up."""
    failed: bool = False
    """Whether it could not begin."""
    missing: int = 0
    """Pictures that were announced or sent, and could not be delivered."""


@dataclass(frozen=True)
class SoundPacket:
    """A packet of sound. Its stream must not be used: the connection may be closed."""

    packet: Packet
    time: float
    """In the source (s)."""


@dataclass(frozen=True)
class Measured:
    """The source shows so many pictures a second, whatever it declares."""

    rate: Fraction


@dataclass(frozen=True)
class Said:
    """Something about the source that its user should know."""

    words: str
    """What it does, with the source for a subject."""
    kind: str


Item = Frame | SoundPacket | Connected | Lost | Measured | Said


class Mailbox:
    """Holds a limited number of pictures and packets of sound. Thread-safe."""

    def __init__(self, frames: int, sounds: int = 1000) -> None:
        self._items: deque[Item] = deque()
        self._most = {Frame: frames, SoundPacket: sounds}
        self._waiting = {Frame: 0, SoundPacket: 0}
        self._arrived = threading.Condition()
        self.dropped: deque[Frame] = deque()
        """Pictures that had to make room, without their planes; the caller takes them out."""
        self.unnamed = 0
        """Pictures that had to make room and are not among them, for there were too many."""
        self.sounds_dropped = 0
        """Packets of sound that had to make room."""

    @property
    def waiting(self) -> int:
        """Pictures that wait."""
        return self._waiting[Frame]

    def begin(self) -> None:
        """Count from now on what has to make room; before, nobody was to take it."""
        with self._arrived:
            self.unnamed = self.sounds_dropped = 0
            self.dropped.clear()

    def put(self, item: Item) -> None:
        """Add an item; the oldest of its kind makes room when there are too many."""
        with self._arrived:
            kind = type(item)
            if isinstance(item, Frame | SoundPacket):
                if self._waiting[kind] == self._most[kind]:
                    self._make_room(kind)
                self._waiting[kind] += 1
            self._items.append(item)
            self._arrived.notify()

    def _make_room(self, kind: type) -> None:
        place = next(k for k, waiting in enumerate(self._items) if type(waiting) is kind)
        oldest = self._items[place]
        del self._items[place]
        self._waiting[kind] -= 1
        if not isinstance(oldest, Frame):
            self.sounds_dropped += 1
        elif len(self.dropped) < _NAMED:
            self.dropped.append(oldest.bare())
        else:
            self.unnamed += 1

    def take(self, timeout: float) -> Item | None:
        """Return the oldest item; None if none comes within `timeout` seconds."""
        with self._arrived:
            if not self._items and not self._arrived.wait_for(lambda: bool(self._items), timeout):
                return None
            item = self._items.popleft()
            if isinstance(item, Frame | SoundPacket):
                self._waiting[type(item)] -= 1
            return item
