"""Paces frames in real time, for sources that deliver faster or in bursts.

A source that is ahead is not read until its frames are due: until then, data waits at the sender or
in the system's socket buffers. So no frame is lost and no queue grows.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from vsr.media.frame import Frame, now
from vsr.media.timestamps import Packet

Item = Frame | Packet

_LONGEST_WAIT: Final = 10.0
"""Largest wait for or delay of a frame, in seconds; beyond it, the timestamps have jumped."""
_BEHIND: Final = 1.0
"""Largest delay of a paced input before its schedule is reset, in seconds."""
_JOINING: Final = 2.0
"""Longest time to receive the frames that were buffered for a new client, in seconds."""
_AHEAD: Final = 0.4
"""Largest lead of frames over the schedule, in seconds; less than an output clock allows."""
_LEAPS: Final = 2
_LEAPS_S: Final = 10.0
"""`_LEAPS` larger leads within `_LEAPS_S` seconds are a burst; one may be due to a late start."""
_STALL: Final = 0.5
"""Delay of a frame above which the source counts as stalled, in seconds."""
_CAUGHT_UP: Final = 0.2
"""Delay below which a source has caught up after a stall, in seconds."""
_BURSTS: Final = 2
_BURSTS_S: Final = 30.0
"""`_BURSTS` stalls, each caught up, within `_BURSTS_S` seconds: the source sends in bursts."""
_MARGIN: Final = 0.2
"""Delay added to the longest stall, in seconds."""
_LATE: Final = 0.1
"""Largest delay of a paced source's frame before the schedule is delayed, in seconds."""
_DRIFT: Final = 0.001
"""Fraction of a frame's delay by which the schedule is corrected: any two clocks drift."""
_AHEAD_READ: Final = 12
"""Number of frames read before an input may begin, to measure their rate."""


def paced(items: Iterable[Item], begin: threading.Event, stop: threading.Event) -> Iterator[Item]:
    """Yield items in real time once `begin` is set, for inputs that deliver faster."""
    source = iter(items)
    held = _read_ahead(source)
    begin.wait()
    base: float | None = None
    """Clock time at the input's time 0 (s)."""
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
    """Yield the items in `held`, removing each, then those of `source`."""
    while held:
        yield held.popleft()
    yield from source


def from_newest(items: Iterable[Item], step: float) -> Iterator[Item]:
    """Yield items from the newest frame that was available when the stream was joined.

    While the stream is probed, and in some servers before that, frames are buffered. They arrive at
    once, and shown in real time they would delay all later ones. `step` is the frame interval (s).
    Older frames are not counted as lost: the stream is joined after them. If it ends before it is
    known which frame is the newest, that is the last one.
    """
    source = iter(items)
    held: list[Item] = []
    """The newest frame so far and what follows it."""
    before = now()
    until = before + _JOINING
    try:
        for item in source:
            is_frame, at = isinstance(item, Frame), now()
            joined = bool(held) and (at > until or (is_frame and at - before > step / 2))
            if is_frame:
                held, before = held if joined else [], at
            if is_frame or held:
                held.append(item)
            if joined:
                break
    except Exception:  # the source ended with an error
        yield from held
        raise
    yield from held
    yield from source


class Evened:
    """Passes a live stream on as it arrives, and paces it once it has arrived in bursts.

    Any stream may stall once and then deliver the delayed frames at once. If this repeats, the
    source delivers in bursts: from then on it is paced, and delayed by a little more than its
    longest stall. A source that is faster than real time is paced too.
    """

    def __init__(self, stop: threading.Event, tell: Callable[[str], None]) -> None:
        """`tell` is called with a message when pacing begins."""
        self._stop, self._tell = stop, tell
        self._base: float | None = None
        """Clock time at the source's time 0 (s)."""
        self._paced = False
        self._stalled = 0.0
        """Largest delay since a stall began, in seconds; 0 if there is no stall."""
        self._leaps: deque[float] = deque(maxlen=_LEAPS)
        """Times at which a frame was too early (s)."""
        self._bursts: deque[tuple[float, float]] = deque(maxlen=_BURSTS)
        """Pairs (time at which a stall was caught up, length of the stall), in seconds."""

    def __call__(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items of a stream in their order, frames not before they are due."""
        for item in items:
            if isinstance(item, Frame) and not self._take(item):
                return
            yield item

    def _take(self, frame: Frame) -> bool:
        """Wait until a frame is due; return False if `stop` is set."""
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
            self._base -= wait  # underrun: later frames are delayed by as much
        elif wait > 0 and self._stop.wait(wait):
            return False
        arrives(frame)
        return True

    def _judge(self, at: float, behind: float) -> None:
        """Decide whether to pace, for a frame that arrived at `at`, `behind` its schedule (s)."""
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
    """Set a frame's stamps as if it arrived now."""
    took = frame.stamps.decoded - frame.stamps.read - frame.stamps.blocked
    frame.stamps.decoded = now()
    frame.stamps.read, frame.stamps.blocked = frame.stamps.decoded - took, 0.0
