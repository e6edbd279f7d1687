"""Drives the GPU through PyCUDA, which is compiled on the user's machine.

PyCUDA keeps a stack of contexts for each thread. It ends the process if a thread ends with a
context on that stack, and creates and destroys its objects only inside one (src/cpp/cuda.hpp). So
our context is on the stack only for these operations; `activate` calls the driver directly.
"""

import atexit
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Final

import numpy as np

from vsr.errors import OutOfMemoryError, reason
from vsr.inference.cuda import errors
from vsr.inference.cuda.interface import (
    Cuda,
    DeviceBuffer,
    Event,
    Graph,
    Owner,
    PinnedBuffer,
    Stream,
)

try:
    cuda: Final[Any] = import_module("pycuda.driver")  # untyped
except ModuleNotFoundError:
    raise  # load_cuda reports it
except ImportError as exc:
    missing = "libcuda" in str(exc) or "nvcuda" in str(exc)
    if missing:
        raise errors.driver_missing_error() from exc
    raise errors.broken_library_error("PyCUDA", reason(exc)) from exc

_STREAM_NON_BLOCKING: Final = 1
"""CU_STREAM_NON_BLOCKING, not defined by PyCUDA: independent of the default stream."""


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Convert PyCUDA's errors, such as `cuMemAlloc failed: out of memory`, to vsr's."""
    try:
        yield
    except cuda.Error as exc:
        call, _, words = reason(exc).partition(" failed: ")
        if isinstance(exc, cuda.MemoryError):
            raise errors.out_of_memory_error(call) from exc
        raise errors.call_failed_error(call, words) from exc


@contextmanager
def _current_context(context: Any) -> Iterator[None]:
    """Push our context on PyCUDA's stack and the driver's, and pop it afterwards."""
    context.push()
    try:
        yield
    finally:
        context.pop()


def _release(context: Any, holder: list[Any]) -> None:
    """Destroy an object. Errors are ignored: the first failed call has reported them."""
    # the garbage collector runs on any thread
    with suppress(cuda.Error), _current_context(context):
        holder.clear()


class _DriverObject(Owner):
    """Holds a PyCUDA object, destroyed inside its context when this object is collected."""

    def __init__(self, context: Any, make: Callable[[], Any]) -> None:
        with _translated_errors(), _current_context(context):
            self._holder = [make()]  # the only reference: it is destroyed inside the context
        super().__init__(_release, context, self._holder)

    @property
    def raw(self) -> Any:
        """The PyCUDA object."""
        return self._holder[0]


class PyCudaPinned(_DriverObject, PinnedBuffer):
    """See `PinnedBuffer`."""

    def __init__(self, context: Any, nbytes: int) -> None:
        try:
            super().__init__(context, lambda: cuda.pagelocked_empty(nbytes, np.uint8))
        except OutOfMemoryError as exc:
            raise errors.pinned_memory_error(nbytes) from exc
        self.address, self.nbytes = int(self.raw.ctypes.data), nbytes


class PyCudaDevice(_DriverObject, DeviceBuffer):
    """See `DeviceBuffer`."""

    def __init__(self, context: Any, nbytes: int) -> None:
        try:
            super().__init__(context, lambda: cuda.mem_alloc(nbytes))
        except OutOfMemoryError as exc:
            with _translated_errors(), _current_context(context):
                free, _ = cuda.mem_get_info()
            raise errors.device_memory_error(nbytes, free) from exc
        self.address, self.nbytes = int(self.raw), nbytes


class PyCudaEvent(_DriverObject, Event):
    """See `Event`."""

    def __init__(self, context: Any, timing: bool) -> None:
        kinds = cuda.event_flags
        flags = int(kinds.BLOCKING_SYNC) | (0 if timing else int(kinds.DISABLE_TIMING))
        super().__init__(context, lambda: cuda.Event(flags))

    def record(self, stream: Stream) -> None:
        with _translated_errors():
            self.raw.record(stream.raw)

    def synchronize(self) -> None:
        with _translated_errors():
            self.raw.synchronize()

    def is_done(self) -> bool:
        with _translated_errors():
            return bool(self.raw.query())

    def elapsed_ms(self, since: Event) -> float:
        with _translated_errors():
            return float(self.raw.time_since(since.raw))


class PyCudaStream(_DriverObject, Stream):
    """See `Stream`."""

    def __init__(self, context: Any) -> None:
        super().__init__(context, lambda: cuda.Stream(_STREAM_NON_BLOCKING))
        self.handle = int(self.raw.handle)

    def wait(self, event: Event) -> None:
        with _translated_errors():
            self.raw.wait_for_event(event.raw)

    def synchronize(self) -> None:
        with _translated_errors():
            self.raw.synchronize()

    def begin_capture(self) -> None:
        raise errors.no_graph_capture_error("PyCUDA")

    def end_capture(self) -> Graph:
        raise errors.no_graph_capture_error("PyCUDA")


class PyCuda(Cuda):
    """See `Cuda`."""

    can_capture = False

    def __init__(self, index: int) -> None:
        with _translated_errors():
            super().__init__(f"PyCUDA {import_module('pycuda').VERSION_TEXT}", index)
        # else PyCUDA 2026.1 detaches it like a non-primary context, and reports an error
        atexit.register(self._context.detach)

    def _start(self) -> int:
        version, built_for = int(cuda.get_driver_version()), int(cuda.get_version()[0])
        if version // 1000 < built_for:
            raise errors.driver_too_old_error(version, 1000 * built_for, self.library)
        try:
            cuda.init()
        except cuda.Error as exc:
            raise errors.start_error(reason(exc).partition(" failed: ")[2]) from exc
        return version

    def _gpu_names(self) -> list[str]:
        return [str(cuda.Device(i).name()) for i in range(cuda.Device.count())]

    def _retain(self) -> Any:
        device, kinds = cuda.Device(self.index), cuda.device_attribute
        self.compute_capability = (
            int(device.get_attribute(kinds.COMPUTE_CAPABILITY_MAJOR)),
            int(device.get_attribute(kinds.COMPUTE_CAPABILITY_MINOR)),
        )
        self.total_memory = int(device.total_memory())
        self._libcuda = _libcuda()
        _use_blocking_sync(self._libcuda, self.index)
        return device.retain_primary_context()

    def activate(self) -> None:
        code = self._libcuda.cuCtxSetCurrent(ctypes.c_void_p(self._context.handle))
        if code:
            raise errors.call_failed_error("cuCtxSetCurrent", f"error {code}")

    def synchronize(self) -> None:
        with _translated_errors(), _current_context(self._context):
            self._context.synchronize()

    def alloc_pinned(self, nbytes: int) -> PinnedBuffer:
        return PyCudaPinned(self._context, nbytes)

    def alloc_device(self, nbytes: int) -> DeviceBuffer:
        return PyCudaDevice(self._context, nbytes)

    def new_stream(self) -> Stream:
        return PyCudaStream(self._context)

    def new_event(self, timing: bool = False) -> Event:
        return PyCudaEvent(self._context, timing)

    def copy_in(
        self, device_address: int, pinned_address: int, nbytes: int, stream: Stream
    ) -> None:
        with _translated_errors():
            cuda.memcpy_htod_async(device_address, _bytes_at(pinned_address, nbytes), stream.raw)

    def copy_out(
        self, pinned_address: int, device_address: int, nbytes: int, stream: Stream
    ) -> None:
        with _translated_errors():
            cuda.memcpy_dtoh_async(_bytes_at(pinned_address, nbytes), device_address, stream.raw)


def _libcuda() -> ctypes.CDLL:
    """Load the driver's library, for calls that PyCUDA does not offer."""
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")


def _use_blocking_sync(libcuda: ctypes.CDLL, index: int) -> None:
    """Make waiting threads sleep. Call before the first retain: FFmpeg requires these flags.

    If torch retained it earlier, the driver changes them later; if not, only FFmpeg is affected.
    """
    device = ctypes.c_int()
    libcuda.cuDeviceGet(ctypes.byref(device), index)
    libcuda.cuDevicePrimaryCtxSetFlags_v2(device, ctypes.c_uint(cuda.ctx_flags.SCHED_BLOCKING_SYNC))


def _bytes_at(address: int, nbytes: int) -> Any:
    """Wrap memory as an object that PyCUDA can use as source and target of copies."""
    return (ctypes.c_char * nbytes).from_address(address)
