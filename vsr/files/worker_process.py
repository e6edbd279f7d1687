"""A process that makes segments and communicates through pipes with the run that started it.

It reads pickled objects from stdin: an `Order` with the device's name, then clips with the file to
write, or `STOP` to end the segment in progress; it exits at the end of stdin. It writes pickled
pairs to stdout: ("ready", Place), ("frames", number), ("done", Done), ("failed", VsrError).
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
_EVERY: Final = 0.2
"""Minimum interval between `frames` messages, in seconds."""


def _read(orders: BinaryIO, tasks: "queue.Queue[Any]", stop: threading.Event) -> None:
    """Put received objects into `tasks`; end the process if the other side is gone."""
    while True:
        try:
            item = pickle.load(orders)
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)
        if item == STOP:
            stop.set()
        tasks.put(item)


class _Speaker:
    """Writes messages to the run. Use from one thread."""

    def __init__(self, to: BinaryIO) -> None:
        self._to, self._last = to, 0.0

    def say(self, kind: str, what: Any) -> None:
        pickle.dump((kind, what), self._to)
        self._to.flush()

    def frames(self, number: int) -> None:
        if time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            self.say("frames", number)


def main() -> None:
    """Process tasks until the standard input ends."""
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the messages
    logging.basicConfig(format="vsr: %(message)s", level=logging.WARNING)
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints a banner otherwise
    speaker, stop = _Speaker(answers), threading.Event()
    tasks: queue.Queue[Any] = queue.Queue()
    order, device = pickle.load(orders)
    threading.Thread(target=_read, args=(orders, tasks, stop), daemon=True).start()
    try:
        worker = Worker(order, device)
        speaker.say("ready", worker.place)
        while True:
            item = tasks.get()
            if item != STOP:
                clip, target = item
                speaker.say("done", worker.work(clip, target, stop, speaker.frames))
    except VsrError as exc:
        speaker.say("failed", exc)
    except Exception as exc:  # a bug in vsr, or no memory: one line, as in `vsr.cli.terminal`
        logging.debug("a worker fails", exc_info=True)
        speaker.say("failed", VsrError(f"unexpected {type(exc).__name__}: {exc}"))


if __name__ == "__main__":
    main()
