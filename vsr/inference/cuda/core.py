"""The GPU through cuda-bindings, NVIDIA's own Python wheels: what is used unless told otherwise.

Straight on the driver API, which has been stable for a decade: cuda-core's memory resources free
in whatever context the collecting thread has, and its graph classes changed names and places.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vsr.errors import OutOfMemoryError
from vsr.inference.cuda import faults
from vsr.inference.cuda.interface import Event, Stream
from vsr.inference.cuda.pinned import host_array

driver: Final[Any] = import_module("cuda.bindings.driver")  # untyped; load_cuda tells of a miss

_OUT_OF_MEMORY: Final = 2
_NOT_READY: Final = 600


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the driver; its result without the code, or one of our errors."""
    name = function.__name__
    try:
        code, *values = function(*arguments)
    except RuntimeError as exc:  # cuda-bindings did not find the function in libcuda
        raise faults.old_function(name) from exc
    if int(code) == _OUT_OF_MEMORY:
        raise faults.no_memory(name)
    if int(code):
        raise faults.failed(name, _words(code))
    return values[0] if len(values) == 1 else values


def _words(code: Any) -> str:
    text = driver.cuGetErrorString(code)[1]
    return text.decode() if text else f"error {int(code)}"


@contextmanager
def _inside(context: Any) -> Iterator[None]:
    """In our context, whatever the thread's own one is and stays."""
    _call(driver.cuCtxPushCurrent, context)
    try:
        yield
    finally:
        driver.cuCtxPopCurrent()


def _give_back(context: Any, function: Callable[..., Any], thing: Any) -> None:
    """Free or destroy. Codes are not looked at: after a fault the call that met it has told."""
    driver.cuCtxPushCurrent(context)  # the garbage collector runs on any thread
    function(thing)
    driver.cuCtxPopCurrent()


class _Owner:
    """Something of the driver's that is given back when this object is gone."""

    def __init__(self, context: Any, destroy: Callable[..., Any], raw: Any) -> None:
        self.raw, self._context = raw, context
        self._giving_back = weakref.finalize(self, _give_back, context, destroy, raw)
        self._giving_back.atexit = False  # the driver may be gone by then, and takes all back


class CorePinned(_Owner):
    """See `vsr.inference.cuda.interface.PinnedBuffer`."""

    def __init__(self, context: Any, nbytes: int) -> None:
        with _inside(context):
            try:
                address = int(_call(driver.cuMemHostAlloc, nbytes, 0))
            except OutOfMemoryError as exc:
                raise faults.no_pinned_memory(nbytes) from exc
        super().__init__(context, driver.cuMemFreeHost, address)
        self.address, self.nbytes = address, nbytes

    def array(
        self, shape: Sequence[int], dtype: npt.DTypeLike = np.uint8, offset: int = 0
    ) -> npt.NDArray[Any]:
        """See `vsr.inference.cuda.interface.PinnedBuffer.array`."""
        return host_array(self, shape, dtype, offset)


class CoreDevice(_Owner):
    """See `vsr.inference.cuda.interface.DeviceBuffer`."""

    def __init__(self, context: Any, nbytes: int) -> None:
        with _inside(context):
            try:
                pointer = _call(driver.cuMemAlloc, nbytes)
            except OutOfMemoryError as exc:
                left, _ = _call(driver.cuMemGetInfo)
                raise faults.no_device_memory(nbytes, left) from exc
        super().__init__(context, driver.cuMemFree, pointer)
        self.address, self.nbytes = int(pointer), nbytes

    def close(self) -> None:
        """See `vsr.inference.cuda.interface.DeviceBuffer.close`."""
        self._giving_back()


class CoreEvent(_Owner):
    """See `vsr.inference.cuda.interface.Event`."""

    def __init__(self, context: Any, timing: bool) -> None:
        kinds = driver.CUevent_flags
        untimed = 0 if timing else int(kinds.CU_EVENT_DISABLE_TIMING)
        flags = int(kinds.CU_EVENT_BLOCKING_SYNC) | untimed
        with _inside(context):
            event = _call(driver.cuEventCreate, flags)
        super().__init__(context, driver.cuEventDestroy, event)

    def record(self, stream: Stream) -> None:
        """See `vsr.inference.cuda.interface.Event.record`."""
        _call(driver.cuEventRecord, self.raw, stream.raw)

    def synchronize(self) -> None:
        """See `vsr.inference.cuda.interface.Event.synchronize`."""
        _call(driver.cuEventSynchronize, self.raw)

    def done(self) -> bool:
        """See `vsr.inference.cuda.interface.Event.done`."""
        (code,) = driver.cuEventQuery(self.raw)
        if int(code) not in {0, _NOT_READY}:
            raise faults.failed("cuEventQuery", _words(code))
        return int(code) == 0

    def elapsed_ms(self, since: Event) -> float:
        """See `vsr.inference.cuda.interface.Event.elapsed_ms`."""
        return float(_call(driver.cuEventElapsedTime, since.raw, self.raw))


class CoreGraph(_Owner):
    """See `vsr.inference.cuda.interface.Graph`."""

    def __init__(self, context: Any, graph: Any) -> None:
        with _inside(context):
            executable = _call(driver.cuGraphInstantiate, graph, 0)
        super().__init__(context, driver.cuGraphExecDestroy, executable)

    def launch(self, stream: Stream) -> None:
        """See `vsr.inference.cuda.interface.Graph.launch`."""
        _call(driver.cuGraphLaunch, self.raw, stream.raw)


