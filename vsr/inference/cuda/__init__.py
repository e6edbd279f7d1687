"""Loads a Python library that drives the GPU; `vsr.inference.cuda.interface` has the operations."""

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
"""Package names of the libraries -> loaders, in order of preference: PyCUDA is first, because its
users installed it on purpose."""
_MODULES: Final = frozenset({"cuda", "pycuda"})


def load_cuda(device: int = 0, prefer: str | None = None) -> Cuda:
    """Open the GPU with CUDA's number `device`, with the first installed of `CUDA_LIBRARIES`.

    `prefer`, or else the environment variable VSR_CUDA, selects the library. Starts the driver and
    keeps the GPU's primary context until the process ends. Raises UsageError for an unknown name or
    GPU, BackendError if library, driver or GPU are missing, or the driver is too old.
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
