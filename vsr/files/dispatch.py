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
from vsr.files.crew import Crew, Said
from vsr.files.journal import Journal
from vsr.files.journal_lines import Segment
from vsr.files.worker import Done, Place
from vsr.media.clips import Clip
from vsr.media.frame import now
from vsr.report.ledger import Ledger

log = logging.getLogger(__name__)

_WAIT: Final = 0.1
"""Timeout for messages, after which a stop is checked, in seconds."""
_TRIES: Final = 3
"""Number of workers lost over one segment, or before they are ready, at which the run fails."""
_SLOW: Final = 2.0
"""Ratio to the median time of a segment above which a second worker makes it too."""


@dataclass
class _Running:
    clip: Clip
    target: Path
    began: float
    frames: int = 0


@dataclass
class Dispatch:
    """Assigns clips to idle workers. Call `run` once."""

    crew: Crew
    clips: Iterator[Clip]
    journal: Journal
    stop: threading.Event
    told: Callable[[int], None]
    """Callback that receives the number of frames finished in this run."""
    auto: AutoJobs | None = None
    """Decides on the number of workers; None: the number is fixed."""
    made: dict[int, tuple[Ledger, Place]] = field(default_factory=dict)
    """Ledger and place of each segment made in this run, by segment number."""
    tails: dict[int, Segment] = field(default_factory=dict)
    """Segments cut off by a stop, by segment number."""
    _running: dict[int, _Running] = field(default_factory=dict)
    _again: deque[Clip] = field(default_factory=deque)
    _lost: Counter[int] = field(default_factory=Counter)
    _times: list[float] = field(default_factory=list)
    _done: int = 0
    _empty: bool = False
    """Whether all clips have been assigned."""
    _stopping: bool = False

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped before all segments were finished."""
        return self._stopping and bool(self.tails or self._again or not self._empty)

    def run(self) -> None:
        """Make all segments; once `stop` is set, end those in progress. Raises VsrError."""
        try:
            while self._goes_on():
                if not self._stopping:
                    self._hand_out()
                for said in self.crew.said(_WAIT):
                    self._hear(said)
                self._adapt()
        finally:
            self.crew.close()

    def _goes_on(self) -> bool:
        if self.stop.is_set() and not self._stopping:
            self._stopping = True
            self.crew.stop()
        pending = {each.clip.number for each in self._running.values()} - self.made.keys()
        return bool(pending) if self._stopping else bool(pending or not self._empty or self._again)

    def _hand_out(self) -> None:
        for worker in self.crew.idle():
            clip = self._next()
            if clip is None:
                return
            target = self.journal.new_file(clip.number, f"-{worker}")
            self._running[worker] = _Running(clip, target, now())
            self.crew.send(worker, clip, target)

    def _next(self) -> Clip | None:
        if self._again:
            return self._again.popleft()
        clip = None if self._empty else next(self.clips, None)
        if clip is None:
            self._empty = True
            return self._straggler() if self.crew.spread else None
        return clip

    def _straggler(self) -> Clip | None:
        """Return a clip that takes much longer than usual, for a second worker; or None."""
        if not self._times:
            return None
        limit = _SLOW * statistics.median(self._times)
        copies = Counter(each.clip.number for each in self._running.values())
        slow = [
            each
            for each in self._running.values()
            if copies[each.clip.number] == 1 and now() - each.began > limit
        ]
        return min(slow, key=lambda each: each.began).clip if slow else None

    def _hear(self, said: Said) -> None:
        if said.kind == "failed":
            raise said.what
        if said.kind == "frames" and said.worker in self._running:
            self._running[said.worker].frames = said.what
            self._tell()
        elif said.kind == "done":
            self._keep(said.worker, said.what)
            self._tell()
        elif said.kind in ("lost", "unready"):
            self._lose(said)

    def _keep(self, worker: int, done: Done) -> None:
        running = self._running.pop(worker)
        number = running.clip.number
        if number in self.made:  # another worker was faster
            running.target.unlink(missing_ok=True)
            return
        if done.stopped:
            self.tails[number] = done.segment
        else:
            self.journal.add(done.segment)
        self._times.append(now() - running.began)
        place = self.crew.place(worker)
        assert place is not None
        self.made[number] = (done.ledger, place)
        self._done += done.segment.frames
        running.clip.path.unlink(missing_ok=True)

    def _lose(self, said: Said) -> None:
        running = self._running.pop(said.worker, None)
        if running is None and said.kind == "lost":
            return  # it was idle
        number = -1 if running is None else running.clip.number
        self._lost[number] += 1
        if self._lost[number] >= _TRIES:
            raise BackendError(f"workers end again and again without a word ({said.what})")
        if running is not None and number not in self.made:
            log.warning("a worker was lost (%s): its segment is made again", said.what)
            running.target.unlink(missing_ok=True)
            if all(each.clip.number != number for each in self._running.values()):
                self._again.append(running.clip)

    def _tell(self) -> None:
        pending = {
            each.clip.number: each.frames
            for each in self._running.values()
            if each.clip.number not in self.made
        }
        self.told(self._done + sum(pending.values()))

    def _adapt(self) -> None:
        if self.auto is not None and not (self._empty or self._stopping):
            pending = sum(each.frames for each in self._running.values())
            by = self.auto.change(now(), self._done + pending)
            if by:
                self.crew.change(by)
