"""Converts a network's ONNX to half precision, or to the 8-bit codes of TensorRT."""

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from vsr.errors import ModelError, reason
from vsr.network.onnx_inputs import sole_input
from vsr.network.onnx_tools import (
    Array,
    attribute,
    constants_of,
    copy_network,
    remove_unused_constants,
    set_constants,
)

_HALF_MAX: Final = 65504.0


def biases_as_floats(network: onnx.ModelProto) -> onnx.ModelProto:
    """Convert biases from the 32-bit codes that quantisers write to float."""
    values = constants_of(network)
    biases = {
        node.output[0]: _dequantise(node, values)
        for node in network.graph.node
        if node.op_type == "DequantizeLinear"
        and all(name in values for name in _present_inputs(node))
        if values[node.input[0]].dtype == np.int32
    }
    if not biases:
        return network
    copy = copy_network(network)
    for node in [n for n in copy.graph.node if n.output[0] in biases]:
        copy.graph.node.remove(node)
    set_constants(copy, biases)
    return remove_unused_constants(copy)


def _present_inputs(node: onnx.NodeProto) -> list[str]:
    """Return a node's inputs without empty ones."""
    return [name for name in node.input if name]


def _dequantise(node: onnx.NodeProto, values: dict[str, Array]) -> Array:
    codes, scale, *zero = (values[name] for name in _present_inputs(node))
    shape = _broadcast_shape(node, codes, scale)
    offset = zero[0].reshape(shape) if zero else 0
    numbers = (codes.astype(np.float64) - offset) * scale.reshape(shape).astype(np.float64)
    return numbers.astype(scale.dtype)


def _broadcast_shape(node: onnx.NodeProto, codes: Array, scale: Array) -> list[int]:
    """Return the shape in which this node's scale and zero point broadcast to its codes."""
    shape = [1] * codes.ndim
    if scale.size > 1:
        shape[attribute(node, "axis", 1) if codes.ndim > 1 else 0] = scale.size
    return shape


def to_signed_codes(network: onnx.ModelProto) -> onnx.ModelProto:
    """Convert quantised activations to int8 with zero point 0, the only kind TensorRT reads.

    The new range -128..127 covers the old one: an activation with codes 0..255 for 0..top now has
    0..127, and one with a zero point of 128 is as exact as before. If the zero point is missing, it
    is 0 and uint8 in ONNX; TensorRT would assume int8 and clip the upper half.
    """
    values = constants_of(network)
    codes_of = _Codes(network, values)
    found = [k for k, node in enumerate(network.graph.node) if codes_of.are_uint8(node)]
    if not found:
        return network
    copy, changed = copy_network(network), dict[str, Array]()
    for node in (copy.graph.node[k] for k in found):
        codes, scale, zero = (*node.input, "")[:3]
        step = values[scale]
        offset = values[zero] if zero else np.zeros(step.shape, np.uint8)
        del node.input[1:]
        node.input.extend([f"{scale}/{zero}", f"{scale}/{zero}/zero"])
        changed[node.input[1]] = (step * _step_factor(offset)).astype(step.dtype)
        changed[node.input[2]] = np.zeros(offset.shape, np.int8)
        for given in [a for a in node.attribute if a.name == "output_dtype"]:
            node.attribute.remove(given)  # given by the zero point
        if node.op_type == "DequantizeLinear" and codes in values:  # not an activation
            node.input[0] = name = f"{node.output[0]}/int8"
            shape = _broadcast_shape(node, values[codes], step)
            changed[name] = _to_int8(values[codes], offset.reshape(shape))
    set_constants(copy, changed)
    return remove_unused_constants(copy)


