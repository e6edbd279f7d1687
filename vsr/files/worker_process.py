"""A process that makes segments and communicates through pipes with the run that started it.

It reads pickled objects from stdin: `WorkerSettings` with the device's name, then clips with the
file to write, or `STOP` to end the segment in progress; it exits at the end of stdin. It writes
pickled pairs to stdout: ("ready", Place), ("frames", number), ("done", SegmentResult), ("failed",
VsrError).
"""

import logging
import os
import pickle
import queue
import sys
import threading
import time
from typing import Any, BinaryIO, Final

from vsr.errors import VsrError
from vsr.files.worker import Worker

STOP: Final = "stop"
_MIN_INTERVAL_S: Final = 0.2
"""Minimum interval between `frames` messages, in seconds."""


def _read(tasks_in: BinaryIO, tasks: "queue.Queue[Any]", stop: threading.Event) -> None:
    """Put received objects into `tasks`; end the process if the other side is gone."""
    while True:
        try:
            item = pickle.load(tasks_in)
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)
        if item == STOP:
            stop.set()
        tasks.put(item)


class _MessageWriter:
    """Writes messages to the run. Use from one thread."""

    def __init__(self, to: BinaryIO) -> None:
        self._to, self._last = to, 0.0

    def send(self, kind: str, payload: Any) -> None:
        pickle.dump((kind, payload), self._to)
        self._to.flush()

    def frames(self, number: int) -> None:
        if time.monotonic() - self._last >= _MIN_INTERVAL_S:
            self._last = time.monotonic()
            self.send("frames", number)


def main() -> None:
    """Process tasks until the standard input ends."""
    tasks_in, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the messages
    logging.basicConfig(format="vsr: %(message)s", level=logging.WARNING)
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints a banner otherwise
    messages, stop = _MessageWriter(answers), threading.Event()
    tasks: queue.Queue[Any] = queue.Queue()
    settings, device = pickle.load(tasks_in)
    threading.Thread(target=_read, args=(tasks_in, tasks, stop), daemon=True).start()
    try:
        worker = Worker(settings, device)
        messages.send("ready", worker.place)
        while True:
            item = tasks.get()
            if item != STOP:
                clip, target = item
                messages.send("done", worker.work(clip, target, stop, messages.frames))
    except VsrError as exc:
        messages.send("failed", exc)
    except Exception as exc:  # a bug in vsr, or no memory: one line, as in `vsr.cli.terminal`
        logging.debug("worker failed", exc_info=True)
        messages.send("failed", VsrError(f"unexpected {type(exc).__name__}: {exc}"))


if __name__ == "__main__":
    main()
