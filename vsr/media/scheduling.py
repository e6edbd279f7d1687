"""Preserves the scheduling policy of this process while a library opens.

Run as root, as in most containers, SVT-AV1 makes the thread that opens it and all its worker
threads real-time threads (SCHED_FIFO, priority 99), and every later thread inherits that: an encode
then starves everything else on the machine.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_THREADS: Final = Path("/proc/self/task")
_Scheduling = tuple[int, int]
"""Scheduling policy and its priority."""


@contextmanager
def keep_scheduling() -> Iterator[None]:
    """Restore every thread's policy at the end; new threads get the calling thread's.

    Does nothing if the system does not list threads (not Linux). Thread-safe if threads that other
    threads start meanwhile should also have the caller's policy.
    """
    before = _scheduling()
    try:
        yield
    finally:
        for thread, now in _scheduling().items():
            policy, priority = before.get(thread, before[threading.get_native_id()])
            if now != (policy, priority):
                with suppress(OSError):  # the thread has ended
                    os.sched_setscheduler(thread, policy, os.sched_param(priority))


def _scheduling() -> dict[int, _Scheduling]:
    """Return thread id -> policy and priority, for every thread."""
    found: dict[int, _Scheduling] = {}
    if not _THREADS.exists():
        return found
    for entry in _THREADS.iterdir():
        thread = int(entry.name)
        with suppress(OSError):
            policy = os.sched_getscheduler(thread)
            found[thread] = (policy, os.sched_getparam(thread).sched_priority)
    return found
