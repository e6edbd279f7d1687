"""Defines the protocols of backends and their engines, and loads a backend by name.

`BACKENDS` maps names to loaders, which import their library when called.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from vsr.errors import BackendError, UsageError
from vsr.media.frame import Planes
from vsr.media.validation import check_type
from vsr.network.graph import PlaneGraph

log = logging.getLogger(__name__)


class Ticket(Protocol):
    """The pending result of one submitted picture."""

    @property
    def started(self) -> float:
        """Time at which the engine accepted the picture, in seconds of `time.perf_counter`."""
        ...

    @property
    def finished(self) -> float:
        """Time at which the result was ready, in the same unit; valid after `result`."""
        ...

    def result(self) -> Planes:
        """Wait for the enlarged planes and return them as new, contiguous, writable arrays.

        Frees the slot. Call it only once. Raises BackendError if inference failed.
        """
        ...


class Engine(Protocol):
    """A compiled graph for one picture size. Not thread-safe: one thread submits and collects."""

    @property
    def slots(self) -> int:
        """Maximum number of pictures in flight."""
        ...

    def submit(self, planes: Planes) -> Ticket:
        """Copy the planes and start inference; at most `slots` tickets may be uncollected."""
        ...


class Runner(Protocol):
    """Chooses a precision and runs a network once, before an engine is compiled."""

    def choose_precision(self, precision: str, has_int8: bool) -> str:
        """Return `precision`, or for `auto` the device's best precision: one of `PRECISIONS`.

        `has_int8` is whether the network has an int8 form. Raises UsageError if the device does not
        support the precision.
        """
        ...

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        """Run a one-input ONNX model on each numpy array and return the results, for probing."""
        ...


@runtime_checkable
class PrecisionTimer(Protocol):
    """A `Runner` that can measure which precision of a network is fastest."""

    def fastest_precision(
        self, model: bytes, picture: object, digest: str, value_max: float
    ) -> str:
        """Return the float precision in which a one-input ONNX model is fastest on this machine.

        `picture` is the input as a numpy array, `value_max` the maximum of its values. A precision
        counts only if its result has at least 50 dB PSNR against full precision. Measured once for
        each machine and `digest`, and saved.
        """
        ...


class Backend(Runner, Protocol):
    """Compiles graphs for one device."""

    name: str
    device: str
    """Name of the device, for messages and reports."""
    on_cpu: bool
    """Whether the processors compute the network, which decoder and encoder need too."""

    def compile(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> Engine:
        """Compile an engine for pictures of `size` (width, height), `batch` at a time.

        Raises BackendError, or OutOfMemoryError if smaller pictures or batches may fit.
        """
        ...

    def is_built(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> bool:
        """Return whether `compile` finds a built engine, as building one may take minutes."""
        ...


def _openvino(device: str | None, live: bool) -> Backend:
    from vsr.inference.openvino import OpenVinoBackend

    return OpenVinoBackend(device or "CPU", live)


def _tensorrt(device: str | None, live: bool) -> Backend:
    from vsr.inference.tensorrt.backend import TensorRtBackend

    return TensorRtBackend("tensorrt", device)


def _tensorrt_rtx(device: str | None, live: bool) -> Backend:
    from vsr.inference.tensorrt.backend import TensorRtBackend

    return TensorRtBackend("tensorrt-rtx", device)


BACKENDS: Final[dict[str, Callable[[str | None, bool], Backend]]] = {
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
    "openvino": _openvino,
}


_NVIDIA_DRIVER_FILES: Final = ("/dev/nvidiactl", "/dev/dxg", "C:/Windows/System32/nvcuda.dll")
"""Files that exist if an NVIDIA driver is installed: on Linux, under WSL and on Windows."""


def check_batch(batch: int, backend: Backend) -> None:
    """Raise UsageError for a batch below 1; log a warning if a larger one has no effect."""
    check_type("batch", batch, int, 1)
    if batch > 1 and backend.name == "openvino":
        log.warning(
            "batch %d has no effect on OpenVINO (%s): it is for NVIDIA GPUs", batch, backend.device,
        )  # fmt: skip


def load_backend(name: str = "auto", device: str | None = None, live: bool = False) -> Backend:
    """Load the backend of that name on `device` (None: the library's default).

    `auto` selects TensorRT or TensorRT-RTX if an NVIDIA GPU and that library are present, else
    OpenVINO. `live` makes OpenVINO optimise the latency of a picture instead of throughput.
    """
    check_type("device", device, str | None)
    if name == "auto":
        return _load_auto(device, live)
    if name not in BACKENDS:
        raise UsageError(f"unknown backend '{name}'; known: auto, {', '.join(sorted(BACKENDS))}")
    return BACKENDS[name](device, live)


def _load_auto(device: str | None, live: bool) -> Backend:
    if device and not device.isdigit():
        return BACKENDS["openvino"](device, live)  # its names: CPU, GPU.0, NPU
    if not any(Path(path).exists() for path in _NVIDIA_DRIVER_FILES):
        return BACKENDS["openvino"](device, live)
    errors = []
    for name in ("tensorrt", "tensorrt-rtx"):
        try:
            return BACKENDS[name](device, live)
        except BackendError as exc:
            errors.append(str(exc))
    log.warning("cannot use the NVIDIA GPU (%s): using OpenVINO", errors[-1])
    return BACKENDS["openvino"](None, live)
