"""Makes the errors of the CUDA layer: one line that says what is wrong and what to do."""

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
"""A part of the driver's own words (`cuGetErrorString`) -> what it means to the user."""


def no_driver() -> BackendError:
    """libcuda is not there."""
    return BackendError(f"there is no NVIDIA driver (libcuda) here: install one, {_INSTEAD}")


def old_driver(driver: int, needed: int, package: str) -> BackendError:
    """The driver's CUDA version is older than the installed library; both as 1000 * major."""
    name = package.split(maxsplit=1)[0]
    return BackendError(
        f"the NVIDIA driver supports CUDA {version(driver)} and {package} needs "
        f"CUDA {needed // 1000}: update the driver, install an older {name}, {_INSTEAD}"
    )


def old_function(call: str) -> BackendError:
    """The driver has no such function."""
    return BackendError(f"the NVIDIA driver is too old for {call}: update it, {_INSTEAD}")


def broken_library(package: str, reason: str) -> BackendError:
    """The library is installed and cannot be imported."""
    return BackendError(f"{package} cannot be loaded ({reason}): install it again, {_INSTEAD}")


def unknown_gpu(index: int, names: list[str]) -> VsrError:
    """There are GPUs, but not that many; or none at all."""
    if not names:
        return not_started("no CUDA-capable device")
    listed = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
    return UsageError(f"there is no GPU {index} here; there is: {listed}")


def not_started(words: str) -> BackendError:
    """`cuInit` failed with these words of the driver."""
    for part, line in _STARTING.items():
        if part in words:
            return BackendError(line)
    return BackendError(f"CUDA cannot start ({words}): restart the machine, {_INSTEAD}")


def no_graphs(package: str) -> BackendError:
    """The library cannot capture."""
    return BackendError(f"{package} cannot capture CUDA graphs: pip install cuda-bindings")


def failed(call: str, words: str) -> BackendError:
    """Any other call failed with these words of the driver."""
    return BackendError(f"CUDA failed in {call}: {words}")


def no_memory(call: str) -> OutOfMemoryError:
    """Memory ran out in a call that allocates for itself (a context, a graph)."""
    return OutOfMemoryError(
        f"CUDA ran out of memory in {call}: close other programs, or use smaller tiles or batches"
    )


def no_pinned_memory(nbytes: int) -> OutOfMemoryError:
    """The host has no more memory to lock."""
    return OutOfMemoryError(
        f"no {nbytes / _MIB:.0f} MiB of page-locked memory left: close other programs, "
        "or use smaller batches"
    )


def no_device_memory(nbytes: int, left: int) -> OutOfMemoryError:
    """The GPU has no room."""
    return OutOfMemoryError(
        f"no {nbytes / _MIB:.0f} MiB of GPU memory left ({left / _MIB:.0f} MiB are free): "
        "close other programs, or use smaller tiles or batches"
    )


def version(code: int) -> str:
    """CUDA's number of a version as it is written, 13000 -> 13.0."""
    return f"{code // 1000}.{code % 1000 // 10}"
