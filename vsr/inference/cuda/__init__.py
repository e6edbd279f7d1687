"""Loads a Python library that drives the GPU; `vsr.inference.cuda.interface` has the operations."""

import os
from collections.abc import Callable
from typing import Final

from vsr.errors import BackendError, UsageError, reason
from vsr.inference.cuda import errors
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
    requested = prefer or os.environ.get("VSR_CUDA")
    if requested and requested not in CUDA_LIBRARIES:
        raise UsageError(f"unknown CUDA library '{requested}'; known: {', '.join(CUDA_LIBRARIES)}")
    for name in [requested] if requested else CUDA_LIBRARIES:
        try:
            return CUDA_LIBRARIES[name](device)
        except ImportError as exc:
            missing_module = isinstance(exc, ModuleNotFoundError) and exc.name
            if not missing_module or missing_module.split(".")[0] not in _MODULES:
                raise errors.broken_library_error(name, reason(exc)) from exc
    if requested:
        raise BackendError(
            f"{requested} is not installed: pip install {requested}, or unset VSR_CUDA"
        )
    raise BackendError(
        "neither cuda-bindings nor PyCUDA is installed: "
        "pip install 'vsr-stream[tensorrt-rtx]', or run with --backend openvino"
    )
