"""Creates the errors of the CUDA layer: one line that says what is wrong and what to do."""

from typing import Final

from vsr.errors import BackendError, OutOfMemoryError, UsageError, VsrError

_OR_OPENVINO: Final = "or run with --backend openvino"
_MIB: Final = 1 << 20

_START_MESSAGES: Final = {
    "no CUDA-capable device": "no usable NVIDIA GPU found: check nvidia-smi and "
    f"CUDA_VISIBLE_DEVICES, {_OR_OPENVINO}",
    "unsupported display driver": "the components of the NVIDIA driver have different versions: "
    f"restart the machine or reinstall the driver, {_OR_OPENVINO}",
    "forward compatibility": "this GPU cannot use CUDA's forward compatibility package: "
    f"remove it or update the NVIDIA driver, {_OR_OPENVINO}",
    "stub library": "libcuda is the toolkit's stub library, for linking only: remove it from "
    f"LD_LIBRARY_PATH or install the NVIDIA driver, {_OR_OPENVINO}",
}
"""Part of the driver's message (`cuGetErrorString`) -> message for the user."""


def driver_missing_error() -> BackendError:
    """Return the error for a missing driver library (libcuda)."""
    return BackendError(f"NVIDIA driver (libcuda) not found: install it, {_OR_OPENVINO}")


def driver_too_old_error(driver: int, needed: int, package: str) -> BackendError:
    """Return the error for a driver too old for the library; versions as in `format_version`."""
    name = package.split(maxsplit=1)[0]
    return BackendError(
        f"the NVIDIA driver supports CUDA {format_version(driver)} and {package} needs "
        f"CUDA {needed // 1000}: update the driver, install an older {name}, {_OR_OPENVINO}"
    )


def function_missing_error(call: str) -> BackendError:
    """Return the error for a function that the driver does not have."""
    return BackendError(f"the NVIDIA driver is too old for {call}: update it, {_OR_OPENVINO}")


def broken_library_error(package: str, reason: str) -> BackendError:
    """Return the error for a library that is installed but cannot be imported."""
    return BackendError(f"{package} cannot be loaded ({reason}): reinstall it, {_OR_OPENVINO}")


def unknown_gpu_error(index: int, names: list[str]) -> VsrError:
    """Return the error for a GPU number that does not exist, or for no GPU at all."""
    if not names:
        return start_error("no CUDA-capable device")
    available = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
    return UsageError(f"no GPU {index}; available: {available}")


def start_error(message: str) -> BackendError:
    """Return the error for a failed `cuInit`, from the driver's message."""
    for part, line in _START_MESSAGES.items():
        if part in message:
            return BackendError(line)
    return BackendError(f"CUDA cannot start ({message}): restart the machine, {_OR_OPENVINO}")


def no_graph_capture_error(package: str) -> BackendError:
    """Return the error for a library that cannot capture CUDA graphs."""
    return BackendError(f"{package} cannot capture CUDA graphs: pip install cuda-bindings")


def call_failed_error(call: str, message: str) -> BackendError:
    """Return the error for any other failed call, with the driver's message."""
    return BackendError(f"CUDA failed in {call}: {message}")


def out_of_memory_error(call: str) -> OutOfMemoryError:
    """Return the error for a call whose internal allocation failed (a context, a graph)."""
    return OutOfMemoryError(
        f"CUDA ran out of memory in {call}: close other programs, or use smaller tiles or batches"
    )


def pinned_memory_error(nbytes: int) -> OutOfMemoryError:
    """Return the error for a host that cannot lock `nbytes` more."""
    return OutOfMemoryError(
        f"cannot allocate {nbytes / _MIB:.0f} MiB of page-locked memory: close other programs, "
        "or use smaller batches"
    )


def device_memory_error(nbytes: int, free: int) -> OutOfMemoryError:
    """Return the error for a GPU without `nbytes` of free memory; `free` bytes are free."""
    return OutOfMemoryError(
        f"cannot allocate {nbytes / _MIB:.0f} MiB of GPU memory ({free / _MIB:.0f} MiB free): "
        "close other programs, or use smaller tiles or batches"
    )


def format_version(code: int) -> str:
    """Format CUDA's version number, 1000 * major + 10 * minor: 13000 -> 13.0."""
    return f"{code // 1000}.{code % 1000 // 10}"