class CoreStream(_Owner):
    """See `vsr.inference.cuda.interface.Stream`."""

    def __init__(self, context: Any) -> None:
        with _inside(context):
            stream = _call(driver.cuStreamCreate, int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
        super().__init__(context, driver.cuStreamDestroy, stream)
        self.handle = int(stream)

    def wait(self, event: Event) -> None:
        """See `vsr.inference.cuda.interface.Stream.wait`."""
        _call(driver.cuStreamWaitEvent, self.raw, event.raw, 0)

    def synchronize(self) -> None:
        """See `vsr.inference.cuda.interface.Stream.synchronize`."""
        _call(driver.cuStreamSynchronize, self.raw)

    def begin_capture(self) -> None:
        """See `vsr.inference.cuda.interface.Stream.begin_capture`."""
        # relaxed: in the stricter modes a buffer that is allocated or collected spoils the capture
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        _call(driver.cuStreamBeginCapture, self.raw, mode)

    def end_capture(self) -> CoreGraph:
        """See `vsr.inference.cuda.interface.Stream.end_capture`."""
        graph = _call(driver.cuStreamEndCapture, self.raw)
        try:
            return CoreGraph(self._context, graph)
        finally:
            driver.cuGraphDestroy(graph)


class CoreCuda:
    """See `vsr.inference.cuda.interface.Cuda`."""

    can_capture = True

    def __init__(self, index: int) -> None:
        """Raises UsageError when there are fewer GPUs, BackendError when there is no driver."""
        self.library = f"cuda-bindings {import_module('cuda.bindings').__version__}"
        self.driver = faults.version(_start(self.library))
        self.index = index
        count = _call(driver.cuDeviceGetCount)
        if not 0 <= index < count:
            names = [_name(_call(driver.cuDeviceGet, i)) for i in range(count)]
            raise faults.unknown_gpu(index, names)
        device = _call(driver.cuDeviceGet, index)
        self.name, self.compute_capability = _name(device), _capability(device)
        self.total_memory = int(_call(driver.cuDeviceTotalMem, device))
        _let_threads_sleep(device)
        self._context = _call(driver.cuDevicePrimaryCtxRetain, device)

    def free_memory(self) -> int:
        """See `vsr.inference.cuda.interface.Cuda.free_memory`."""
        with _inside(self._context):
            return int(_call(driver.cuMemGetInfo)[0])

    def activate(self) -> None:
        """See `vsr.inference.cuda.interface.Cuda.activate`."""
        _call(driver.cuCtxSetCurrent, self._context)

    def synchronize(self) -> None:
        """See `vsr.inference.cuda.interface.Cuda.synchronize`."""
        with _inside(self._context):
            _call(driver.cuCtxSynchronize)

    def pinned(self, nbytes: int) -> CorePinned:
        """See `vsr.inference.cuda.interface.Cuda.pinned`."""
        return CorePinned(self._context, nbytes)

    def device(self, nbytes: int) -> CoreDevice:
        """See `vsr.inference.cuda.interface.Cuda.device`."""
        return CoreDevice(self._context, nbytes)

    def stream(self) -> CoreStream:
        """See `vsr.inference.cuda.interface.Cuda.stream`."""
        return CoreStream(self._context)

    def event(self, timing: bool = False) -> CoreEvent:
        """See `vsr.inference.cuda.interface.Cuda.event`."""
        return CoreEvent(self._context, timing)

    def copy_in(
        self, device_address: int, pinned_address: int, nbytes: int, stream: Stream
    ) -> None:
        """See `vsr.inference.cuda.interface.Cuda.copy_in`."""
        _call(driver.cuMemcpyHtoDAsync, device_address, pinned_address, nbytes, stream.raw)

    def copy_out(
        self, pinned_address: int, device_address: int, nbytes: int, stream: Stream
    ) -> None:
        """See `vsr.inference.cuda.interface.Cuda.copy_out`."""
        _call(driver.cuMemcpyDtoHAsync, pinned_address, device_address, nbytes, stream.raw)

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
        """See `vsr.inference.cuda.interface.Cuda.copy_2d`."""
        copy = driver.CUDA_MEMCPY2D()
        copy.dstMemoryType = copy.srcMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_UNIFIED
        # `Device` also when the memory is the host's
        copy.dstDevice, copy.dstPitch = dst, dst_pitch
        copy.srcDevice, copy.srcPitch = src, src_pitch
        copy.WidthInBytes, copy.Height = width_bytes, height
        _call(driver.cuMemcpy2DAsync, copy, stream.raw)


def _start(library: str) -> int:
    """Start the driver; its CUDA version (1000 * major + 10 * minor), not older than needed."""
    try:
        (code,) = driver.cuInit(0)
    except RuntimeError as exc:  # cuda-pathfinder found no libcuda
        raise faults.no_driver() from exc
    version = int(_call(driver.cuDriverGetVersion))
    if version // 1000 < driver.CUDA_VERSION // 1000:  # an old driver may also fail to start
        raise faults.old_driver(version, driver.CUDA_VERSION, library)
    if int(code):
        raise faults.not_started(_words(code))
    return version


def _name(device: Any) -> str:
    text: bytes = _call(driver.cuDeviceGetName, 256, device)
    return text.split(b"\0", maxsplit=1)[0].decode()


def _capability(device: Any) -> tuple[int, int]:
    kinds = driver.CUdevice_attribute
    major = kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    minor = kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
    call = driver.cuDeviceGetAttribute
    return int(_call(call, major, device)), int(_call(call, minor, device))


def _let_threads_sleep(device: Any) -> None:
    """Call before the first retain: FFmpeg refuses a primary context with other flags.

    Where torch was earlier the driver changes them afterwards; if it does not, only FFmpeg minds.
    """
    flags = int(driver.CUctx_flags.CU_CTX_SCHED_BLOCKING_SYNC)
    driver.cuDevicePrimaryCtxSetFlags(device, flags)
