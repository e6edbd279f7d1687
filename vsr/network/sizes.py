"""Checks the size of a network's tensors before the network is run."""

import math
from typing import Final

import onnx
from onnx import shape_inference

from vsr.errors import ModelError, reason
from vsr.network.onnx_inputs import sole_input
from vsr.network.onnx_tools import copy_network

_MAX_VALUES: Final = 2**26
"""Maximum values in a tensor for a small test picture; 1,024 channels of 192x192 are less."""
_MAX_NODES: Final = 50_000
"""Maximum number of nodes in a network; transformers have some thousands."""


def check_tensor_sizes(network: onnx.ModelProto, shape: tuple[int, int, int, int]) -> None:
    """Raise ModelError if a network creates excessively large tensors from an input of `shape`.

    A file of a few bytes may need more memory than the machine has. Shapes that depend on values
    computed at run time are not checked.
    """
    if len(network.graph.node) > _MAX_NODES:
        raise ModelError(f"it has {len(network.graph.node)} layers, the limit is {_MAX_NODES}")
    fixed = copy_network(network)
    dims = sole_input(fixed).type.tensor_type.shape.dim
    for dim, size in zip(dims, shape, strict=True):
        dim.dim_value = size
    del fixed.graph.value_info[:]  # the file's shapes are not trusted
    del fixed.graph.output[0].type.tensor_type.shape.dim[:]
    fixed.graph.output[0].type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    except Exception as exc:  # C++ types
        raise ModelError(f"its shapes contradict each other: {reason(exc)}") from exc
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if math.prod(sizes) > _MAX_VALUES:
            shape_text = "x".join(map(str, sizes))
            raise ModelError(
                f"it creates a tensor of {shape_text} from a picture of {shape[3]}x{shape[2]}"
            )