class _Codes:
    """Finds the uint8 quantisers of a network, by their zero points or inputs."""

    def __init__(self, network: onnx.ModelProto, values: dict[str, Array]) -> None:
        self._values = values
        self._producers = {name: node for node in network.graph.node for name in node.output}

    def are_uint8(self, node: onnx.NodeProto) -> bool:
        """Return whether a node quantises to or dequantises from uint8, with a known scale."""
        quantises = node.op_type == "QuantizeLinear"
        if not (quantises or node.op_type == "DequantizeLinear"):
            return False
        codes, scale, zero = (*node.input, "")[:3]
        if scale not in self._values:
            return False
        if zero:
            return zero in self._values and self._values[zero].dtype == np.uint8
        if quantises:
            return attribute(node, "output_dtype", 0) in (0, TensorProto.UINT8)
        return self._is_uint8(codes)

    def _is_uint8(self, name: str) -> bool:
        if name in self._values:
            return self._values[name].dtype == np.uint8
        source = self._producers.get(name)
        if source is None or not source.input:
            return False
        # operators between the two only move the codes, which are their first input
        found = source.op_type == "QuantizeLinear"
        return self.are_uint8(source) if found else self._is_uint8(source.input[0])


def _step_factor(zero: Array) -> Array:
    """Return the factor from uint8's step to the int8 step that covers uint8 with `zero`."""
    below = zero.astype(np.float64)
    return np.maximum(below / 128, (255 - below) / 127)


def _to_int8(codes: Array, zero: Array) -> Array:
    """Convert uint8 codes of weights to int8 with the step of `_step_factor`."""
    return np.rint((codes.astype(np.float64) - zero) / _step_factor(zero)).astype(np.int8)


def to_half(network: onnx.ModelProto) -> onnx.ModelProto:
    """Convert all float32 to float16, input and output too. Raises ModelError for overflow."""
    if sole_input(network).type.tensor_type.elem_type == TensorProto.FLOAT16:
        return network
    # half-precision scales of quantisers came with opset 19
    copy = copy_network(_raise_opset(network, 19) if _is_quantised(network) else network)
    kept = {node.input[2] for node in copy.graph.node if _has_float_scales(node)}
    for constant in copy.graph.initializer:
        if constant.name not in kept:
            _halve(constant)
    for node in copy.graph.node:
        if node.op_type == "Constant" and node.output[0] in kept:
            continue
        _halve_attributes(node)
    for tensor in (*copy.graph.input, *copy.graph.output):
        if tensor.type.tensor_type.elem_type == TensorProto.FLOAT:
            tensor.type.tensor_type.elem_type = TensorProto.FLOAT16
    return copy


def _has_float_scales(node: onnx.NodeProto) -> bool:
    return node.op_type == "Resize" and len(node.input) > 2 and bool(node.input[2])


def _is_quantised(network: onnx.ModelProto) -> bool:
    kinds = ("QuantizeLinear", "DequantizeLinear")  # the latter alone if only weights are
    return any(node.op_type in kinds for node in network.graph.node)


def _raise_opset(network: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Convert to at least that opset; from 18 on, Split and the reductions are rewritten."""
    if all(o.version >= version for o in network.opset_import if o.domain in ("", "ai.onnx")):
        return network
    try:
        return version_converter.convert_version(network, version)
    except Exception as exc:  # the converter raises bare RuntimeError and C++ types
        raise ModelError(
            f"cannot convert the network to ONNX opset {version}: {reason(exc)}"
        ) from exc


def _halve(constant: onnx.TensorProto) -> None:
    if constant.data_type != TensorProto.FLOAT:
        return
    values = numpy_helper.to_array(constant)
    if values.size and float(np.abs(values).max()) > _HALF_MAX:
        raise ModelError("the network's weights are too large for fp16: use fp32")
    constant.CopyFrom(numpy_helper.from_array(values.astype(np.float16), constant.name))


def _halve_attributes(node: onnx.NodeProto) -> None:
    for found in node.attribute:
        if found.type == onnx.AttributeProto.TENSOR:
            _halve(found.t)
        elif node.op_type == "Cast" and found.name == "to" and found.i == TensorProto.FLOAT:
            found.i = TensorProto.FLOAT16
        elif node.op_type == "Constant" and found.name in ("value_float", "value_floats"):
            values = list(found.floats) if found.name == "value_floats" else found.f
            tensor = numpy_helper.from_array(np.asarray(values, np.float32))
            _halve(tensor)
            node.attribute.remove(found)
            node.attribute.append(helper.make_attribute("value", tensor))
            return
