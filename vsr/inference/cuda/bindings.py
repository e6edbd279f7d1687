"""Drives the GPU through cuda-bindings, NVIDIA's own Python wheels.

It calls the driver API directly, which has been stable for a decade. cuda-core is not used: its
memory resources free memory in the current context of the collecting thread, and its graph classes
were renamed and moved.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from vsr.errors import OutOfMemoryError
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

driver: Final[Any] = import_module(
    "cuda.bindings.driver"
)  # untyped; load_cuda reports if it is missing

_OUT_OF_MEMORY: Final = 2
_NOT_READY: Final = 600


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the driver; return its result without the status code, or raise one of our errors."""
    name = function.__name__
    try:
        code, *values = function(*arguments)
    except RuntimeError as exc:  # cuda-bindings did not find the function in libcuda
        raise errors.function_missing_error(name) from exc
    if int(code) == _OUT_OF_MEMORY:
        raise errors.out_of_memory_error(name)
    if int(code):
        raise errors.call_failed_error(name, _error_text(code))
    return values[0] if len(values) == 1 else values


def _error_text(code: Any) -> str:
    text = driver.cuGetErrorString(code)[1]
    return text.decode() if text else f"error {int(code)}"


@contextmanager
def _current_context(context: Any) -> Iterator[None]:
    """Make our context current on this thread, and pop it afterwards."""
    _call(driver.cuCtxPushCurrent, context)
    try:
        yield
    finally:
        driver.cuCtxPopCurrent()


def _release(context: Any, function: Callable[..., Any], thing: Any) -> None:
    """Free or destroy an object. Errors are ignored: the first failed call has reported them."""
    driver.cuCtxPushCurrent(context)  # the garbage collector runs on any thread
    function(thing)
    driver.cuCtxPopCurrent()


class _DriverObject(Owner):
    """A driver object, destroyed inside its context."""

    def __init__(self, context: Any, destroy: Callable[..., Any], raw: Any) -> None:
        self._raw, self._context = raw, context
        super().__init__(_release, context, destroy, raw)

    @property
    def raw(self) -> Any:
        """The driver's handle or address."""
        return self._raw


class CorePinned(_DriverObject, PinnedBuffer):
    """See `PinnedBuffer`."""

    def __init__(self, context: Any, nbytes: int) -> None:
        with _current_context(context):
            try:
                address = int(_call(driver.cuMemHostAlloc, nbytes, 0))
            except OutOfMemoryError as exc:
                raise errors.pinned_memory_error(nbytes) from exc
        super().__init__(context, driver.cuMemFreeHost, address)
        self.address, self.nbytes = address, nbytes


class CoreDevice(_DriverObject, DeviceBuffer):
    """See `DeviceBuffer`."""

    def __init__(self, context: Any, nbytes: int) -> None:
        with _current_context(context):
            try:
                pointer = _call(driver.cuMemAlloc, nbytes)
            except OutOfMemoryError as exc:
                free, _ = _call(driver.cuMemGetInfo)
                raise errors.device_memory_error(nbytes, free) from exc
        super().__init__(context, driver.cuMemFree, pointer)
        self.address, self.nbytes = int(pointer), nbytes


class CoreEvent(_DriverObject, Event):
    """See `Event`."""

    def __init__(self, context: Any, timing: bool) -> None:
        kinds = driver.CUevent_flags
        untimed = 0 if timing else int(kinds.CU_EVENT_DISABLE_TIMING)
        flags = int(kinds.CU_EVENT_BLOCKING_SYNC) | untimed
        with _current_context(context):
            event = _call(driver.cuEventCreate, flags)
        super().__init__(context, driver.cuEventDestroy, event)

    def record(self, stream: Stream) -> None:
        _call(driver.cuEventRecord, self.raw, stream.raw)

    def synchronize(self) -> None:
        _call(driver.cuEventSynchronize, self.raw)

    def is_done(self) -> bool:
        (code,) = driver.cuEventQuery(self.raw)
        if int(code) not in {0, _NOT_READY}:
            raise errors.call_failed_error("cuEventQuery", _error_text(code))
        return int(code) == 0

    def elapsed_ms(self, since: Event) -> float:
        return float(_call(driver.cuEventElapsedTime, since.raw, self.raw))


