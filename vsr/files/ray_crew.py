"""Runs the workers of a run on the nodes of a Ray cluster, which need no access to its files.

A worker is a Ray actor that keeps its engine. It receives the packets of a clip and returns the
encoded segment. Each worker has one clip at a time, so the number of workers bounds the memory.
"""

import itertools
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from vsr.errors import BackendError, OutputError, VsrError, reason
from vsr.files.cluster import Cluster, Node
from vsr.files.crew import Said
from vsr.files.worker import Done, Order, Place, Worker
from vsr.media.clips import Clip
from vsr.media.frame import now
from vsr.media.limits import SHARE

log = logging.getLogger(__name__)

_ASK: Final = 2.0
"""Interval between requests for a worker's number of finished frames, in seconds."""
_LOOK: Final = 5.0
"""Interval between checks for nodes that join or come back, in seconds."""
_ALONE: Final = 120.0
"""Timeout without any worker after which a run fails, in seconds."""


class _Actor:
    """Actor that runs a `Worker` on a node."""

    def __init__(self, processors: int) -> None:
        os.environ[SHARE] = str(processors)
        os.environ.setdefault("SVT_LOG", "1")
        self._worker: Worker | None = None
        self._stop = threading.Event()
        self._frames = 0

    def begin(self, order: Order) -> Place | VsrError:
        """Build the engine; return the worker's place, or the error."""
        try:
            self._worker = Worker(order, None)
        except VsrError as exc:
            return exc
        return self._worker.place

    def work(self, clip: Clip, packets: bytes) -> tuple[Done, bytes] | VsrError:
        """Make the segment of a clip, whose file has the content `packets`.

        Return the result with the content of the segment's file, or the error.
        """
        assert self._worker is not None
        with tempfile.TemporaryDirectory(prefix="vsr-") as folder:
            own = replace(clip, path=Path(folder, "clip"))
            own.path.write_bytes(packets)
            target = Path(folder, "segment.nut")
            try:
                done = self._worker.work(own, target, self._stop, self._told)
            except VsrError as exc:
                return exc
            finally:
                self._frames = 0  # a request may arrive before the next segment begins
            return done, target.read_bytes()

    def frames(self) -> int:
        """Return the number of finished frames of the segment."""
        return self._frames

    def stop(self) -> None:
        """End the segment after the frames in progress."""
        self._stop.set()

    def _told(self, frames: int) -> None:
        self._frames = frames


@dataclass
class _Member:
    node: Node
    actor: Any
    place: Place | None = None
    target: Path | None = None
    asked: float = 0.0


class RayCrew:
    """Ray actors as workers; see `vsr.files.crew.Crew`."""

    spread = True

    def __init__(self, cluster: Cluster, order: Order, jobs: int) -> None:
        """Start a worker per GPU; on nodes without one, `jobs` workers sharing the processors."""
        self._cluster, self._ray, self._jobs = cluster, cluster.ray, jobs
        self._order = self._ray.put(order)
        self._numbers = itertools.count()
        self._members: dict[int, _Member] = {}
        self._waiting: dict[Any, tuple[int, str, Path | None]] = {}
        """Expected replies -> (worker, kind of message, its segment's file)."""
        self._looked = self._alone = now()
        self._join()

    def idle(self) -> Sequence[int]:
        """See `Crew.idle`."""
        return [n for n, member in self._members.items() if member.place and not member.target]

    def send(self, worker: int, clip: Clip, target: Path) -> None:
        """See `Crew.send`."""
        member = self._members[worker]
        member.target, member.asked = target, now()
        try:
            packets = clip.path.read_bytes()
        except OSError as exc:
            raise OutputError(f"cannot read {clip.path}: {reason(exc)}") from exc
        self._waiting[member.actor.work.remote(clip, packets)] = (worker, "done", target)

    def said(self, timeout: float) -> Iterator[Said]:
        """See `Crew.said`."""
        self._join()
        self._ask()
        if not self._waiting:
            threading.Event().wait(timeout)
            return
        ready, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=timeout)
        for reference in ready:
            worker, kind, target = self._waiting.pop(reference)
            if worker in self._members:
                try:
                    answer = self._ray.get(reference)
                except Exception as exc:  # any error: the actor or its node has ended
                    yield self._lost(worker, exc)
                    continue
                if target == self._members[worker].target:  # else frames of an earlier segment
                    yield self._understood(worker, kind, answer)

    def place(self, worker: int) -> Place | None:
        """See `Crew.place`."""
        return self._members[worker].place

    def change(self, by: int) -> None:
        """Do nothing: the nodes of the cluster determine the number of workers."""

    def stop(self) -> None:
        """See `Crew.stop`."""
        for member in self._members.values():
            member.actor.stop.remote()

    def close(self) -> None:
        """See `Crew.close`."""
        for member in self._members.values():
            self._ray.kill(member.actor)
        self._members.clear()

    def _join(self) -> None:
        """Start workers on nodes that have fewer than they can run."""
        if self._members and now() - self._looked < _LOOK:
            return
        self._looked = now()
        for node in self._cluster.nodes():
            there = sum(member.node.id == node.id for member in self._members.values())
            for _ in range((node.gpus or min(self._jobs, node.cpus)) - there):
                self._start(node)
        if self._members:
            self._alone = now()
        elif now() - self._alone > _ALONE:
            raise BackendError("no computer of the Ray cluster is left to work")

    def _start(self, node: Node) -> None:
        processors = max(1, node.cpus // (node.gpus or self._jobs))
        take = {"num_gpus": 1, "num_cpus": 0} if node.gpus else {"num_cpus": processors}
        actor = self._cluster.on(node, _Actor, max_concurrency=3, **take).remote(processors)
        number = next(self._numbers)
        self._members[number] = _Member(node, actor)
        self._waiting[actor.begin.remote(self._order)] = (number, "ready", None)

    def _ask(self) -> None:
        """Request the number of finished frames from busy workers, at intervals of `_ASK`."""
        for number, member in self._members.items():
            if member.target is not None and now() - member.asked >= _ASK:
                member.asked = now()
                self._waiting[member.actor.frames.remote()] = (number, "frames", member.target)

    def _understood(self, worker: int, kind: str, answer: Any) -> Said:
        member = self._members[worker]
        if isinstance(answer, VsrError):
            return Said(worker, "failed", type(answer)(f"{member.node.host}: {answer}"))
        if kind == "ready":
            member.place = answer
        if kind != "done":
            return Said(worker, kind, answer)
        done, encoded = answer
        target, member.target = member.target, None
        assert target is not None
        try:
            target.write_bytes(encoded)
        except OSError as exc:
            raise OutputError(f"cannot write {target}: {reason(exc)}") from exc
        return Said(worker, "done", replace(done, segment=replace(done.segment, file=target.name)))

    def _lost(self, worker: int, exc: Exception) -> Said:
        member = self._members.pop(worker)
        self._looked = now()  # Ray needs a moment to detect that a node is gone
        kind = "lost" if member.place else "unready"
        log.debug("%s is lost", member.node.host, exc_info=exc)
        return Said(worker, kind, member.node.host)
