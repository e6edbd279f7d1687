"""Checks the size of a network's tensors before the network is run."""

import math
from typing import Final

import onnx
from onnx import shape_inference

from vsr.errors import ModelError, reason
from vsr.network.onnx_inputs import sole_input
from vsr.network.onnx_tools import copied

_MOST: Final = 2**26
"""Maximum values in a tensor for a small test picture; 1,024 channels of 192x192 are less."""
_LAYERS: Final = 50_000
"""Maximum number of nodes in a network; transformers have some thousands."""


def check_sizes(network: onnx.ModelProto, shape: tuple[int, int, int, int]) -> None:
    """Raise ModelError if a network creates excessively large tensors from an input of `shape`.

    A file of a few bytes may need more memory than the machine has. Shapes that depend on values
    computed at run time are not checked.
    """
    if len(network.graph.node) > _LAYERS:
        raise ModelError(f"it has {len(network.graph.node)} layers, and at most {_LAYERS} may be")
    fixed = copied(network)
    dims = sole_input(fixed).type.tensor_type.shape.dim
    for dim, size in zip(dims, shape, strict=True):
        dim.dim_value = size
    del fixed.graph.value_info[:]  # the file's shapes are not trusted
    del fixed.graph.output[0].type.tensor_type.shape.dim[:]
    fixed.graph.output[0].type.tensor_type.ClearField("shape")
    try:
        known = shape_inference.infer_shapes(fixed, data_prop=True)
    except Exception as exc:  # C++ types
        raise ModelError(f"its shapes contradict each other: {reason(exc)}") from exc
    for value in (*known.graph.value_info, *known.graph.output):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if math.prod(sizes) > _MOST:
            made = "x".join(map(str, sizes))
            raise ModelError(f"it makes {made} values of a picture of {shape[3]}x{shape[2]}")
