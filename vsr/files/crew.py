"""The workers of a run on this computer: a process each, from which what they say is collected."""

import itertools
import os
import pickle
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from vsr.errors import BackendError, reason
from vsr.files.worker import Order, Place
from vsr.files.worker_process import STOP
from vsr.media.child import start_child
from vsr.media.clips import Clip
from vsr.media.limits import SHARE

_PROCESS: Final = "vsr.files.worker_process"
_PATIENCE: Final = 5.0
"""Seconds until a process that is to end is ended."""


@dataclass(frozen=True)
class Said:
    """What a worker says."""

    worker: int
    kind: str
    """`ready`, `frames`, `done` or `failed`, as in `vsr.files.worker_process`; `lost`: it is gone,
    and the text says where or how; `unready`: it is gone before it was ready."""
    what: Any


class Crew(Protocol):
    """Workers that make segments. Use from one thread."""

    spread: bool
    """Whether they are on several devices or computers, so that one may be slower."""

    def idle(self) -> Sequence[int]:
        """Workers that take a clip."""
        ...

    def send(self, worker: int, clip: Clip, target: Path) -> None:
        """Have an idle worker make a segment in a file."""
        ...

    def said(self, timeout: float) -> Iterator[Said]:
        """What workers said; waits so many seconds for it. One that is lost is replaced."""
        ...

    def place(self, worker: int) -> Place | None:
        """Where it works; None while it is not ready."""
        ...

    def change(self, by: int) -> None:
        """Add a worker, or do without one."""
        ...

    def stop(self) -> None:
        """Have the workers end their segments after the frames under way."""
        ...

    def close(self) -> None:
        """End all workers at once."""
        ...


@dataclass
class _Process:
    device: str | None
    process: "subprocess.Popen[bytes]"
    place: Place | None = None
    busy: bool = False
    unwanted: bool = False


class LocalCrew:
    """Processes on this computer: see `Crew`."""

    def __init__(self, order: Order, devices: Sequence[str | None], share: int | None) -> None:
        """A worker for each of `devices`, which may be the same ones.

        `share`: processors that each may compute with; None: all. Raises BackendError.
        """
        self.spread = len(set(devices)) > 1
        self._order, self._share = order, share
        self._heard: queue.Queue[Said] = queue.Queue()
        self._numbers = itertools.count()
        self._workers: dict[int, _Process] = {}
        for device in devices:
            self._start(device)

    def idle(self) -> Sequence[int]:
        """See `Crew.idle`."""
        return [n for n, w in self._workers.items() if w.place and not (w.busy or w.unwanted)]

    def send(self, worker: int, clip: Clip, target: Path) -> None:
        """See `Crew.send`."""
        self._workers[worker].busy = True
        self._tell(worker, (clip, target))

    def said(self, timeout: float) -> Iterator[Said]:
        """See `Crew.said`."""
        with suppress(queue.Empty):
            said = self._heard.get(timeout=timeout)
            while True:
                yield self._noted(said)
                said = self._heard.get_nowait()

    def place(self, worker: int) -> Place | None:
        """See `Crew.place`."""
        return self._workers[worker].place

    def change(self, by: int) -> None:
        """See `Crew.change`."""
        if by > 0:
            self._start(next(iter(self._workers.values())).device)
            return
        last = max(self._workers)
        self._workers[last].unwanted = True
        self._release(last)

    def stop(self) -> None:
        """See `Crew.stop`."""
        for worker in self._workers:
            self._tell(worker, STOP)

    def close(self) -> None:
        """See `Crew.close`."""
        for each in self._workers.values():
            each.process.kill()
        for each in self._workers.values():
            _end(each.process)

    def _start(self, device: str | None) -> None:
        environment = dict(os.environ)
        if self._share is not None:
            environment[SHARE] = str(self._share)
        try:
            process = start_child(_PROCESS, stderr=None, env=environment)
        except OSError as exc:
            raise BackendError(f"cannot start a worker: {reason(exc)}") from exc
        number = next(self._numbers)
        self._workers[number] = _Process(device, process)
        self._tell(number, (self._order, device))
        threading.Thread(target=self._listen, args=(number, process), daemon=True).start()

    def _listen(self, number: int, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process.stdout as answers:
            try:
                while True:
                    self._heard.put(Said(number, *pickle.load(answers)))
            except (EOFError, OSError, ValueError, pickle.UnpicklingError):
                self._heard.put(Said(number, "lost", f"exit code {process.wait()}"))

    def _tell(self, number: int, what: Any) -> None:
        """Send an object; of a process that is gone, `_listen` says so."""
        pipe = self._workers[number].process.stdin
        assert pipe is not None
        with suppress(OSError, ValueError):
            pickle.dump(what, pipe)
            pipe.flush()

    def _noted(self, said: Said) -> Said:
        worker = self._workers.get(said.worker)
        if worker is None:
            return said
        if said.kind == "ready":
            worker.place = said.what
        elif said.kind == "done":
            worker.busy = False
            self._release(said.worker)
        elif said.kind == "lost" and not worker.unwanted:
            del self._workers[said.worker]
            _end(worker.process)
            self._start(worker.device)
            return said if worker.place else replace(said, kind="unready")
        return said

    def _release(self, number: int) -> None:
        """End a process that is no longer wanted, once it has nothing to do."""
        worker = self._workers[number]
        if worker.unwanted and not worker.busy:
            _end(worker.process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    with suppress(OSError):  # what it has not read cannot be written any more
        assert process.stdin is not None
        process.stdin.close()
    process.wait(_PATIENCE)
