"""Finds a Python library that drives the GPU; `vsr.inference.cuda.interface` has its operations."""

import os
from collections.abc import Callable
from typing import Final

from vsr.errors import BackendError, UsageError, reason
from vsr.inference.cuda import faults
from vsr.inference.cuda.interface import Cuda, DeviceBuffer, Event, Graph, PinnedBuffer, Stream
from vsr.inference.cuda.pinned import PinnedPool

__all__ = [
    "CUDA_LIBRARIES",
    "Cuda",
    "DeviceBuffer",
    "Event",
    "Graph",
    "PinnedBuffer",
    "PinnedPool",
    "Stream",
    "load_cuda",
]


def _cuda_bindings(device: int) -> Cuda:
    from vsr.inference.cuda.bindings import CoreCuda

    return CoreCuda(device)


def _pycuda(device: int) -> Cuda:
    from vsr.inference.cuda.pycuda import PyCuda

    return PyCuda(device)


CUDA_LIBRARIES: Final[dict[str, Callable[[int], Cuda]]] = {
    "pycuda": _pycuda,
    "cuda-bindings": _cuda_bindings,
}
"""In the order of preference, PyCUDA being what its users installed on purpose; also the names of
their packages."""
_MODULES: Final = frozenset({"cuda", "pycuda"})


def load_cuda(device: int = 0, prefer: str | None = None) -> Cuda:
    """The GPU with CUDA's number `device`, through the first installed of `CUDA_LIBRARIES`.

    `prefer`, or else the environment's VSR_CUDA, names the one to use. Starts the driver and keeps
    the GPU's primary context until the process ends. Raises UsageError for an unknown name or GPU,
    BackendError without library, driver or GPU, and when the driver is too old for the library.
    """
    asked = prefer or os.environ.get("VSR_CUDA")
    if asked and asked not in CUDA_LIBRARIES:
        raise UsageError(f"unknown CUDA library '{asked}'; known: {', '.join(CUDA_LIBRARIES)}")
    for name in [asked] if asked else CUDA_LIBRARIES:
        try:
            return CUDA_LIBRARIES[name](device)
        except ImportError as exc:
            absent = isinstance(exc, ModuleNotFoundError) and exc.name
            if not absent or absent.split(".")[0] not in _MODULES:
                raise faults.broken_library(name, reason(exc)) from exc
    if asked:
        raise BackendError(f"{asked} is not installed: pip install {asked}, or unset VSR_CUDA")
    raise BackendError(
        "neither cuda-bindings nor PyCUDA is installed: "
        "pip install 'vsr-stream[tensorrt-rtx]', or run with --backend openvino"
    )
