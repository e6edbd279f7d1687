"""Pools page-locked memory as numpy arrays; it returns to the pool when they are collected.

An encoder may keep a picture for any time: its memory returns to the pool when the last view of it
is collected, so frames need neither be copied nor released.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock
from time import monotonic

import numpy as np
import numpy.typing as npt

from vsr.errors import BackendError
from vsr.inference.cuda.interface import PinnedBuffer


class PinnedPool:
    """A pool of page-locked memory, used as numpy arrays. Thread-safe.

    Memory is allocated only if no free buffer of that size exists, and at most `limit` bytes in
    total. At the limit, free buffers of other sizes are freed first, then `take` waits up to
    `timeout_s` seconds for a buffer to return. Arrays may outlive the pool; its memory is freed
    with the last of them.
    """

    def __init__(
        self, allocate: Callable[[int], PinnedBuffer], limit: int, timeout_s: float = 10.0
    ) -> None:
        """`allocate` is the allocator, such as `Cuda.alloc_pinned`; `limit` is in bytes."""
        self._allocate, self._limit, self._timeout_s = allocate, limit, timeout_s
        self._lock = Lock()
        self._free: defaultdict[int, list[PinnedBuffer]] = defaultdict(list)
        # the garbage collector may return a buffer on any thread, even inside `take`:
        # a SimpleQueue is reentrant, a lock would deadlock
        self._returned: SimpleQueue[PinnedBuffer] = SimpleQueue()
        self.allocated = 0
        """Page-locked memory allocated by this pool, in use or free, in bytes."""

    def take(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return a flat, writable uint8 array of `nbytes`, not cleared; slice and reshape it.

        Its address is `array.ctypes.data`. The caller must keep it while the GPU uses it. Raises
        OutOfMemoryError, and BackendError if all of `limit` stays in use until the timeout.
        """
        with self._lock:
            buffer = self._acquire(nbytes)
        array: npt.NDArray[np.uint8] = buffer.array((nbytes,), np.uint8)
        # every view has this array as its base, so it is collected after the last of them
        finalizer = weakref.finalize(array, self._returned.put, buffer)
        finalizer.atexit = False  # at exit the driver may be gone, and frees all memory
        return array

    def _acquire(self, nbytes: int) -> PinnedBuffer:
        deadline = monotonic() + self._timeout_s
        while True:
            self._collect_returned()
            if self._free[nbytes]:
                return self._free[nbytes].pop()
            if self._make_room(nbytes):
                buffer = self._allocate(nbytes)
                self.allocated += nbytes
                return buffer
            try:
                self._add_free(self._returned.get(timeout=max(deadline - monotonic(), 0)))
            except Empty:
                raise BackendError(
                    f"timeout of {self._timeout_s:g} s waiting for page-locked memory: "
                    f"{self.allocated} of {self._limit} bytes are in use and {nbytes} more are "
                    "needed; the output is too slow"
                ) from None

    def _collect_returned(self) -> None:
        try:
            while True:
                self._add_free(self._returned.get_nowait())
        except Empty:
            return

    def _add_free(self, buffer: PinnedBuffer) -> None:
        self._free[buffer.nbytes].append(buffer)

    def _make_room(self, nbytes: int) -> bool:
        """Free unused buffers until `nbytes` more are within the limit; return whether they are."""
        while self.allocated + nbytes > self._limit:
            size = next((size for size, free in self._free.items() if free), 0)
            if not size:
                return False
            self._free[size].pop()  # the last reference: it frees itself
            self.allocated -= size
        return True
