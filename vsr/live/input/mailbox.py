"""A bounded queue from the thread that reads a live source to the relay.

A relay that pauses must neither block the source's connection nor fill the memory: if the queue is
full, the oldest frame or audio packet is dropped.
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

_MAX_DROPPED_KEPT: Final = 1000
"""Limit of dropped frames that are kept in `Mailbox.dropped`; further ones are only counted."""


@dataclass(frozen=True)
class Connected:
    """A session of the source began."""

    info: VideoInfo
    """Video properties of the frames as delivered."""
    codec: str
    audio: av.AudioCodecContext | None
    """Audio decoder, which the receiver takes over; None: no audio."""
    notes: Sequence[str] = ()
    """Messages about what is lost or changed in its frames."""


@dataclass(frozen=True)
class Lost:
    """A session ended or could not begin; another attempt follows after `delay` seconds."""

    reason: str
    delay: float
    final: bool = False
    """Whether no attempt follows."""
    failed: bool = False
    """Whether the session could not begin."""
    missing: int = 0
    """Number of frames that were announced or sent, but could not be delivered."""


@dataclass(frozen=True)
class AudioPacket:
    """An audio packet. Its stream must not be used: the connection may be closed."""

    packet: Packet
    time: float
    """Source time (s)."""


@dataclass(frozen=True)
class RateMeasured:
    """The measured frame rate of the source, regardless of the declared one."""

    rate: Fraction


@dataclass(frozen=True)
class SourceNotice:
    """A message about the source for the user."""

    message: str
    """Predicate of a sentence whose subject is the source's name."""
    kind: str


Item = Frame | AudioPacket | Connected | Lost | RateMeasured | SourceNotice


class Mailbox:
    """Queue with limits for frames and audio packets. Thread-safe."""

    def __init__(self, frames: int, audio: int = 1000) -> None:
        self._items: deque[Item] = deque()
        self._limits = {Frame: frames, AudioPacket: audio}
        self._waiting = {Frame: 0, AudioPacket: 0}
        self._arrived = threading.Condition()
        self.dropped: deque[Frame] = deque()
        """Dropped frames, without their planes; the caller removes them."""
        self.dropped_unlisted = 0
        """Number of dropped frames that are not in `dropped`, because it was full."""
        self.audio_dropped = 0
        """Number of dropped audio packets."""

    @property
    def frames_waiting(self) -> int:
        """Number of frames in the queue."""
        return self._waiting[Frame]

    def reset_counters(self) -> None:
        """Reset the drop counters: items dropped before had no receiver."""
        with self._arrived:
            self.dropped_unlisted = self.audio_dropped = 0
            self.dropped.clear()

    def put(self, item: Item) -> None:
        """Add an item; drop the oldest of its kind if there are too many."""
        with self._arrived:
            kind = type(item)
            if isinstance(item, Frame | AudioPacket):
                if self._waiting[kind] == self._limits[kind]:
                    self._make_room(kind)
                self._waiting[kind] += 1
            self._items.append(item)
            self._arrived.notify()

    def _make_room(self, kind: type) -> None:
        index = next(k for k, item in enumerate(self._items) if type(item) is kind)
        oldest = self._items[index]
        del self._items[index]
        self._waiting[kind] -= 1
        if not isinstance(oldest, Frame):
            self.audio_dropped += 1
        elif len(self.dropped) < _MAX_DROPPED_KEPT:
            self.dropped.append(oldest.without_planes())
        else:
            self.dropped_unlisted += 1

    def take(self, timeout: float) -> Item | None:
        """Return the oldest item; None if none comes within `timeout` seconds."""
        with self._arrived:
            if not self._items and not self._arrived.wait_for(lambda: bool(self._items), timeout):
                return None
            item = self._items.popleft()
            if isinstance(item, Frame | AudioPacket):
                self._waiting[type(item)] -= 1
            return item
