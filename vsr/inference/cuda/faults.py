"""Creates the errors of the CUDA layer: one line that says what is wrong and what to do."""

from typing import Final

from vsr.errors import BackendError, OutOfMemoryError, UsageError, VsrError

_INSTEAD: Final = "or run with --backend openvino"
_MIB: Final = 1 << 20

_STARTING: Final = {
    "no CUDA-capable device": "no NVIDIA GPU can be used here: check nvidia-smi and "
    f"CUDA_VISIBLE_DEVICES, {_INSTEAD}",
    "unsupported display driver": "the parts of the NVIDIA driver are of different versions: "
    f"restart the machine or install the driver again, {_INSTEAD}",
    "forward compatibility": "this GPU cannot use CUDA's forward compatibility package: "
    f"remove it or update the NVIDIA driver, {_INSTEAD}",
    "stub library": "libcuda is the toolkit's stub, which only links: take it off "
    f"LD_LIBRARY_PATH or install the NVIDIA driver, {_INSTEAD}",
}
"""Part of the driver's message (`cuGetErrorString`) -> message for the user."""


def no_driver() -> BackendError:
    """Return the error for a missing driver library (libcuda)."""
    return BackendError(f"there is no NVIDIA driver (libcuda) here: install one, {_INSTEAD}")


def old_driver(driver: int, needed: int, package: str) -> BackendError:
    """Return the error for a driver that is too old for the library; versions as in `version`."""
    name = package.split(maxsplit=1)[0]
    return BackendError(
        f"the NVIDIA driver supports CUDA {version(driver)} and {package} needs "
        f"CUDA {needed // 1000}: update the driver, install an older {name}, {_INSTEAD}"
    )


def old_function(call: str) -> BackendError:
    """Return the error for a function that the driver does not have."""
    return BackendError(f"the NVIDIA driver is too old for {call}: update it, {_INSTEAD}")


def broken_library(package: str, reason: str) -> BackendError:
    """Return the error for a library that is installed but cannot be imported."""
    return BackendError(f"{package} cannot be loaded ({reason}): install it again, {_INSTEAD}")


def unknown_gpu(index: int, names: list[str]) -> VsrError:
    """Return the error for a GPU number that does not exist, or for no GPU at all."""
    if not names:
        return not_started("no CUDA-capable device")
    listed = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
    return UsageError(f"there is no GPU {index} here; there is: {listed}")


def not_started(words: str) -> BackendError:
    """Return the error for a failed `cuInit`, from the driver's message."""
    for part, line in _STARTING.items():
        if part in words:
            return BackendError(line)
    return BackendError(f"CUDA cannot start ({words}): restart the machine, {_INSTEAD}")


def no_graphs(package: str) -> BackendError:
    """Return the error for a library that cannot capture CUDA graphs."""
    return BackendError(f"{package} cannot capture CUDA graphs: pip install cuda-bindings")


def failed(call: str, words: str) -> BackendError:
    """Return the error for any other failed call, with the driver's message."""
    return BackendError(f"CUDA failed in {call}: {words}")


def no_memory(call: str) -> OutOfMemoryError:
    """Return the error for a call whose internal allocation failed (a context, a graph)."""
    return OutOfMemoryError(
        f"CUDA ran out of memory in {call}: close other programs, or use smaller tiles or batches"
    )


def no_pinned_memory(nbytes: int) -> OutOfMemoryError:
    """Return the error for a host that cannot lock `nbytes` more."""
    return OutOfMemoryError(
        f"no {nbytes / _MIB:.0f} MiB of page-locked memory left: close other programs, "
        "or use smaller batches"
    )


def no_device_memory(nbytes: int, left: int) -> OutOfMemoryError:
    """Return the error for a GPU without `nbytes` of free memory; `left` bytes are free."""
    return OutOfMemoryError(
        f"no {nbytes / _MIB:.0f} MiB of GPU memory left ({left / _MIB:.0f} MiB are free): "
        "close other programs, or use smaller tiles or batches"
    )


def version(code: int) -> str:
    """Format CUDA's version number, 1000 * major + 10 * minor: 13000 -> 13.0."""
    return f"{code // 1000}.{code % 1000 // 10}"
