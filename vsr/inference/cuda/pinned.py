"""Pools page-locked memory and lends it as numpy arrays; it returns when they are collected.

An encoder may keep a picture for as long as it likes: the memory returns to the pool when the
last view of it is gone, so nobody copies a frame and nobody has to give one back.
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
    """A pool of page-locked memory, lent as numpy arrays. Thread-safe.

    Memory is allocated only when no returned buffer of that size is at hand, and never more than
    `limit` bytes at a time: when that is reached, free buffers of other sizes go first, then `take`
    waits up to `patience_s` seconds for one to return. Arrays outlive the pool; its memory goes
    with the last of them.
    """

    def __init__(
        self, pinned: Callable[[int], PinnedBuffer], limit: int, patience_s: float = 10.0
    ) -> None:
        """`pinned` allocates, as `Cuda.pinned` does; `limit` is in bytes."""
        self._pinned, self._limit, self._patience = pinned, limit, patience_s
        self._lock = Lock()
        self._free: defaultdict[int, list[PinnedBuffer]] = defaultdict(list)
        # the garbage collector may return a buffer on any thread, also one that is in `take`:
        # a SimpleQueue allows that, a lock would never be released
        self._returned: SimpleQueue[PinnedBuffer] = SimpleQueue()
        self.held = 0
        """Bytes of page-locked memory that this pool has allocated, lent or free."""

    def take(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Lend a flat, writable uint8 array of `nbytes`, not cleared; slice and reshape it.

        Its address is `array.ctypes.data`. While the GPU works on it, the caller keeps it. Raises
        OutOfMemoryError, and BackendError when all of `limit` stays in use.
        """
        with self._lock:
            buffer = self._obtain(nbytes)
        array: npt.NDArray[np.uint8] = buffer.array((nbytes,), np.uint8)
        # every view has this array as its base, so it dies after the last of them
        giving_back = weakref.finalize(array, self._returned.put, buffer)
        giving_back.atexit = False  # the driver may be gone by then, and takes all back anyway
        return array

    def _obtain(self, nbytes: int) -> PinnedBuffer:
        deadline = monotonic() + self._patience
        while True:
            self._sort_returned()
            if self._free[nbytes]:
                return self._free[nbytes].pop()
            if self._make_room(nbytes):
                buffer = self._pinned(nbytes)
                self.held += nbytes
                return buffer
            try:
                self._keep(self._returned.get(timeout=max(deadline - monotonic(), 0)))
            except Empty:
                raise BackendError(
                    f"no page-locked memory came back in {self._patience:g} s: {self.held} of "
                    f"{self._limit} bytes are in use and {nbytes} more are needed; "
                    "the output does not keep up"
                ) from None

    def _sort_returned(self) -> None:
        try:
            while True:
                self._keep(self._returned.get_nowait())
        except Empty:
            return

    def _keep(self, buffer: PinnedBuffer) -> None:
        self._free[buffer.nbytes].append(buffer)

    def _make_room(self, nbytes: int) -> bool:
        """Free unused buffers of other sizes until `nbytes` more are allowed."""
        while self.held + nbytes > self._limit:
            size = next((size for size, free in self._free.items() if free), 0)
            if not size:
                return False
            self._free[size].pop()  # the last reference: it frees itself
            self.held -= size
        return True
