"""Base classes of what the TensorRT backend needs of CUDA; two libraries complete them.

Addresses are plain integers, sizes are bytes. Work for a GPU is only queued when it is asked for;
a `Stream` keeps the order. Every call may raise BackendError.
"""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vsr.inference.cuda import faults


class Owner(ABC):
    """Holds an object of the driver's and gives it back when it is collected itself."""

    def __init__(self, give_back: Callable[..., None], *arguments: Any) -> None:
        self._finalizer = weakref.finalize(self, give_back, *arguments)
        self._finalizer.atexit = False  # the driver may be gone by then, and takes all back

    @property
    @abstractmethod
    def raw(self) -> Any:
        """The library's own object."""


class _Memory:
    """What numpy reads: an address, and the owner that must live as long as the array."""

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
    """Page-locked host memory: the only kind a GPU copies from and to while the CPU goes on.

    Freed when the buffer and the last array of it are gone, on whichever thread that happens.
    """

    address: int
    nbytes: int

    def array(
        self, shape: Sequence[int], dtype: npt.DTypeLike = np.uint8, offset: int = 0
    ) -> npt.NDArray[Any]:
        """A writable, contiguous array on this memory from byte `offset`; it keeps it alive.

        Raises ValueError when it would reach past the end.
        """
        kind = np.dtype(dtype)
        end = offset + prod(shape) * kind.itemsize
        if offset < 0 or end > self.nbytes:
            raise ValueError(f"bytes {offset} to {end} of a buffer of {self.nbytes}")
        return np.asarray(_Memory(self, self.address + offset, shape, kind))


class DeviceBuffer(Owner):
    """Memory of the GPU; freed when closed or collected, after the work queued before it."""

    address: int
    """A multiple of 256, as TensorRT wants it."""
    nbytes: int

    def close(self) -> None:
        """Free it now. Closing again does nothing."""
        self._finalizer()


class Event(Owner):
    """A mark in a stream's queue."""

    @abstractmethod
    def record(self, stream: "Stream") -> None:
        """Set the mark behind everything queued in `stream` so far; moves an earlier one."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the GPU has reached the mark; the thread sleeps and other threads run."""

    @abstractmethod
    def done(self) -> bool:
        """Whether the GPU has reached the mark; True before the first `record`."""

    @abstractmethod
    def elapsed_ms(self, since: "Event") -> float:
        """Milliseconds the GPU took from `since` to here.

        Both were made with `timing=True` and are done. Resolution about 0.5 us (CUDA's manual).
        """


class Graph(Owner):
    """Captured work, which one call queues again with the same addresses.

    It does not keep memory alive: the caller keeps every buffer it touches.
    """

    @abstractmethod
    def launch(self, stream: "Stream") -> None:
        """Queue it in `stream`."""


class Stream(Owner):
    """A queue of work of one GPU, independent of CUDA's default stream.

    One thread uses it at a time.
    """

    handle: int
    """CUstream as an integer, for `execute_async_v3` and FFmpeg."""

    @abstractmethod
    def wait(self, event: Event) -> None:
        """Later work of this stream starts after the last `record` of `event`; does not block."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all is done; the thread sleeps and other threads run."""

    @abstractmethod
    def begin_capture(self) -> None:
        """Record what is queued from now on instead of doing it.

        Other threads may go on using CUDA, and memory may be freed meanwhile. Raises
        BackendError where `Cuda.can_capture` is False.
        """

    @abstractmethod
    def end_capture(self) -> Graph:
        """What was recorded since `begin_capture`, ready to launch."""


class Cuda(ABC):
    """One GPU through its primary context, which torch and FFmpeg use too.

    Thread-safe. A thread calls `activate` before it uses streams, events, copies or TensorRT;
    the other methods do without. The context stays until the process ends.
    """

    can_capture: ClassVar[bool]
    """Whether streams can capture graphs."""
    name: str
    """As in `NVIDIA H200`."""
    compute_capability: tuple[int, int]
    total_memory: int
    """Bytes."""

    def __init__(self, library: str, index: int) -> None:
        """Start the driver and take the GPU with CUDA's number `index`.

        `library` is the Python library and its version, as in `cuda-bindings 13.0.3`. Raises
        UsageError when there are fewer GPUs, BackendError when CUDA cannot start.
        """
        self.library, self.index = library, index
        self.driver = faults.version(self._start())
        """The newest CUDA version that the driver supports, as in `13.0`."""
        names = self._names()
        if not 0 <= index < len(names):
            raise faults.unknown_gpu(index, names)
        self.name = names[index]
        self._context = self._retain()

    @property
    def target(self) -> str:
        """The compute capability as engines are named for it, as in `sm86`."""
        major, minor = self.compute_capability
        return f"sm{major}{minor}"

    @abstractmethod
    def _start(self) -> int:
        """Start the driver; its CUDA version, 1000 * major + 10 * minor, if it is new enough."""

    @abstractmethod
    def _names(self) -> list[str]:
        """The names of all GPUs, in CUDA's order."""

    @abstractmethod
    def _retain(self) -> Any:
        """Set `compute_capability` and `total_memory`; the GPU's primary context, retained."""

    @abstractmethod
    def activate(self) -> None:
        """Make the context current on this thread; costs microseconds when it is."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for everything queued in the context, torch's work included."""

    @abstractmethod
    def pinned(self, nbytes: int) -> PinnedBuffer:
        """New page-locked memory, not cleared. Raises OutOfMemoryError."""

    @abstractmethod
    def device(self, nbytes: int) -> DeviceBuffer:
        """New memory of the GPU, not cleared. Raises OutOfMemoryError."""

    @abstractmethod
    def stream(self) -> Stream:
        """A new queue that does not wait for the default stream."""

    @abstractmethod
    def event(self, timing: bool = False) -> Event:
        """A new mark; only those with `timing` can tell times, at a small cost."""

    @abstractmethod
    def copy_in(
        self, device_address: int, pinned_address: int, nbytes: int, stream: Stream
    ) -> None:
        """Queue a copy from the host to the GPU; leave both alone until it is done."""

    @abstractmethod
    def copy_out(
        self, pinned_address: int, device_address: int, nbytes: int, stream: Stream
    ) -> None:
        """Queue a copy from the GPU to the host; leave both alone until it is done."""
