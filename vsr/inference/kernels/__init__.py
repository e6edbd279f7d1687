"""CUDA kernel for CARN-M's residual-E block, which libraries run inefficiently.

Grouped 3x3 convolutions of 16 channels per group leave most of a Tensor Core idle in cuDNN and
TensorRT; `residual_e.cu` runs the whole block (two of them, 1x1, skip) in one launch, with the
intermediate results in shared memory. It reads NHWC halves, accumulates in float, and compiles for
every GPU of compute capability 7.5 or higher.

It is **off by default**, because it has not been timed yet: it stays only if `bench/kernels.py`
shows that it beats the library on a real GPU. `vsr.inference.kernels.plugin` puts `residual_e`
into a TensorRT engine.

    weights, bias = pack_residual_e((w1, b1), (w2, b2), (w3, b3))
    cubin = compile_kernel("residual_e", arch=86, to="cubin")
    launch = residual_e_launch(batch, height, width)
"""

from vsr.inference.kernels.compile import ARCHITECTURES, KERNELS, compile_kernel
from vsr.inference.kernels.layout import (
    Launch,
    pack_residual_e,
    residual_e_launch,
)

__all__ = [
    "ARCHITECTURES",
    "KERNELS",
    "Launch",
    "compile_kernel",
    "pack_residual_e",
    "residual_e_launch",
]
