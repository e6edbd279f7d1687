"""Rewrites a network's ONNX into an equivalent one that is faster on a GPU.

Each rewrite takes a flat network (`vsr.network.onnx_inputs.flatten`) and returns a new one; those
of `vsr.network.rewrite.rounding` round, the others are exact up to the order of sums. Rewrites that
are possible at export (the exit convolution under the pixel shuffle, merged 1x1 convolutions, the
bicubic skip as a convolution, mean shifts in biases) are already in the file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import helper

from vsr.network.onnx_inputs import flatten
from vsr.network.onnx_tools import (
    Array,
    attribute,
    constants_of,
    copy_network,
    remove_unused_constants,
    set_constants,
)
from vsr.network.rewrite.rounding import biases_as_floats, to_half, to_signed_codes

ALIGNMENT: Final = 8
"""Number of half-precision channels a Tensor Core takes at once (TensorRT guide, Tensor Cores)."""
_CHANNELWISE: Final = frozenset({"Relu", "LeakyRelu", "PRelu", "Tanh"})
"""Operators that do not mix channels and map 0 to 0, so that padding channels stay 0."""


@dataclass(frozen=True)
class Rewritten:
    """A rewritten network, and descriptions of the rewrites."""

    network: onnx.ModelProto
    notes: tuple[str, ...]


def for_tensorrt(network: onnx.ModelProto, precision: str) -> Rewritten:
    """Apply all rewrites for TensorRT and TensorRT-RTX, in the required order."""
    result, notes = flatten(network), []
    steps: list[tuple[str, Callable[[onnx.ModelProto], onnx.ModelProto]]] = [
        (f"channels padded to a multiple of {ALIGNMENT}", pad_channels),
        ("PReLU as two ReLUs, which fuse into the convolution", prelu_as_relus),
    ]
    if precision == "int8":
        steps.append(("quantised biases as floats, as TensorRT needs them", biases_as_floats))
        steps.append(("8-bit activations made symmetric, as TensorRT needs them", to_signed_codes))
    if precision in ("fp16", "int8"):
        steps.append(("weights and activations in half precision", to_half))
    for note, step in steps:
        after = step(result)
        if after is not result:
            notes.append(note)
        result = after
    return Rewritten(result, tuple(notes))


def prelu_as_relus(network: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite PReLU(x) as ReLU(x) - a ReLU(-x), which TensorRT-RTX fuses into a convolution."""
    if not any(node.op_type == "PRelu" for node in network.graph.node):
        return network
    copy = copy_network(network)
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        if node.op_type != "PRelu":
            nodes.append(node)
            continue
        x, slope = node.input
        name = node.output[0]
        parts = [
            ("Relu", [x], f"{name}/above"),
            ("Neg", [x], f"{name}/turned"),
            ("Relu", [f"{name}/turned"], f"{name}/below"),
            ("Mul", [f"{name}/below", slope], f"{name}/scaled"),
            ("Sub", [f"{name}/above", f"{name}/scaled"], name),
        ]
        nodes += [helper.make_node(op, ins, [out], name=out) for op, ins, out in parts]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def make_dense(network: onnx.ModelProto) -> onnx.ModelProto:
    """Make grouped convolutions dense, with block-diagonal weights: faster on some GPUs."""
    weights = constants_of(network)
    grouped = [
        node
        for node in network.graph.node
        if node.op_type == "Conv" and attribute(node, "group", 1) > 1 and node.input[1] in weights
    ]
    if not grouped:
        return network
    copy = copy_network(network)
    changed: dict[str, Array] = {}
    for node in copy.graph.node:
        groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
        if groups == 1 or node.input[1] not in weights:
            continue
        name = f"{node.input[1]}/dense{groups}"
        changed[name] = _block_diagonal(weights[node.input[1]], groups)
        node.input[1] = name
        next(a for a in node.attribute if a.name == "group").i = 1
    set_constants(copy, changed)
    return remove_unused_constants(copy)


def _block_diagonal(weight: Array, groups: int) -> Array:
    out, inner = weight.shape[:2]
    result = np.zeros((out, inner * groups, *weight.shape[2:]), weight.dtype)
    step = out // groups
    for g in range(groups):
        rows = slice(g * step, (g + 1) * step)
        result[rows, g * inner : (g + 1) * inner] = weight[rows]
    return result


