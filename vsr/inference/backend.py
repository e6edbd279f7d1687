"""The seam between the pipeline and inference: an `Engine` turns planes into planes.

`BACKENDS` maps names to loaders; the libraries behind them are imported when asked for.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from vsr.errors import BackendError, UsageError
from vsr.media.frame import Planes
from vsr.network.graph import PlaneGraph

log = logging.getLogger(__name__)


class Ticket(Protocol):
    """One picture on its way through an engine."""

    @property
    def started(self) -> float:
        """When the engine took it, in seconds of `time.perf_counter`."""
        ...

    @property
    def finished(self) -> float:
        """When the result was ready; valid after `result`."""
        ...

    def result(self) -> Planes:
        """Wait, and return the enlarged planes as new, contiguous, writable arrays.

        Frees the slot. Call once. Raises BackendError when inference failed.
        """
        ...


class Engine(Protocol):
    """A compiled graph for one picture size. Not thread-safe: one thread submits and collects."""

    @property
    def slots(self) -> int:
        """How many pictures may be under way at once."""
        ...

    def submit(self, planes: Planes) -> Ticket:
        """Copy the planes in and start; at most `slots` tickets may be uncollected."""
        ...


class Runner(Protocol):
    """What is needed to choose and to look at a network before there is an engine."""

    def choose_precision(self, wanted: str, int8: bool) -> str:
        """`wanted`, or for `auto` the best here: one of `PRECISIONS`.

        `int8` says whether the network has such a form. Raises UsageError for what the device
        cannot do.
        """
        ...

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        """The output of a one-input ONNX model for each numpy array: to look at a network."""
        ...


class Backend(Runner, Protocol):
    """Compiles graphs for one device."""

    name: str
    device: str
    """What it runs on, in the library's own words."""

    def compile(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> Engine:
        """An engine for pictures of `size` (width, height), `batch` of them at a time.

        Raises BackendError; OutOfMemoryError where smaller pictures or batches may go.
        """
        ...

    def is_built(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> bool:
        """Whether `compile` would find an engine and need not build one for long."""
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


_NVIDIA: Final = ("/dev/nvidiactl", "/dev/dxg", "C:/Windows/System32/nvcuda.dll")
"""Where a driver shows itself on Linux, under WSL and on Windows, before any library is loaded."""


def load_backend(name: str = "auto", device: str | None = None, live: bool = False) -> Backend:
    """The backend of that name on `device` (the library's own default when None).

    `auto` takes TensorRT where an NVIDIA GPU and one of its libraries are, else OpenVINO. `live`
    prefers the latency of one picture to the number of pictures.
    """
    if name == "auto":
        return _best(device, live)
    if name not in BACKENDS:
        raise UsageError(f"unknown backend '{name}'; known: auto, {', '.join(sorted(BACKENDS))}")
    return BACKENDS[name](device, live)


def _best(device: str | None, live: bool) -> Backend:
    if device and not device.isdigit():
        return BACKENDS["openvino"](device, live)  # CPU, GPU.0, NPU: its names
    if not any(Path(path).exists() for path in _NVIDIA):
        return BACKENDS["openvino"](device, live)
    errors = []
    for name in ("tensorrt", "tensorrt-rtx"):
        try:
            return BACKENDS[name](device, live)
        except BackendError as exc:
            errors.append(str(exc))
    log.warning("the NVIDIA GPU is not used, OpenVINO is: %s", errors[-1])
    return BACKENDS["openvino"](None, live)
