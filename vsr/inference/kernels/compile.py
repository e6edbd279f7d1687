"""Compiles our CUDA kernels with NVRTC, on machines with and without a GPU.

NVRTC is a separate library (wheel `nvidia-cuda-nvrtc`), called through `cuda-bindings`. The
kernels use no CUDA header, so neither a toolkit nor the header wheels are needed.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

from vsr.errors import BackendError

KERNELS: Final = ("residual_e",)
ARCHITECTURES: Final = (75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121)
"""Compute capabilities, times ten, that the tests compile for; NVRTC may support others."""
_PTX_VERSIONS: Final = {
    **dict.fromkeys((75, 80, 86, 87, 89, 90), (8, 0)),
    **{88: (9, 0), 100: (8, 6), 103: (8, 8), 110: (9, 0), 120: (8, 7), 121: (8, 8)},
}
"""Architecture -> PTX version (major, minor) of the first CUDA release from 12.0 on that supports
it (PTX ISA, release notes); it includes all that our kernels use."""
_VERSION_LINE: Final = re.compile(rb"^\.version (\d+)\.(\d+)", re.MULTILINE)
_HEADER: Final = "warp.cuh"
_INSTALL: Final = "pip install cuda-bindings 'nvidia-cuda-nvrtc==13.*'"


@cache
def compile_kernel(
    name: str, arch: int, to: Literal["cubin", "ptx"], source: bytes | None = None
) -> bytes:
    """Compile one of `KERNELS`, or `source`, for compute capability `arch` / 10 to cubin or PTX.

    A cubin runs on that architecture (and later ones of its generation) and needs no compiler at
    run time: prefer it. PTX, which TensorRT's plugins require, is compiled by the driver. Its
    version is lowered to the oldest sufficient one, because a driver refuses PTX newer than itself
    and NVRTC writes its own version. The entry point has the kernel's name. Raises BackendError if
    NVRTC is missing or fails. Thread-safe; results are cached. See docs.nvidia.com/cuda/nvrtc.
    """
    if source is None and name not in KERNELS:
        raise BackendError(f"unknown kernel '{name}'; known: {', '.join(KERNELS)}")
    return _compile(source or _source(f"{name}.cu"), name, arch, to)


def _source(file: str) -> bytes:
    return files("vsr.inference.kernels").joinpath(file).read_bytes()


def _compile(source: bytes, name: str, arch: int, to: Literal["cubin", "ptx"]) -> bytes:
    nvrtc = _nvrtc()
    headers = [_source(_HEADER)], [_HEADER.encode()]
    label = f"{name}.cu".encode()
    program = _check_status(nvrtc, nvrtc.nvrtcCreateProgram(source, label, 1, *headers), name)
    try:
        real = "sm" if to == "cubin" else "compute"
        options = [b"--std=c++17", f"--gpu-architecture={real}_{arch}".encode()]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            message = _first_log_line(nvrtc, program, name) or str(status)
            raise BackendError(f"kernel '{name}' does not compile for sm_{arch}: {message}")
        size_of, get = (
            (nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
            if to == "cubin"
            else (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
        )
        code = bytearray(_check_status(nvrtc, size_of(program), name))
        _check_status(nvrtc, get(program, code), name)
        return bytes(code) if to == "cubin" else _for_older_drivers(bytes(code), arch)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _for_older_drivers(ptx: bytes, arch: int) -> bytes:
    """Lower the PTX version so that drivers older than NVRTC accept it, as Triton does."""
    found = _VERSION_LINE.search(ptx)
    if found is None or arch not in _PTX_VERSIONS:
        return ptx
    major, minor = min(_PTX_VERSIONS[arch], (int(found[1]), int(found[2])))
    return _VERSION_LINE.sub(b".version %d.%d" % (major, minor), ptx, count=1)


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()  # the library itself is loaded by the first call
    except (ImportError, RuntimeError) as exc:
        raise BackendError(
            f"NVRTC, which compiles CUDA kernels, is not installed: {_INSTALL}"
        ) from exc
    return nvrtc


def _first_log_line(nvrtc: Any, program: Any, name: str) -> str:
    """Return the first line of the compiler's log."""
    log = bytearray(_check_status(nvrtc, nvrtc.nvrtcGetProgramLogSize(program), name))
    _check_status(nvrtc, nvrtc.nvrtcGetProgramLog(program, log), name)
    lines = log.rstrip(b"\0").decode(errors="replace").strip().splitlines()
    return lines[0] if lines else ""


def _check_status(nvrtc: Any, answer: tuple[Any, ...], name: str) -> Any:
    """Return the value of a result (status, value), or None if there is only a status."""
    status, *values = answer
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BackendError(f"NVRTC failed on kernel '{name}': {status.name}")
    return values[0] if values else None
