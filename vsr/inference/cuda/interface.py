"""What the TensorRT backend needs of CUDA, and nothing more: two libraries provide it.

Addresses are plain integers, sizes are bytes. Whatever is asked of a GPU before it is done is
only queued; a `Stream` keeps the order. Every call may raise BackendError.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt


class PinnedBuffer(Protocol):
    """Page-locked host memory: the only kind a GPU copies from and to while the CPU goes on.

    Freed when the buffer and the last array of it are gone, on whichever thread that happens.
    """

    address: int
    nbytes: int

    def array(
        self, shape: Sequence[int], dtype: npt.DTypeLike = ..., offset: int = 0
    ) -> npt.NDArray[Any]:
        """A writable, contiguous array on this memory from byte `offset`; it keeps it alive.

        Raises ValueError when it would reach past the end.
        """
        ...


class DeviceBuffer(Protocol):
    """Memory of the GPU; freed when closed or collected, after the work queued before it."""

    address: int
    """A multiple of 256, as TensorRT wants it."""
    nbytes: int

    def close(self) -> None:
        """Free it now. Closing again does nothing."""
        ...


class Event(Protocol):
    """A mark in a stream's queue."""

    @property
    def raw(self) -> Any:
        """The library's own object."""
        ...

    def record(self, stream: "Stream") -> None:
        """Set the mark behind everything queued in `stream` so far; moves an earlier one."""
        ...

    def synchronize(self) -> None:
        """Wait until the GPU has reached the mark; the thread sleeps and other threads run."""
        ...

    def done(self) -> bool:
        """Whether the GPU has reached the mark; True before the first `record`."""
        ...

    def elapsed_ms(self, since: "Event") -> float:
        """Milliseconds the GPU took from `since` to here.

        Both were made with `timing=True` and are done. Resolution about 0.5 us (CUDA's manual).
        """
        ...


class Graph(Protocol):
    """Captured work, which one call queues again with the same addresses.

    It does not keep memory alive: the caller keeps every buffer it touches.
    """

    def launch(self, stream: "Stream") -> None:
        """Queue it in `stream`."""
        ...


class Stream(Protocol):
    """A queue of work of one GPU, independent of CUDA's default stream.

    One thread uses it at a time.
    """

    @property
    def raw(self) -> Any:
        """The library's own object."""
        ...

    handle: int
    """CUstream as an integer, for `execute_async_v3` and FFmpeg."""

    def wait(self, event: Event) -> None:
        """Later work of this stream starts after the last `record` of `event`; does not block."""
        ...

    def synchronize(self) -> None:
        """Wait until all is done; the thread sleeps and other threads run."""
        ...

    def begin_capture(self) -> None:
        """Record what is queued from now on instead of doing it.

        Other threads may go on using CUDA, and memory may be freed meanwhile. Raises
        BackendError where `Cuda.can_capture` is False.
        """
        ...

    def end_capture(self) -> Graph:
        """What was recorded since `begin_capture`, ready to launch."""
        ...


class Cuda(Protocol):
    """One GPU through its primary context, which torch and FFmpeg use too.

    Thread-safe. A thread calls `activate` before it uses streams, events, copies or TensorRT;
    the other methods do without. The context stays until the process ends.
    """

    library: str
    """The Python library and its version, as in `cuda-bindings 13.0.3`."""
    can_capture: bool
    """Whether streams can capture graphs."""
    index: int
    """CUDA's number of the device."""
    name: str
    """As in `NVIDIA H200`."""
    compute_capability: tuple[int, int]
    driver: str
    """The newest CUDA version that the driver supports, as in `13.0`."""
    total_memory: int
    """Bytes."""

    def free_memory(self) -> int:
        """Bytes of the GPU that nobody has taken, other processes included."""
        ...

    def activate(self) -> None:
        """Make the context current on this thread; costs microseconds when it is."""
        ...

    def synchronize(self) -> None:
        """Wait for everything queued in the context, torch's work included."""
        ...

    def pinned(self, nbytes: int) -> PinnedBuffer:
        """New page-locked memory, not cleared. Raises OutOfMemoryError."""
        ...

    def device(self, nbytes: int) -> DeviceBuffer:
        """New memory of the GPU, not cleared. Raises OutOfMemoryError."""
        ...

    def stream(self) -> Stream:
        """A new queue that does not wait for the default stream."""
        ...

    def event(self, timing: bool = False) -> Event:
        """A new mark; only those with `timing` can tell times, at a small cost."""
        ...

    def copy_in(
        self, device_address: int, pinned_address: int, nbytes: int, stream: Stream
    ) -> None:
        """Queue a copy from the host to the GPU; leave both alone until it is done."""
        ...

    def copy_out(
        self, pinned_address: int, device_address: int, nbytes: int, stream: Stream
    ) -> None:
        """Queue a copy from the GPU to the host; leave both alone until it is done."""
        ...

    def copy_2d(
        self,
        dst: int,
        dst_pitch: int,
        src: int,
        src_pitch: int,
        width_bytes: int,
        height: int,
        stream: Stream,
    ) -> None:
        """Queue a copy of `height` rows, each `pitch` bytes after the last, in any direction.

        Each side is memory of the GPU or page-locked; CUDA finds out by the address.
        """
        ...
