"""How much of a GPU's memory is free, asked of the driver itself."""

import ctypes

from vsr.inference.cuda import Cuda


def free_memory(cuda: Cuda) -> int:
    """Bytes that nobody has taken, other processes included."""
    cuda.activate()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    library = ctypes.CDLL("libcuda.so.1")
    assert library.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
    return free.value
