"""Configures how a relay, which runs for days, allocates and returns memory (glibc)."""

import ctypes
import sys
import threading
from typing import Any, Final

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Values of M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX in glibc's malloc.h."""
_MAX_ARENAS: Final = 2
_LARGE_BLOCK: Final = 128 * 1024
"""Size in bytes from which a block is mapped separately, and returned to the system when freed."""
_TRIM_INTERVAL_S: Final = 60.0


def configure_malloc() -> None:
    """Limit this process's heap fragmentation and return free memory; call at program start.

    glibc gives each thread a separate heap, and frames and packets that one thread allocates and
    another frees fragment all of them. So all threads share two heaps. Large blocks are kept out of
    the heaps: without a fixed threshold, glibc puts every block into them that is no larger than
    the largest block freed so far. Once a minute, free memory between blocks is returned, which
    takes a millisecond. Does nothing with another C library.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is None:
        return
    for name, value in (
        (_ARENA_MAX, _MAX_ARENAS), (_MMAP_THRESHOLD, _LARGE_BLOCK), (_TRIM_THRESHOLD, _LARGE_BLOCK),
    ):  # fmt: skip
        mallopt(name, value)
    if hasattr(libc, "malloc_trim"):
        threading.Thread(target=_trim, args=(libc,), name="trim", daemon=True).start()


def _trim(libc: Any) -> None:
    while True:
        threading.Event().wait(_TRIM_INTERVAL_S)
        libc.malloc_trim(0)