def pad_channels(network: onnx.ModelProto, multiple: int = ALIGNMENT) -> onnx.ModelProto:
    """Add zero filters so that inner convolutions have a multiple of `multiple` channels.

    Otherwise TensorRT-RTX copies channels into an aligned tensor. A tensor is padded only if all
    its readers are dense convolutions, activations or Concats of channels, which get the matching
    zero weights; other tensors are left unchanged.
    """
    weights = constants_of(network)
    places = _Padding(network, weights, multiple).places()
    if all(len(where) == total for where, total in places.values()):
        return network
    copy, changed = copy_network(network), dict[str, Array]()
    for node in copy.graph.node:
        if node.op_type == "Conv":
            changed |= _pad_conv(node, weights, places)
        elif node.op_type == "PRelu" and node.output[0] in places:
            where, total = places[node.output[0]]
            slope = weights[node.input[1]]
            if slope.size > 1:
                grown = np.zeros((total, 1, 1), slope.dtype)
                grown[where] = slope.reshape(-1, 1, 1)
                node.input[1] = name = f"{node.output[0]}/slope"
                changed[name] = grown
    set_constants(copy, changed)
    return remove_unused_constants(copy)


Places = dict[str, tuple[Array, int]]
"""Tensor -> (indexes of its original channels, number of channels including padding)."""


def _pad_conv(node: onnx.NodeProto, weights: dict[str, Array], places: Places) -> dict[str, Array]:
    """Give a convolution padded weights; return them by name."""
    source, out = places.get(node.input[0]), places.get(node.output[0])
    if source is None and out is None:
        return {}
    weight = weights[node.input[1]]
    rows, high = out or (np.arange(weight.shape[0]), weight.shape[0])
    columns, wide = source or (np.arange(weight.shape[1]), weight.shape[1])
    grown = np.zeros((high, wide, *weight.shape[2:]), weight.dtype)
    grown[np.ix_(rows, columns)] = weight
    name = f"{node.output[0]}/weight"
    node.input[1], changed = name, {name: grown}
    if len(node.input) > 2:
        bias = np.zeros(high, weight.dtype)
        bias[rows] = weights[node.input[2]]
        node.input[2] = f"{node.output[0]}/bias"
        changed[node.input[2]] = bias
    return changed


class _Padding:
    """Finds the tensors that can be padded, and the indexes of their original channels."""

    def __init__(self, network: onnx.ModelProto, weights: dict[str, Array], multiple: int) -> None:
        self._nodes, self._weights, self._multiple = network.graph.node, weights, multiple
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {tensor.name for tensor in network.graph.output}

    def places(self) -> Places:
        paddable = self._paddable()
        found: Places = {}
        for node in self._nodes:
            name = node.output[0]
            if name not in paddable:
                continue
            if node.op_type == "Conv":
                channels = self._weights[node.input[1]].shape[0]
                total = -(-channels // self._multiple) * self._multiple
                found[name] = (np.arange(channels), total)
            elif node.op_type == "Concat":
                parts = [found[x] for x in node.input]
                starts = np.cumsum([0, *(total for _, total in parts)])
                joined = [where + s for (where, _), s in zip(parts, starts, strict=False)]
                found[name] = (np.concatenate(joined), int(starts[-1]))
            else:
                found[name] = found[node.input[0]]
        return found

    def _paddable(self) -> set[str]:
        """Find the outputs that may be padded, by removing those that a reader prevents."""
        paddable = {n.output[0] for n in self._nodes if self._can_be_padded(n)} - self._outputs
        while True:
            makers = (node for node in self._nodes if node.output[0] in paddable)
            remaining = {node.output[0] for node in makers if self._can_stay_padded(node, paddable)}
            if remaining == paddable:
                return paddable
            paddable = remaining

    def _can_be_padded(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Conv":
            # fewer channels are a picture's colours, which the library pads itself
            is_dense = self._is_dense_conv(node)
            return is_dense and self._weights[node.input[1]].shape[0] >= self._multiple
        if node.op_type == "Concat":
            return attribute(node, "axis") == 1
        known = all(name in self._weights for name in node.input[1:])
        slopes = [self._weights[name] for name in node.input[1:]] if known else []
        by_channel = all(s.size in (1, *s.shape[-3:-2]) for s in slopes)
        return node.op_type in _CHANNELWISE and known and by_channel

    def _can_stay_padded(self, node: onnx.NodeProto, paddable: set[str]) -> bool:
        sources = list(node.input) if node.op_type == "Concat" else [node.input[0]]
        if node.op_type != "Conv" and not all(name in paddable for name in sources):
            return False
        readers = self._readers.get(node.output[0], [])
        return all(self._reader_accepts(reader, paddable) for reader in readers)

    def _reader_accepts(self, reader: onnx.NodeProto, paddable: set[str]) -> bool:
        """Return whether a reader accepts padding: a convolution drops it, others pass it on."""
        if reader.op_type == "Conv":
            return self._is_dense_conv(reader)
        return reader.output[0] in paddable

    def _is_dense_conv(self, node: onnx.NodeProto) -> bool:
        known = all(name in self._weights for name in node.input[1:])
        return node.op_type == "Conv" and known and attribute(node, "group", 1) == 1
