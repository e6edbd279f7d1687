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

_MAX_WAIT_S: Final = 10.0
"""Largest wait for or delay of a frame, in seconds; beyond it, the timestamps have jumped."""
_MAX_DELAY_S: Final = 1.0
"""Largest delay of a paced input before its schedule is reset, in seconds."""
_MAX_JOIN_S: Final = 2.0
"""Longest time to receive the frames that were buffered for a new client, in seconds."""
_MAX_LEAD_S: Final = 0.4
"""Largest lead of frames over the schedule, in seconds; less than an output clock allows."""
_EARLY_FRAMES: Final = 2
_EARLY_WINDOW_S: Final = 10.0
"""`_EARLY_FRAMES` larger leads within `_EARLY_WINDOW_S` seconds: a burst, not just a late start."""
_MIN_STALL_S: Final = 0.5
"""Delay of a frame above which the source counts as stalled, in seconds."""
_CAUGHT_UP_S: Final = 0.2
"""Delay below which a source has caught up after a stall, in seconds."""
_MIN_BURSTS: Final = 2
_BURSTS_WINDOW_S: Final = 30.0
"""`_MIN_BURSTS` stalls, each caught up, within `_BURSTS_WINDOW_S` s: the source sends in bursts."""
_BURST_MARGIN_S: Final = 0.2
"""Delay added to the longest stall, in seconds."""
_MAX_UNDERRUN_S: Final = 0.1
"""Largest delay of a paced source's frame before the schedule is delayed, in seconds."""
_DRIFT_CORRECTION: Final = 0.001
"""Fraction of a frame's delay by which the schedule is corrected: any two clocks drift."""
_FRAMES_READ_AHEAD: Final = 12
"""Number of frames read before an input may begin, to measure their rate."""


def pace(items: Iterable[Item], begin: threading.Event, stop: threading.Event) -> Iterator[Item]:
    """Yield items in real time once `begin` is set, for inputs that deliver faster."""
    source = iter(items)
    held = _read_ahead(source)
    begin.wait()
    base: float | None = None
    """Clock time at the input's time 0 (s)."""
    for item in _drain(held, source):
        if isinstance(item, Frame):
            wait = 0.0 if base is None else base + item.time - now()
            if base is None or not -_MAX_DELAY_S < wait < _MAX_WAIT_S:
                base, wait = now() - item.time, 0.0
            if wait > 0 and stop.wait(wait):
                return
            restamp_now(item)
        yield item


def _read_ahead(source: Iterator[Item]) -> deque[Item]:
    held, frames = deque[Item](), 0
    for item in source:
        held.append(item)
        frames += isinstance(item, Frame)
        if frames == _FRAMES_READ_AHEAD:
            break
    return held


def _drain(held: deque[Item], source: Iterator[Item]) -> Iterator[Item]:
    """Yield the items in `held`, removing each, then those of `source`."""
    while held:
        yield held.popleft()
    yield from source


def skip_backlog(items: Iterable[Item], step: float) -> Iterator[Item]:
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
    until = before + _MAX_JOIN_S
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


class AdaptivePacer:
    """Passes a live stream on as it arrives, and paces it once it has arrived in bursts.

    Any stream may stall once and then deliver the delayed frames at once. If this repeats, the
    source delivers in bursts: from then on it is paced, and delayed by a little more than its
    longest stall. A source that is faster than real time is paced too.
    """

    def __init__(self, stop: threading.Event, notify: Callable[[str], None]) -> None:
        """`notify` is called with a message when pacing begins."""
        self._stop, self._notify = stop, notify
        self._base: float | None = None
        """Clock time at the source's time 0 (s)."""
        self._is_pacing = False
        self._stall_s = 0.0
        """Largest delay since a stall began, in seconds; 0 if there is no stall."""
        self._early_at: deque[float] = deque(maxlen=_EARLY_FRAMES)
        """Times at which a frame was too early (s)."""
        self._bursts: deque[tuple[float, float]] = deque(maxlen=_MIN_BURSTS)
        """Pairs (time at which a stall was caught up, length of the stall), in seconds."""

    def __call__(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items of a stream in their order, frames not before they are due."""
        for item in items:
            if isinstance(item, Frame) and not self._wait_for(item):
                return
            yield item

    def _wait_for(self, frame: Frame) -> bool:
        """Wait until a frame is due; return False if `stop` is set."""
        at = now()
        behind = 0.0 if self._base is None else at - frame.time - self._base
        if self._base is None or abs(behind) > _MAX_WAIT_S:
            self._base, self._stall_s, behind = at - frame.time, 0.0, 0.0
        if not self._is_pacing:
            self._detect_bursts(at, behind)
        if not self._is_pacing:
            self._base += _DRIFT_CORRECTION * behind
            return True
        wait = self._base + frame.time - now()
        if wait < -_MAX_UNDERRUN_S:
            self._base -= wait  # underrun: later frames are delayed by as much
        elif wait > 0 and self._stop.wait(wait):
            return False
        restamp_now(frame)
        return True

    def _detect_bursts(self, at: float, behind: float) -> None:
        """Decide whether to pace, for a frame that arrived at `at`, `behind` its schedule (s)."""
        assert self._base is not None
        if behind < -_MAX_LEAD_S:
            self._base += behind
            self._early_at.append(at)
            if len(self._early_at) == _EARLY_FRAMES and at - self._early_at[0] < _EARLY_WINDOW_S:
                self._start_pacing(
                    "delivers faster than real time, or in bursts: its frames are paced"
                )
        elif behind > _MIN_STALL_S:
            self._stall_s = max(self._stall_s, behind)
        elif self._stall_s and behind < _CAUGHT_UP_S:
            self._bursts.append((at, self._stall_s))
            self._stall_s = 0.0
            first = self._bursts[0][0]
            if len(self._bursts) == _MIN_BURSTS and at - first < _BURSTS_WINDOW_S:
                later = max(length for _, length in self._bursts) + _BURST_MARGIN_S
                self._base += later
                self._start_pacing(f"delivers in bursts: its frames are paced, {later:.1f} s later")

    def _start_pacing(self, message: str) -> None:
        self._is_pacing = True
        self._notify(message)


def restamp_now(frame: Frame) -> None:
    """Set a frame's stamps as if it arrived now."""
    took = frame.stamps.decoded - frame.stamps.read - frame.stamps.wait_s
    frame.stamps.decoded = now()
    frame.stamps.read, frame.stamps.wait_s = frame.stamps.decoded - took, 0.0
