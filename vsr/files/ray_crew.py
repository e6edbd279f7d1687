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
from vsr.files.crew import Message
from vsr.files.worker import Place, SegmentResult, Worker, WorkerSettings
from vsr.media.clips import Clip
from vsr.media.frame import now
from vsr.media.limits import PROCESSORS_VARIABLE

log = logging.getLogger(__name__)

_FRAMES_INTERVAL_S: Final = 2.0
"""Interval between requests for a worker's number of finished frames, in seconds."""
_NODES_INTERVAL_S: Final = 5.0
"""Interval between checks for nodes that join or come back, in seconds."""
_NO_WORKER_TIMEOUT_S: Final = 120.0
"""Timeout without any worker after which a run fails, in seconds."""


class _Actor:
    """Actor that runs a `Worker` on a node."""

    def __init__(self, processors: int) -> None:
        os.environ[PROCESSORS_VARIABLE] = str(processors)
        os.environ.setdefault("SVT_LOG", "1")
        self._worker: Worker | None = None
        self._stop = threading.Event()
        self._frames = 0

    def begin(self, settings: WorkerSettings) -> Place | VsrError:
        """Build the engine; return the worker's place, or the error."""
        try:
            self._worker = Worker(settings, None)
        except VsrError as exc:
            return exc
        return self._worker.place

    def work(self, clip: Clip, packets: bytes) -> tuple[SegmentResult, bytes] | VsrError:
        """Make the segment of a clip, whose file has the content `packets`.

        Return the result with the content of the segment's file, or the error.
        """
        assert self._worker is not None
        with tempfile.TemporaryDirectory(prefix="vsr-") as folder:
            own = replace(clip, path=Path(folder, "clip"))
            own.path.write_bytes(packets)
            target = Path(folder, "segment.nut")
            try:
                done = self._worker.work(own, target, self._stop, self._set_frames)
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

    def _set_frames(self, frames: int) -> None:
        self._frames = frames


@dataclass
class _RayWorker:
    node: Node
    actor: Any
    place: Place | None = None
    target: Path | None = None
    requested: float = 0.0


class RayCrew:
    """Ray actors as workers; see `vsr.files.crew.Crew`."""

    has_several_devices = True

    def __init__(self, cluster: Cluster, settings: WorkerSettings, jobs: int) -> None:
        """Start a worker per GPU; on nodes without one, `jobs` workers sharing the processors."""
        self._cluster, self._ray, self._jobs = cluster, cluster.ray, jobs
        self._settings = self._ray.put(settings)
        self._numbers = itertools.count()
        self._workers: dict[int, _RayWorker] = {}
        self._pending: dict[Any, tuple[int, str, Path | None]] = {}
        """Expected replies -> (worker, kind of message, its segment's file)."""
        self._nodes_checked = self._last_with_worker = now()
        self._add_workers()

    def idle(self) -> Sequence[int]:
        """See `Crew.idle`."""
        return [n for n, entry in self._workers.items() if entry.place and not entry.target]

    def send(self, worker: int, clip: Clip, target: Path) -> None:
        """See `Crew.send`."""
        entry = self._workers[worker]
        entry.target, entry.requested = target, now()
        try:
            packets = clip.path.read_bytes()
        except OSError as exc:
            raise OutputError(f"cannot read {clip.path}: {reason(exc)}") from exc
        self._pending[entry.actor.work.remote(clip, packets)] = (worker, "done", target)

    def messages(self, timeout: float) -> Iterator[Message]:
        """See `Crew.messages`."""
        self._add_workers()
        self._request_frames()
        if not self._pending:
            threading.Event().wait(timeout)
            return
        ready, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=timeout)
        for reference in ready:
            worker, kind, target = self._pending.pop(reference)
            if worker in self._workers:
                try:
                    answer = self._ray.get(reference)
                except Exception as exc:  # any error: the actor or its node has ended
                    yield self._lost(worker, exc)
                    continue
                if target == self._workers[worker].target:  # else frames of an earlier segment
                    yield self._message(worker, kind, answer)

    def place(self, worker: int) -> Place | None:
        """See `Crew.place`."""
        return self._workers[worker].place

    def resize(self, by: int) -> None:
        """Do nothing: the nodes of the cluster determine the number of workers."""

    def stop(self) -> None:
        """See `Crew.stop`."""
        for entry in self._workers.values():
            entry.actor.stop.remote()

    def close(self) -> None:
        """See `Crew.close`."""
        for entry in self._workers.values():
            self._ray.kill(entry.actor)
        self._workers.clear()

    def _add_workers(self) -> None:
        """Start workers on nodes that have fewer than they can run."""
        if self._workers and now() - self._nodes_checked < _NODES_INTERVAL_S:
            return
        self._nodes_checked = now()
        for node in self._cluster.nodes():
            there = sum(entry.node.id == node.id for entry in self._workers.values())
            for _ in range((node.gpus or min(self._jobs, node.cpus)) - there):
                self._start(node)
        if self._workers:
            self._last_with_worker = now()
        elif now() - self._last_with_worker > _NO_WORKER_TIMEOUT_S:
            raise BackendError(
                f"the Ray cluster has had no worker for {_NO_WORKER_TIMEOUT_S:g} s: see "
                "vsr cluster check"
            )

    def _start(self, node: Node) -> None:
        processors = max(1, node.cpus // (node.gpus or self._jobs))
        take = {"num_gpus": 1, "num_cpus": 0} if node.gpus else {"num_cpus": processors}
        actor = self._cluster.pinned_to(node, _Actor, max_concurrency=3, **take).remote(processors)
        number = next(self._numbers)
        self._workers[number] = _RayWorker(node, actor)
        self._pending[actor.begin.remote(self._settings)] = (number, "ready", None)

    def _request_frames(self) -> None:
        """Request the number of finished frames from busy workers, at intervals."""
        for number, entry in self._workers.items():
            if entry.target is not None and now() - entry.requested >= _FRAMES_INTERVAL_S:
                entry.requested = now()
                self._pending[entry.actor.frames.remote()] = (number, "frames", entry.target)

    def _message(self, worker: int, kind: str, answer: Any) -> Message:
        entry = self._workers[worker]
        if isinstance(answer, VsrError):
            return Message(worker, "failed", type(answer)(f"{entry.node.host}: {answer}"))
        if kind == "ready":
            entry.place = answer
        if kind != "done":
            return Message(worker, kind, answer)
        done, encoded = answer
        target, entry.target = entry.target, None
        assert target is not None
        try:
            target.write_bytes(encoded)
        except OSError as exc:
            raise OutputError(f"cannot write {target}: {reason(exc)}") from exc
        return Message(
            worker, "done", replace(done, segment=replace(done.segment, file=target.name))
        )

    def _lost(self, worker: int, exc: Exception) -> Message:
        entry = self._workers.pop(worker)
        self._nodes_checked = now()  # Ray needs a moment to detect that a node is gone
        kind = "lost" if entry.place else "unready"
        log.debug("lost the worker on %s", entry.node.host, exc_info=exc)
        return Message(worker, kind, entry.node.host)
