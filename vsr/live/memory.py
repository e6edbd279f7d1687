"""How a relay, which runs for days, takes its memory from the system and gives it back."""

import ctypes
import sys
import threading
from typing import Any, Final

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX in glibc's malloc.h."""
_ARENAS: Final = 2
_LARGE: Final = 128 * 1024
"""Bytes from which on a block is mapped by itself, and goes back to the system when it is freed."""
_EVERY_S: Final = 60.0


def settle_heaps() -> None:
    """Keep the gaps in this process's heaps small, and return what is free; for a program's start.

    glibc gives each thread a heap of its own, and pictures and packets made by one thread and freed
    by another leave gaps in all of them. So all threads share two. Large blocks stay out of them:
    without a fixed threshold, glibc puts into the heaps whatever is no larger than the largest
    block freed so far. Once a minute what is free in between is given back, which takes a
    millisecond. Does nothing with another C library.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is None:
        return
    for name, value in (
        (_ARENA_MAX, _ARENAS), (_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE),
    ):  # fmt: skip
        mallopt(name, value)
    if hasattr(libc, "malloc_trim"):
        threading.Thread(target=_trim, args=(libc,), name="trim", daemon=True).start()


def _trim(libc: Any) -> None:
    while True:
        threading.Event().wait(_EVERY_S)
        libc.malloc_trim(0)
