"""Builds LPIPS 0.1 on AlexNet, the perceptual distance of two pictures, as an ONNX network.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018:
AlexNet's five activations of both pictures, each pixel's vector normalised to length 1; their
squared differences are weighted by channel, averaged over pixels and summed over activations.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

SHAPES: Final = {
    "conv0.weight": (64, 3, 11, 11), "conv1.weight": (192, 64, 5, 5),
    "conv2.weight": (384, 192, 3, 3), "conv3.weight": (256, 384, 3, 3),
    "conv4.weight": (256, 256, 3, 3),
    **{f"conv{k}.bias": (n,) for k, n in enumerate((64, 192, 384, 256, 256))},
    **{f"lin{k}.weight": (1, n, 1, 1) for k, n in enumerate((64, 192, 384, 256, 256))},
}  # fmt: skip
"""Shapes of the weights that `lpips_network` takes, by name."""
MIN_SIDE: Final = 31
"""Minimum width and height, in pixels; smaller pictures are empty after the pooling."""
_SHIFT: Final = np.array([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1)
_SCALE: Final = np.array([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1)
_STRIDES: Final = (4, 1, 1, 1, 1)
_PADDINGS: Final = (2, 2, 1, 1, 1)
_POOLED: Final = (1, 2)
"""Indexes of the convolutions that follow a max pooling."""


def lpips_network(weights: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Build the network: `pair` [2, 3, H, W], R'G'B' in 0..1 -> scalar; weights as in `SHAPES`."""
    constants = {name: np.asarray(weights[name], np.float32) for name in SHAPES}
    # (2 x - 1 - shift) / spread
    constants["gain"] = np.asarray(2 / _SCALE, np.float32)
    constants["offset"] = np.asarray((-1 - _SHIFT) / _SCALE, np.float32)
    constants["little"] = np.array(1e-10, np.float32)
    nodes = [
        helper.make_node("Mul", ["pair", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["x"]),
    ]
    last = "x"
    for k in range(len(_STRIDES)):
        nodes += _stage(k, last)
        last = f"active{k}"
    nodes.append(helper.make_node("Sum", [f"part{k}" for k in range(len(_STRIDES))], ["distance"]))
    graph = helper.make_graph(
        nodes, "lpips",
        [helper.make_tensor_value_info("pair", TensorProto.FLOAT, [2, 3, "H", "W"])],
        [helper.make_tensor_value_info("distance", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _stage(k: int, before: str) -> list[Any]:
    """Return the nodes of convolution `k` and of its activations' part of the distance."""
    node, pad = helper.make_node, _PADDINGS[k]
    nodes = []
    if k in _POOLED:
        nodes.append(node("MaxPool", [before], [f"pooled{k}"], kernel_shape=[3, 3], strides=[2, 2]))
        before = f"pooled{k}"
    conv = [before, f"conv{k}.weight", f"conv{k}.bias"]
    return [
        *nodes,
        node("Conv", conv, [f"conv{k}"], strides=[_STRIDES[k]] * 2, pads=[pad] * 4),
        node("Relu", [f"conv{k}"], [f"active{k}"]),
        node("ReduceL2", [f"active{k}"], [f"length{k}"], axes=[1], keepdims=1),
        node("Add", [f"length{k}", "little"], [f"divisor{k}"]),
        node("Div", [f"active{k}", f"divisor{k}"], [f"unit{k}"]),
        node("Split", [f"unit{k}"], [f"one{k}", f"other{k}"], axis=0),
        node("Sub", [f"one{k}", f"other{k}"], [f"off{k}"]),
        node("Mul", [f"off{k}", f"off{k}"], [f"square{k}"]),
        node("Conv", [f"square{k}", f"lin{k}.weight"], [f"weighted{k}"]),
        node("ReduceMean", [f"weighted{k}"], [f"part{k}"], keepdims=0),
    ]
