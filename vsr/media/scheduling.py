"""Keeps the scheduling policy of this process as it is while a library opens.

Run as root, as in most containers, SVT-AV1 makes the thread that opens it and all threads of its
own real-time threads (SCHED_FIFO, priority 99), and every later thread inherits that: an encode
then starves all else on the machine.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_THREADS: Final = Path("/proc/self/task")
_Scheduling = tuple[int, int]
"""A policy and its priority."""


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """Give back every thread the policy that it had; new threads get the calling thread's.

    Does nothing where the system shows no threads (not Linux). Thread-safe as far as threads that
    others start meanwhile should have the caller's policy, too.
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
    """Policy and priority of every thread by its id."""
    found: dict[int, _Scheduling] = {}
    if not _THREADS.exists():
        return found
    for entry in _THREADS.iterdir():
        thread = int(entry.name)
        with suppress(OSError):
            policy = os.sched_getscheduler(thread)
            found[thread] = (policy, os.sched_getparam(thread).sched_priority)
    return found
