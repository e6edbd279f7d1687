"""Write a parsed network as ONNX: in float32, or with Q/DQ pairs and int8 weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from train.ship.qdq import Conv, Floats, Graph, Quantiser

_LEVELS: Final = 127
_NO_QUANTISERS: Final[Mapping[str, Quantiser]] = {}


def to_onnx(
    graph: Graph, quantisers: Mapping[str, Quantiser] = _NO_QUANTISERS, dense: bool = False
) -> onnx.ModelProto:
    """Write the network; with `quantisers`, convolutions get int8 weights and uint8 inputs.

    `dense` writes grouped convolutions as dense ones with zeros between the groups. Weights are
    symmetric (zero point 0) with a scale per output channel, biases float32; activations have one
    scale and zero point per tensor. Inputs and outputs stay float32.
    """
    writer = _Writer(graph, quantisers, dense)
    for node in graph.nodes:
        writer.add(node)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(writer.nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in writer.constants.items()
    )
    onnx.checker.check_model(model)
    return model


@dataclass
class _Writer:
    """Builder that collects the nodes and constants of the ONNX graph."""

    graph: Graph
    quantisers: Mapping[str, Quantiser]
    dense: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    _rounded: set[str] = field(default_factory=set)

    def add(self, node: onnx.NodeProto) -> None:
        """Append a node, preceded by the Q/DQ pairs and weights that its inputs need."""
        new = onnx.NodeProto()
        new.CopyFrom(node)
        conv = self.graph.convs.get(node.output[0])
        for i, name in enumerate(node.input):
            if name in self.quantisers and not self._reads_float(node, name):
                new.input[i] = self._round(name)
            elif name in self.graph.constants and conv is None:
                self.constants[name] = self.graph.constants[name]
        if conv is not None:
            self._weights(new, conv)
        self.nodes.append(new)

    def _reads_float(self, node: onnx.NodeProto, name: str) -> bool:
        """Return whether to read `name` without Q/DQ: a float layer's output that is only added."""
        maker = self.graph.convs.get(name)
        return node.op_type == "Add" and maker is not None and maker.stays_float

    def _round(self, name: str) -> str:
        """Return the tensor after its Q/DQ pair, which is added on first use."""
        if name not in self._rounded:
            self._rounded.add(name)
            quantiser = self.quantisers[name]
            scale, zero = f"{name}.scale", f"{name}.zero"
            self.constants[scale] = np.array(quantiser.scale, np.float32)
            self.constants[zero] = np.array(quantiser.zero, np.uint8)
            self.nodes += [
                helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}.q"]),
                helper.make_node("DequantizeLinear", [f"{name}.q", scale, zero], [f"{name}.dq"]),
            ]
        return f"{name}.dq"

    def _weights(self, node: onnx.NodeProto, conv: Conv) -> None:
        name = node.output[0]
        weight, bias = f"{name}.weight", f"{name}.bias"
        values = _dense(conv) if self.dense else conv.weight
        del node.input[1:]
        if self.quantisers and not conv.stays_float:
            codes, scale = int8_weights(values)
            parts = [weight, f"{weight}.scale", f"{weight}.zero"]
            self.constants |= zip(parts, [codes, scale, np.zeros(len(scale), "i1")], strict=True)
            node.input.append(f"{weight}.dq")
            self.nodes.append(helper.make_node("DequantizeLinear", parts, [f"{weight}.dq"], axis=0))
        else:
            self.constants[weight] = values
            node.input.append(weight)
        self.constants[bias] = conv.bias
        node.input.append(bias)
        others = [a for a in node.attribute if a.name != "group"]
        del node.attribute[:]
        node.attribute.extend(others)
        node.attribute.append(helper.make_attribute("group", 1 if self.dense else conv.group))


def int8_weights(weight: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Return (codes -127..127, scale per output channel); a channel's largest weight is 127."""
    scale = np.abs(weight).max((1, 2, 3)) / _LEVELS
    scale[scale == 0] = 1
    return np.round(weight / scale[:, None, None, None]).astype(np.int8), scale


def _dense(conv: Conv) -> Floats:
    outputs, inputs = len(conv.weight) // conv.group, conv.weight.shape[1]
    wide = np.zeros((len(conv.weight), inputs * conv.group, *conv.weight.shape[2:]), "f4")
    for i in range(conv.group):
        rows = slice(i * outputs, (i + 1) * outputs)
        wide[rows, i * inputs : (i + 1) * inputs] = conv.weight[rows]
    return wide
