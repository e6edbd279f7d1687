"""Runs the shared library of the fused CUDA kernels, in a separate process.

Its GPU threads are coroutines that jump between stacks (cuda_on_host.h). A kernel bug may crash the
process, which must not be that of the tests.
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

GUARD = 4096
"""Number of NaNs before and after every array, so that a read outside shows in the result."""
Array = npt.NDArray[Any]


def run_kernel(
    library: str,
    name: str,
    grid: tuple[int, int, int],
    threads: int,
    backwards: bool,
    arguments: tuple[Array | int, ...],
    shape: tuple[int, ...],
) -> Array:
    """Return the kernel's last argument, its output: an fp16 array of the given shape."""
    run = _load(library)[f"run_{name}"]
    run.restype = ctypes.c_bool
    result = np.full(shape, np.nan, np.float16)
    guarded = [_guarded(a) if isinstance(a, np.ndarray) else a for a in (*arguments, result)]
    passed = [
        ctypes.c_int(a) if isinstance(a, int) else ctypes.c_void_p(a[GUARD:].ctypes.data)
        for a in guarded
    ]
    finished = run(*grid, threads, ctypes.c_bool(backwards), *passed)
    assert finished, "the kernel's threads wait for each other for ever"
    for whole in guarded:
        if isinstance(whole, np.ndarray):
            assert np.isnan(whole[:GUARD]).all(), "written before an array"
            assert np.isnan(whole[-GUARD:]).all(), "written after an array"
            last = whole
    return last[GUARD:-GUARD].reshape(shape)


@cache
def _load(library: str) -> ctypes.CDLL:
    return ctypes.CDLL(library)


def _guarded(array: Array) -> Array:
    """Return a flat copy with NaNs before and after it."""
    whole = np.full(array.size + 2 * GUARD, np.nan, array.dtype)
    whole[GUARD:-GUARD] = array.ravel()
    return whole
