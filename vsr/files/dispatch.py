"""Assigns the segments of a run to a crew of workers, and records the finished segments."""

import logging
import statistics
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vsr.errors import BackendError
from vsr.files.auto_jobs import AutoJobs
from vsr.files.crew import Crew, Message
from vsr.files.journal import Journal
from vsr.files.journal_lines import Segment
from vsr.files.worker import Place, SegmentResult
from vsr.media.clips import Clip
from vsr.media.frame import now
from vsr.report.ledger import Ledger

log = logging.getLogger(__name__)

_POLL_S: Final = 0.1
"""Timeout for messages, after which a stop is checked, in seconds."""
_MAX_LOSSES: Final = 3
"""Number of workers lost over one segment, or before they are ready, at which the run fails."""
_SLOW_RATIO: Final = 2.0
"""Ratio to the median time of a segment above which a second worker makes it too."""


@dataclass
class _Running:
    clip: Clip
    target: Path
    started: float
    frames: int = 0


@dataclass
class Dispatch:
    """Assigns clips to idle workers. Call `run` once."""

    crew: Crew
    clips: Iterator[Clip]
    journal: Journal
    stop: threading.Event
    on_frames: Callable[[int], None]
    """Callback that receives the number of frames finished in this run."""
    auto: AutoJobs | None = None
    """Decides on the number of workers; None: the number is fixed."""
    results: dict[int, tuple[Ledger, Place]] = field(default_factory=dict)
    """Ledger and place of each segment made in this run, by segment number."""
    truncated: dict[int, Segment] = field(default_factory=dict)
    """Segments cut off by a stop, by segment number."""
    _running: dict[int, _Running] = field(default_factory=dict)
    _retries: deque[Clip] = field(default_factory=deque)
    _losses: Counter[int] = field(default_factory=Counter)
    _durations: list[float] = field(default_factory=list)
    _finished_frames: int = 0
    _all_assigned: bool = False
    """Whether all clips have been assigned."""
    _stopping: bool = False

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped before all segments were finished."""
        return self._stopping and bool(self.truncated or self._retries or not self._all_assigned)

    def run(self) -> None:
        """Make all segments; once `stop` is set, end those in progress. Raises VsrError."""
        try:
            while self._has_work():
                if not self._stopping:
                    self._assign()
                for message in self.crew.messages(_POLL_S):
                    self._handle(message)
                self._resize_crew()
        finally:
            self.crew.close()

    def _has_work(self) -> bool:
        if self.stop.is_set() and not self._stopping:
            self._stopping = True
            self.crew.stop()
        pending = {each.clip.number for each in self._running.values()} - self.results.keys()
        if self._stopping:
            return bool(pending)
        return bool(pending or self._retries or not self._all_assigned)

    def _assign(self) -> None:
        for worker in self.crew.idle():
            clip = self._next_clip()
            if clip is None:
                return
            target = self.journal.new_file(clip.number, f"-{worker}")
            self._running[worker] = _Running(clip, target, now())
            self.crew.send(worker, clip, target)

    def _next_clip(self) -> Clip | None:
        if self._retries:
            return self._retries.popleft()
        clip = None if self._all_assigned else next(self.clips, None)
        if clip is None:
            self._all_assigned = True
            return self._straggler() if self.crew.has_several_devices else None
        return clip

    def _straggler(self) -> Clip | None:
        """Return a clip that takes much longer than usual, for a second worker; or None."""
        if not self._durations:
            return None
        limit = _SLOW_RATIO * statistics.median(self._durations)
        copies = Counter(each.clip.number for each in self._running.values())
        slow = [
            each
            for each in self._running.values()
            if copies[each.clip.number] == 1 and now() - each.started > limit
        ]
        return min(slow, key=lambda each: each.started).clip if slow else None

    def _handle(self, message: Message) -> None:
        if message.kind == "failed":
            raise message.payload
        if message.kind == "frames" and message.worker in self._running:
            self._running[message.worker].frames = message.payload
            self._report_frames()
        elif message.kind == "done":
            self._record(message.worker, message.payload)
            self._report_frames()
        elif message.kind in ("lost", "unready"):
            self._handle_loss(message)

    def _record(self, worker: int, done: SegmentResult) -> None:
        running = self._running.pop(worker)
        number = running.clip.number
        if number in self.results:  # another worker was faster
            running.target.unlink(missing_ok=True)
            return
        if done.stopped:
            self.truncated[number] = done.segment
        else:
            self.journal.add(done.segment)
        self._durations.append(now() - running.started)
        place = self.crew.place(worker)
        assert place is not None
        self.results[number] = (done.ledger, place)
        self._finished_frames += done.segment.frames
        running.clip.path.unlink(missing_ok=True)

    def _handle_loss(self, message: Message) -> None:
        running = self._running.pop(message.worker, None)
        if running is None and message.kind == "lost":
            return  # it was idle
        number = -1 if running is None else running.clip.number
        self._losses[number] += 1
        if self._losses[number] >= _MAX_LOSSES:
            raise BackendError(f"worker processes keep exiting unexpectedly ({message.payload})")
        if running is not None and number not in self.results:
            log.warning(
                "a worker exited unexpectedly (%s): encoding its segment again", message.payload
            )
            running.target.unlink(missing_ok=True)
            if all(each.clip.number != number for each in self._running.values()):
                self._retries.append(running.clip)

    def _report_frames(self) -> None:
        pending = {
            each.clip.number: each.frames
            for each in self._running.values()
            if each.clip.number not in self.results
        }
        self.on_frames(self._finished_frames + sum(pending.values()))

    def _resize_crew(self) -> None:
        if self.auto is not None and not (self._all_assigned or self._stopping):
            pending = sum(each.frames for each in self._running.values())
            by = self.auto.change(now(), self._finished_frames + pending)
            if by:
                self.crew.resize(by)
