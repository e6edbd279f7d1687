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
from vsr.files.worker import Place, WorkerSettings
from vsr.files.worker_process import STOP
from vsr.media.child import start_child
from vsr.media.clips import Clip
from vsr.media.limits import PROCESSORS_VARIABLE

_PROCESS: Final = "vsr.files.worker_process"
_KILL_TIMEOUT_S: Final = 5.0
"""Timeout for the end of a killed process, in seconds."""


@dataclass(frozen=True)
class Message:
    """A message from a worker."""

    worker: int
    kind: str
    """`ready`, `frames`, `done` or `failed`, as in `vsr.files.worker_process`; `lost`: the worker
    has ended, and `payload` is its host or exit code; `unready`: it ended before it was ready."""
    payload: Any


class Crew(Protocol):
    """The workers of a run, which make segments. Use from one thread."""

    has_several_devices: bool
    """Whether the workers are on several devices or computers, so that one may be slower."""

    def idle(self) -> Sequence[int]:
        """Return the workers that are ready for a clip."""
        ...

    def send(self, worker: int, clip: Clip, target: Path) -> None:
        """Assign a clip to an idle worker, which writes the segment to the file `target`."""
        ...

    def messages(self, timeout: float) -> Iterator[Message]:
        """Yield the received messages; wait up to `timeout` seconds. Lost workers are replaced."""
        ...

    def place(self, worker: int) -> Place | None:
        """Return the place of a worker; None until it is ready."""
        ...

    def resize(self, by: int) -> None:
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
    removed: bool = False


class LocalCrew:
    """Worker processes on this computer; see `Crew`."""

    def __init__(
        self, settings: WorkerSettings, devices: Sequence[str | None], share: int | None
    ) -> None:
        """Start a worker for each entry of `devices`, which may contain duplicates.

        `share`: number of processors that each worker may use; None: all. Raises BackendError.
        """
        self.has_several_devices = len(set(devices)) > 1
        self._settings, self._share = settings, share
        self._messages: queue.Queue[Message] = queue.Queue()
        self._numbers = itertools.count()
        self._workers: dict[int, _Process] = {}
        for device in devices:
            self._start(device)

    def idle(self) -> Sequence[int]:
        """See `Crew.idle`."""
        return [n for n, w in self._workers.items() if w.place and not (w.busy or w.removed)]

    def send(self, worker: int, clip: Clip, target: Path) -> None:
        """See `Crew.send`."""
        self._workers[worker].busy = True
        self._write(worker, (clip, target))

    def messages(self, timeout: float) -> Iterator[Message]:
        """See `Crew.messages`."""
        with suppress(queue.Empty):
            message = self._messages.get(timeout=timeout)
            while True:
                yield self._update(message)
                message = self._messages.get_nowait()

    def place(self, worker: int) -> Place | None:
        """See `Crew.place`."""
        return self._workers[worker].place

    def resize(self, by: int) -> None:
        """See `Crew.resize`."""
        if by > 0:
            self._start(next(iter(self._workers.values())).device)
            return
        last = max(self._workers)
        self._workers[last].removed = True
        self._release(last)

    def stop(self) -> None:
        """See `Crew.stop`."""
        for worker in self._workers:
            self._write(worker, STOP)

    def close(self) -> None:
        """See `Crew.close`."""
        for each in self._workers.values():
            each.process.kill()
        for each in self._workers.values():
            _kill(each.process)

    def _start(self, device: str | None) -> None:
        environment = dict(os.environ)
        if self._share is not None:
            environment[PROCESSORS_VARIABLE] = str(self._share)
        try:
            process = start_child(_PROCESS, stderr=None, env=environment)
        except OSError as exc:
            raise BackendError(f"cannot start a worker process: {reason(exc)}") from exc
        number = next(self._numbers)
        self._workers[number] = _Process(device, process)
        self._write(number, (self._settings, device))
        threading.Thread(target=self._listen, args=(number, process), daemon=True).start()

    def _listen(self, number: int, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process.stdout as messages:
            try:
                while True:
                    self._messages.put(Message(number, *pickle.load(messages)))
            except (EOFError, OSError, ValueError, pickle.UnpicklingError):
                self._messages.put(Message(number, "lost", f"exit code {process.wait()}"))

    def _write(self, number: int, payload: Any) -> None:
        """Send an object to a worker; `_listen` reports a process that has ended."""
        pipe = self._workers[number].process.stdin
        assert pipe is not None
        with suppress(OSError, ValueError):
            pickle.dump(payload, pipe)
            pipe.flush()

    def _update(self, message: Message) -> Message:
        worker = self._workers.get(message.worker)
        if worker is None:
            return message
        if message.kind == "ready":
            worker.place = message.payload
        elif message.kind == "done":
            worker.busy = False
            self._release(message.worker)
        elif message.kind == "lost" and not worker.removed:
            del self._workers[message.worker]
            _kill(worker.process)
            self._start(worker.device)
            return message if worker.place else replace(message, kind="unready")
        return message

    def _release(self, number: int) -> None:
        """End a process that `resize` removes, once it is idle."""
        worker = self._workers[number]
        if worker.removed and not worker.busy:
            _kill(worker.process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    with suppress(OSError):  # unread data in the buffer cannot be flushed
        assert process.stdin is not None
        process.stdin.close()
    process.wait(_KILL_TIMEOUT_S)
