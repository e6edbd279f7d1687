"""Reads and changes constants and attributes of ONNX networks, for the rewrites."""

from typing import Any

import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from vsr.network.onnx_inputs import sole_input

Array = npt.NDArray[Any]


def copy_network(network: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a network without the types of intermediate values, which changes would invalidate."""
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    del copy.graph.value_info[:]  # shapes and types change
    del copy.graph.input[:]
    copy.graph.input.extend([sole_input(network)])  # old exporters list the weights as well
    copy.ir_version = max(copy.ir_version, 4)  # below 4 they must be listed
    return copy


def constants_of(network: onnx.ModelProto) -> dict[str, Array]:
    """Return initializers by name, and Constant nodes, which some exporters write instead."""
    found = {c.name: numpy_helper.to_array(c) for c in network.graph.initializer}
    for node in network.graph.node:
        value = attribute(node, "value") if node.op_type == "Constant" else None
        if value is not None:
            found[node.output[0]] = numpy_helper.to_array(value)
    return found


def set_constants(network: onnx.ModelProto, values: dict[str, Array]) -> None:
    """Replace or add initializers."""
    added = dict(values)
    for constant in network.graph.initializer:
        if constant.name in added:
            constant.CopyFrom(numpy_helper.from_array(added.pop(constant.name), constant.name))
    network.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in added.items())


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute, or `default` if it has none."""
    for found in node.attribute:
        if found.name == name:
            return helper.get_attribute_value(found)
    return default


def remove_unused_constants(network: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the constants that nothing reads; return the same network."""
    graph = network.graph
    used = {name for node in graph.node for name in node.input}
    for constant in [c for c in graph.initializer if c.name not in used]:
        graph.initializer.remove(constant)
    for node in [n for n in graph.node if n.op_type == "Constant" and n.output[0] not in used]:
        graph.node.remove(node)
    return network
