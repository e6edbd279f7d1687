"""Defines base classes for CUDA as the TensorRT backend uses it; two libraries implement them.

Addresses are plain integers, sizes are bytes. Calls only queue work for the GPU, in the order of a
`Stream`. Every call may raise BackendError.
"""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vsr.inference.cuda import errors


class Owner(ABC):
    """Owns a driver object and releases it when garbage-collected."""

    def __init__(self, release: Callable[..., None], *arguments: Any) -> None:
        self._finalizer = weakref.finalize(self, release, *arguments)
        self._finalizer.atexit = False  # at exit the driver may be gone, and frees all

    @property
    @abstractmethod
    def raw(self) -> Any:
        """Object of the CUDA library."""


class _ArrayInterface:
    """Array interface for numpy: an address, and the owner, kept alive by the array."""

    def __init__(
        self, owner: Owner, address: int, shape: Sequence[int], dtype: "np.dtype[Any]"
    ) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "shape": tuple(shape),
            "typestr": dtype.str,
            "data": (address, False),  # False: writable
        }


class PinnedBuffer(Owner):
    """Page-locked host memory, the only kind that the GPU copies asynchronously.

    Freed when the buffer and the last array on it are collected, on any thread.
    """

    address: int
    nbytes: int

    def array(
        self, shape: Sequence[int], dtype: npt.DTypeLike = np.uint8, offset: int = 0
    ) -> npt.NDArray[Any]:
        """Return a writable, contiguous array from byte `offset` on; it keeps the buffer alive.

        Raises ValueError if it would exceed the buffer.
        """
        kind = np.dtype(dtype)
        end = offset + prod(shape) * kind.itemsize
        if offset < 0 or end > self.nbytes:
            raise ValueError(f"bytes {offset} to {end} exceed the buffer of {self.nbytes} bytes")
        return np.asarray(_ArrayInterface(self, self.address + offset, shape, kind))


class DeviceBuffer(Owner):
    """GPU memory, freed when closed or collected, after the work queued before."""

    address: int
    """Device address, a multiple of 256 as TensorRT requires."""
    nbytes: int

    def close(self) -> None:
        """Free the memory now; a second call does nothing."""
        self._finalizer()


class Event(Owner):
    """A marker in a stream's queue."""

    @abstractmethod
    def record(self, stream: "Stream") -> None:
        """Place the marker after all work queued in `stream` so far; replaces an earlier one."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the GPU has reached the marker; the thread sleeps and other threads run."""

    @abstractmethod
    def is_done(self) -> bool:
        """Return whether the GPU has reached the marker; True before the first `record`."""

    @abstractmethod
    def elapsed_ms(self, since: "Event") -> float:
        """Return the GPU time from `since` to this event, in milliseconds.

        Both must be created with `timing=True` and done. Resolution about 0.5 us (CUDA's manual).
        """


class Graph(Owner):
    """A captured CUDA graph: one call queues its work again, with the same addresses.

    It does not keep memory alive: the caller must keep every buffer it uses.
    """

    @abstractmethod
    def launch(self, stream: "Stream") -> None:
        """Queue the graph in `stream`."""


class Stream(Owner):
    """A queue of work for one GPU, independent of CUDA's default stream.

    Use it from one thread at a time.
    """

    handle: int
    """CUstream as an integer, for `execute_async_v3` and FFmpeg."""

    @abstractmethod
    def wait(self, event: Event) -> None:
        """Make later work of this stream wait for the last `record` of `event`; does not block."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all queued work is done; the thread sleeps and other threads run."""

    @abstractmethod
    def begin_capture(self) -> None:
        """Record the work queued from now on instead of running it.

        Meanwhile, other threads may use CUDA and memory may be freed. Raises BackendError if
        `Cuda.can_capture` is False.
        """

    @abstractmethod
    def end_capture(self) -> Graph:
        """Return the work recorded since `begin_capture`, ready to launch."""


class Cuda(ABC):
    """One GPU with its primary context, which torch and FFmpeg use too.

    Thread-safe. A thread must call `activate` before it uses streams, events, copies or TensorRT,
    but not before the other methods. The context is kept until the process ends.
    """

    can_capture: ClassVar[bool]
    """Whether streams can capture graphs."""
    name: str
    """Name of the GPU, such as `NVIDIA H200`."""
    compute_capability: tuple[int, int]
    total_memory: int
    """GPU memory, in bytes."""

    def __init__(self, library: str, index: int) -> None:
        """Start the driver and open the GPU with CUDA's number `index`.

        `library` is the Python library and its version, such as `cuda-bindings 13.0.3`. Raises
        UsageError if there are fewer GPUs, BackendError if CUDA cannot start.
        """
        self.library, self.index = library, index
        self.driver = errors.format_version(self._start())
        """Newest CUDA version that the driver supports, such as `13.0`."""
        names = self._gpu_names()
        if not 0 <= index < len(names):
            raise errors.unknown_gpu_error(index, names)
        self.name = names[index]
        self._context = self._retain()

    @property
    def target(self) -> str:
        """Compute capability in the form of engine targets, such as `sm86`."""
        major, minor = self.compute_capability
        return f"sm{major}{minor}"

    @abstractmethod
    def _start(self) -> int:
        """Start the driver; return its CUDA version, 1000 * major + 10 * minor, or raise if old."""

    @abstractmethod
    def _gpu_names(self) -> list[str]:
        """Return the names of all GPUs, in CUDA's order."""

    @abstractmethod
    def _retain(self) -> Any:
        """Set `compute_capability` and `total_memory`; retain and return the primary context."""

    @abstractmethod
    def activate(self) -> None:
        """Make the context current on this thread; takes microseconds if it already is."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for everything queued in the context, torch's work included."""

    @abstractmethod
    def alloc_pinned(self, nbytes: int) -> PinnedBuffer:
        """Allocate page-locked memory, not cleared. Raises OutOfMemoryError."""

    @abstractmethod
    def alloc_device(self, nbytes: int) -> DeviceBuffer:
        """Allocate GPU memory, not cleared. Raises OutOfMemoryError."""

    @abstractmethod
    def new_stream(self) -> Stream:
        """Create a stream that does not wait for the default stream."""

    @abstractmethod
    def new_event(self, timing: bool = False) -> Event:
        """Create an event; only events with `timing` measure time, at a small cost."""

    @abstractmethod
    def copy_in(
        self, device_address: int, pinned_address: int, nbytes: int, stream: Stream
    ) -> None:
        """Queue a copy from the host to the GPU; do not use either buffer until it is done."""

    @abstractmethod
    def copy_out(
        self, pinned_address: int, device_address: int, nbytes: int, stream: Stream
    ) -> None:
        """Queue a copy from the GPU to the host; do not use either buffer until it is done."""
