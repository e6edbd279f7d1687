"""Hands pictures on at their pace, for sources that deliver faster, or in bursts.

A source that is ahead is not read until its pictures are due: what waits then is in the sender, or
in the system's buffers of the connection. So nothing is lost and nothing grows.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from vsr.media.frame import Frame, now
from vsr.media.timestamps import Packet

Item = Frame | Packet

_LONGEST_WAIT: Final = 10.0
"""Seconds from one picture to the next beyond which times leap."""
_BEHIND: Final = 1.0
"""Seconds by which a paced input may be late before its pace is taken up anew."""
_JOINING: Final = 2.0
"""Seconds in which what was put by for a newcomer must have come."""
_AHEAD: Final = 0.4
"""Seconds by which pictures may be early: less than an output's clock lets them be."""
_LEAPS: Final = 2
_LEAPS_S: Final = 10.0
"""Being so early once may be a late beginning; so many times in so many seconds is a burst."""
_STALL: Final = 0.5
"""Seconds without a picture that was due, which are a stall of the source."""
_CAUGHT_UP: Final = 0.2
"""Seconds behind its schedule up to which a source has caught up after a stall."""
_BURSTS: Final = 2
_BURSTS_S: Final = 30.0
"""So many stalls that were made up for within so many seconds are its way to deliver."""
_MARGIN: Final = 0.2
"""Seconds that are waited more than the longest stall was."""
_LATE: Final = 0.1
"""Seconds by which a picture of a paced source may be late before all are played later."""
_DRIFT: Final = 0.001
"""Share by which the schedule follows each picture: no two clocks run alike."""
_AHEAD_READ: Final = 12
"""Pictures that are read before an input may begin, to see their rate."""


def paced(items: Iterable[Item], begin: threading.Event, stop: threading.Event) -> Iterator[Item]:
    """Yield items at their own times from `begin` on, for inputs that deliver faster."""
    source = iter(items)
    held = _read_ahead(source)
    begin.wait()
    base: float | None = None
    """The clock's time when the input's was 0 (s)."""
    for item in _chained(held, source):
        if isinstance(item, Frame):
            wait = 0.0 if base is None else base + item.time - now()
            if base is None or not -_BEHIND < wait < _LONGEST_WAIT:
                base, wait = now() - item.time, 0.0
            if wait > 0 and stop.wait(wait):
                return
            arrives(item)
        yield item


def _read_ahead(source: Iterator[Item]) -> deque[Item]:
    held, pictures = deque[Item](), 0
    for item in source:
        held.append(item)
        pictures += isinstance(item, Frame)
        if pictures == _AHEAD_READ:
            break
    return held


def _chained(held: deque[Item], source: Iterator[Item]) -> Iterator[Item]:
    """The items that were read, without keeping them, and those to come."""
    while held:
        yield held.popleft()
    yield from source


def from_newest(items: Iterable[Item], step: float) -> Iterator[Item]:
    """Yield items from the newest picture that was ready when the stream was joined.

    While it was looked at, and in some servers before, pictures were put by. They come at once,
    and shown at their pace they would put off all after them. `step` is the time between two (s).
    """
    newest: Frame | None = None
    until = now() + _JOINING
    before, settled = now(), False
    for item in items:
        if settled:
            yield item
        elif isinstance(item, Frame):
            settled = newest is not None and (now() - before > step / 2 or now() > until)
            if settled and newest is not None:
                yield newest
                yield item
            newest, before = item, now()


class Evened:
    """Passes a live stream on as it comes, and at its own pace once it came in bursts.

    A stall after which pictures come at once happens to any stream; where it happens again and
    again, the source delivers in pieces: it is played as much later as its stalls are long, and
    evenly from then on. One that is faster than real time is paced too.
    """

    def __init__(self, stop: threading.Event, tell: Callable[[str], None]) -> None:
        """`tell` is given words about the source's way to deliver."""
        self._stop, self._tell = stop, tell
        self._base: float | None = None
        """The clock's time when the source's was 0 (s)."""
        self._paced = False
        self._stalled = 0.0
        """Seconds by which the source is behind its schedule, since a stall; 0: it is not."""
        self._leaps: deque[float] = deque(maxlen=_LEAPS)
        """When it was too early."""
        self._bursts: deque[tuple[float, float]] = deque(maxlen=_BURSTS)
        """When stalls were made up for, and how long they were."""

    def __call__(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items of a stream in their order, pictures not before they are due."""
        for item in items:
            if isinstance(item, Frame) and not self._take(item):
                return
            yield item

    def _take(self, frame: Frame) -> bool:
        """Wait until a picture is due; False when it is to stop."""
        at = now()
        behind = 0.0 if self._base is None else at - frame.time - self._base
        if self._base is None or abs(behind) > _LONGEST_WAIT:
            self._base, self._stalled, behind = at - frame.time, 0.0, 0.0
        if not self._paced:
            self._judge(at, behind)
        if not self._paced:
            self._base += _DRIFT * behind
            return True
        wait = self._base + frame.time - now()
        if wait < -_LATE:
            self._base -= wait  # it ran dry: what follows is played that much later
        elif wait > 0 and self._stop.wait(wait):
            return False
        arrives(frame)
        return True

    def _judge(self, at: float, behind: float) -> None:
        """Decide, by how much a picture is behind its schedule (s), whether to pace."""
        assert self._base is not None
        if behind < -_AHEAD:
            self._base += behind
            self._leaps.append(at)
            if len(self._leaps) == _LEAPS and at - self._leaps[0] < _LEAPS_S:
                self._pace("comes faster than real time, or in bursts: it is played evenly")
        elif behind > _STALL:
            self._stalled = max(self._stalled, behind)
        elif self._stalled and behind < _CAUGHT_UP:
            self._bursts.append((at, self._stalled))
            self._stalled = 0.0
            first = self._bursts[0][0]
            if len(self._bursts) == _BURSTS and at - first < _BURSTS_S:
                later = max(length for _, length in self._bursts) + _MARGIN
                self._base += later
                self._pace(f"comes in bursts: it is played evenly, {later:.1f} s later")

    def _pace(self, words: str) -> None:
        self._paced = True
        self._tell(words)


def arrives(frame: Frame) -> None:
    """Stamp a picture as if it arrived now."""
    took = frame.stamps.decoded - frame.stamps.read - frame.stamps.blocked
    frame.stamps.decoded = now()
    frame.stamps.read, frame.stamps.blocked = frame.stamps.decoded - took, 0.0
