"""How a relay, which runs for days, takes its memory from the system."""

import ctypes
import sys
from typing import Final

_ARENA_MAX: Final = -8
"""M_ARENA_MAX in glibc's malloc.h."""
_ARENAS: Final = 2


def share_heaps() -> None:
    """Have all threads of this process allocate from two heaps; for a program's start.

    glibc gives each thread a heap of its own, and pictures and packets made by one thread and freed
    by another leave gaps in all of them: in its first five minutes a relay of 320x180 grew by
    7.3 MiB, and by 4.6 MiB with two heaps. Does nothing with another C library.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_ARENA_MAX, _ARENAS)
