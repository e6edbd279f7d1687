"""Queries the driver for the free memory of a GPU."""

import ctypes

from vsr.inference.cuda import Cuda


def free_memory(cuda: Cuda) -> int:
    """Return the bytes of GPU memory that no process has allocated."""
    cuda.activate()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    library = ctypes.CDLL("libcuda.so.1")
    assert library.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
    return free.value
