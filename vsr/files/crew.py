"""Starts the workers of a run on this computer, one process each, and receives their messages."""

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
from vsr.media.limits import PROCESSORS_VARIABLE

_PROCESS: Final = "vsr.files.worker_process"
_PATIENCE: Final = 5.0
"""Timeout for the end of a killed process, in seconds."""


@dataclass(frozen=True)
class Said:
    """A message from a worker."""

    worker: int
    kind: str
    """`ready`, `frames`, `done` or `failed`, as in `vsr.files.worker_process`; `lost`: the worker
    has ended, and `what` is its host or exit code; `unready`: it ended before it was ready."""
    what: Any


class Crew(Protocol):
    """The workers of a run, which make segments. Use from one thread."""

    spread: bool
    """Whether the workers are on several devices or computers, so that one may be slower."""

    def idle(self) -> Sequence[int]:
        """Return the workers that are ready for a clip."""
        ...

    def send(self, worker: int, clip: Clip, target: Path) -> None:
        """Assign a clip to an idle worker, which writes the segment to the file `target`."""
        ...

    def said(self, timeout: float) -> Iterator[Said]:
        """Yield the received messages; wait up to `timeout` seconds. Lost workers are replaced."""
        ...

    def place(self, worker: int) -> Place | None:
        """Return the place of a worker; None until it is ready."""
        ...

    def change(self, by: int) -> None:
        """Add a worker (`by` > 0) or remove one."""
        ...

    def stop(self) -> None:
        """Have the workers end their segments after the frames in progress."""
        ...

    def close(self) -> None:
        """End all workers immediately."""
        ...


@dataclass
class _Process:
    device: str | None
    process: "subprocess.Popen[bytes]"
    place: Place | None = None
    busy: bool = False
    unwanted: bool = False


class LocalCrew:
    """Worker processes on this computer; see `Crew`."""

    def __init__(self, order: Order, devices: Sequence[str | None], share: int | None) -> None:
        """Start a worker for each entry of `devices`, which may contain duplicates.

        `share`: number of processors that each worker may use; None: all. Raises BackendError.
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
            environment[PROCESSORS_VARIABLE] = str(self._share)
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
        """Send an object to a worker; `_listen` reports a process that has ended."""
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
        """End a process that `change` removes, once it is idle."""
        worker = self._workers[number]
        if worker.unwanted and not worker.busy:
            _end(worker.process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    with suppress(OSError):  # unread data in the buffer cannot be flushed
        assert process.stdin is not None
        process.stdin.close()
    process.wait(_PATIENCE)