class CoreGraph(_DriverObject, Graph):
    """See `Graph`."""

    def __init__(self, context: Any, graph: Any) -> None:
        with _current_context(context):
            executable = _call(driver.cuGraphInstantiate, graph, 0)
        super().__init__(context, driver.cuGraphExecDestroy, executable)

    def launch(self, stream: Stream) -> None:
        _call(driver.cuGraphLaunch, self.raw, stream.raw)


class CoreStream(_DriverObject, Stream):
    """See `Stream`."""

    def __init__(self, context: Any) -> None:
        with _current_context(context):
            stream = _call(driver.cuStreamCreate, int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
        super().__init__(context, driver.cuStreamDestroy, stream)
        self.handle = int(stream)

    def wait(self, event: Event) -> None:
        _call(driver.cuStreamWaitEvent, self.raw, event.raw, 0)

    def synchronize(self) -> None:
        _call(driver.cuStreamSynchronize, self.raw)

    def begin_capture(self) -> None:
        # relaxed: in stricter modes, allocating or collecting a buffer invalidates the capture
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        _call(driver.cuStreamBeginCapture, self.raw, mode)

    def end_capture(self) -> CoreGraph:
        graph = _call(driver.cuStreamEndCapture, self.raw)
        try:
            return CoreGraph(self._context, graph)
        finally:
            driver.cuGraphDestroy(graph)


class CoreCuda(Cuda):
    """See `Cuda`."""

    can_capture = True

    def __init__(self, index: int) -> None:
        super().__init__(f"cuda-bindings {import_module('cuda.bindings').__version__}", index)

    def _start(self) -> int:
        try:
            (code,) = driver.cuInit(0)
        except RuntimeError as exc:  # cuda-pathfinder found no libcuda
            raise errors.driver_missing_error() from exc
        version = int(_call(driver.cuDriverGetVersion))
        if version // 1000 < driver.CUDA_VERSION // 1000:  # an old driver may also fail to start
            raise errors.driver_too_old_error(version, driver.CUDA_VERSION, self.library)
        if int(code):
            raise errors.start_error(_error_text(code))
        return version

    def _gpu_names(self) -> list[str]:
        count = _call(driver.cuDeviceGetCount)
        return [_name(_call(driver.cuDeviceGet, i)) for i in range(count)]

    def _retain(self) -> Any:
        device = _call(driver.cuDeviceGet, self.index)
        self.compute_capability = _capability(device)
        self.total_memory = int(_call(driver.cuDeviceTotalMem, device))
        _use_blocking_sync(device)
        return _call(driver.cuDevicePrimaryCtxRetain, device)

    def activate(self) -> None:
        _call(driver.cuCtxSetCurrent, self._context)

    def synchronize(self) -> None:
        with _current_context(self._context):
            _call(driver.cuCtxSynchronize)

    def alloc_pinned(self, nbytes: int) -> PinnedBuffer:
        return CorePinned(self._context, nbytes)

    def alloc_device(self, nbytes: int) -> DeviceBuffer:
        return CoreDevice(self._context, nbytes)

    def new_stream(self) -> Stream:
        return CoreStream(self._context)

    def new_event(self, timing: bool = False) -> Event:
        return CoreEvent(self._context, timing)

    def copy_in(
        self, device_address: int, pinned_address: int, nbytes: int, stream: Stream
    ) -> None:
        _call(driver.cuMemcpyHtoDAsync, device_address, pinned_address, nbytes, stream.raw)

    def copy_out(
        self, pinned_address: int, device_address: int, nbytes: int, stream: Stream
    ) -> None:
        _call(driver.cuMemcpyDtoHAsync, pinned_address, device_address, nbytes, stream.raw)


def _name(device: Any) -> str:
    text: bytes = _call(driver.cuDeviceGetName, 256, device)
    return text.split(b"\0", maxsplit=1)[0].decode()


def _capability(device: Any) -> tuple[int, int]:
    kinds = driver.CUdevice_attribute
    major = kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    minor = kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
    call = driver.cuDeviceGetAttribute
    return int(_call(call, major, device)), int(_call(call, minor, device))


def _use_blocking_sync(device: Any) -> None:
    """Make waiting threads sleep. Call before the first retain: FFmpeg requires these flags.

    If torch retained it earlier, the driver changes them later; if not, only FFmpeg is affected.
    """
    flags = int(driver.CUctx_flags.CU_CTX_SCHED_BLOCKING_SYNC)
    driver.cuDevicePrimaryCtxSetFlags(device, flags)
