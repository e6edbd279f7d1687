"""Rewrites a float network's ONNX into an equivalent one that is faster in OpenVINO on a CPU.

OpenVINO 2026.4 computes fp32 convolutions there with channels last, and so
- does not fuse a bias shared by several convolutions (recursive blocks): each gets a copy;
- copies for every Concat of channels: a 1x1 convolution of a Concat becomes a sum of 1x1
  convolutions, which accumulate in place;
- has no fast kernel for groups: each group becomes a convolution, and chains of grouped
  convolutions stay split from end to end. 4 groups of 16 took 13.6 ms split, 31 ms grouped.

Exact up to the order of sums. Takes a flat network (`vsr.network.onnx_inputs.flatten`) and
returns a new one. Networks with Q/DQ are left alone: their weights are no constants.
"""

from collections import Counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from vsr.network.onnx_tools import attribute

Array = npt.NDArray[Any]

_MAX_GROUPS: Final = 8
_MIN_GROUP_CHANNELS: Final = 8
"""Minimum channels per group to split: narrower groups, down to depthwise, have fast kernels."""
_MAX_SUMMED_CHANNELS: Final = 32
"""Maximum output channels of a convolution that sums over split groups instead of joining them."""


def for_cpu(network: onnx.ModelProto) -> onnx.ModelProto:
    """Apply all rewrites of this module to a copy of the network."""
    return _Rewriter(network).result()


class _Rewriter:
    """Reads the nodes once, in order, and writes new ones."""

    def __init__(self, network: onnx.ModelProto) -> None:
        self._network = network
        graph = network.graph
        self._constants = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
        self._producers = {name: node for node in graph.node for name in node.output}
        self._outputs = {tensor.name for tensor in graph.output}
        self._biases = Counter(
            n.input[2] for n in graph.node if n.op_type == "Conv" and n.input[2:]
        )
        self._new_constants: dict[str, Array] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._groups: dict[str, list[str]] = {}
        """Tensor -> names of separate tensors that hold its groups of channels."""
        self._joined = {c.name for c in graph.initializer} | {t.name for t in graph.input}
        """Names of tensors that exist in one piece."""

    def result(self) -> onnx.ModelProto:
        for node in self._network.graph.node:
            if node.op_type == "Conv" and self._has_constant_weights(node):
                self._add_conv(node)
            elif node.op_type == "Relu" and node.input[0] in self._groups:
                self._add_relu(node)
            elif node.op_type == "Concat" and not self._concat_needed(node):
                continue
            else:
                for name in node.input:
                    self._join(name)
                self._add(node)
        for name in self._outputs:
            self._join(name)
        return self._assemble()

    def _has_constant_weights(self, node: onnx.NodeProto) -> bool:
        return all(name in self._constants for name in node.input[1:])

    def _add(self, node: onnx.NodeProto) -> None:
        self._nodes.append(node)
        self._joined.update(node.output)

    def _join(self, name: str) -> None:
        """Concatenate a tensor that exists in parts only."""
        if name in self._groups and name not in self._joined:
            self._add(helper.make_node("Concat", self._groups[name], [name], name=name, axis=1))

    def _constant(self, name: str, value: Array) -> str:
        self._new_constants[name] = np.ascontiguousarray(value)
        return name

    def _add_conv(self, node: onnx.NodeProto) -> None:
        groups = attribute(node, "group", 1)
        width = self._constants[node.input[1]].shape[1]
        if 1 < groups <= _MAX_GROUPS and width >= _MIN_GROUP_CHANNELS:
            self._add_grouped(node)
        elif parts := self._separate_inputs(node):
            self._add_sum(node, parts)
        else:
            self._join(node.input[0])
            copy = _copy_node(node)
            if len(copy.input) > 2 and self._biases[copy.input[2]] > 1:
                name = f"{node.output[0]}/bias"
                copy.input[2] = self._constant(name, self._constants[node.input[2]])
            self._add(copy)

    def _add_grouped(self, node: onnx.NodeProto) -> None:
        groups, y = attribute(node, "group", 1), node.output[0]
        weights = np.split(self._constants[node.input[1]], groups)
        biases = [np.split(self._constants[name], groups) for name in node.input[2:]]
        for k, x in enumerate(self._split(node.input[0], groups, weights[0].shape[1])):
            copy = _copy_node(node, f"{y}/{k}", group=1)
            inputs = [x, self._constant(f"{node.input[1]}/{k}", weights[k])]
            inputs += [self._constant(f"{y}/{k}/bias", bias[k]) for bias in biases]
            copy.input[:] = inputs
            self._nodes.append(copy)
        self._groups[y] = [f"{y}/{k}" for k in range(groups)]

    def _split(self, x: str, groups: int, width: int) -> list[str]:
        if len(self._groups.get(x, ())) != groups:
            self._join(x)
            own = f"{x}/split {len(self._nodes)}"  # it may be split more than once
            self._groups[x] = [f"{own}/{k}" for k in range(groups)]
            sizes = self._constant(f"{own}/sizes", np.full(groups, width, np.int64))
            names = self._groups[x]
            self._nodes.append(helper.make_node("Split", [x, sizes], names, name=names[0], axis=1))
        return self._groups[x]

    def _add_relu(self, node: onnx.NodeProto) -> None:
        if node.input[0] in self._joined:
            self._add(node)
            return
        y = node.output[0]
        self._groups[y] = [f"{y}/{k}" for k in range(len(self._groups[node.input[0]]))]
        for source, target in zip(self._groups[node.input[0]], self._groups[y], strict=True):
            self._nodes.append(helper.make_node("Relu", [source], [target], name=target))

    def _concat_needed(self, node: onnx.NodeProto) -> bool:
        """Return whether a Concat's result is needed: a reader cannot read its parts instead."""
        if attribute(node, "axis") != 1 or self._channels(node.output[0]) is None:
            return True
        readers = [n for n in self._network.graph.node if node.output[0] in n.input]
        for reader in readers:
            if reader.op_type == "Concat" and not self._concat_needed(reader):
                continue
            if reader.op_type != "Conv" or not self._separate_inputs(reader):
                return True
        return node.output[0] in self._outputs

    def _separate_inputs(self, node: onnx.NodeProto) -> list[str]:
        """Return the parts that a convolution can read one by one; empty if there are none."""
        if attribute(node, "group", 1) > 1 or not self._has_constant_weights(node):
            return []
        x, weight = node.input[0], self._constants[node.input[1]]
        if x in self._groups and x not in self._joined and weight.shape[0] <= _MAX_SUMMED_CHANNELS:
            return self._groups[x]
        source = self._producers.get(x)
        if source is None or source.op_type != "Concat" or weight.shape[2:] != (1, 1):
            return []
        return self._concat_inputs(x) if self._channels(x) == weight.shape[1] else []

    def _concat_inputs(self, x: str) -> list[str]:
        source = self._producers.get(x)
        if source is None or source.op_type != "Concat" or attribute(source, "axis") != 1:
            return [x]
        return [part for name in source.input for part in self._concat_inputs(name)]

    def _channels(self, x: str) -> int | None:
        """Return a tensor's number of channels, or None if it does not follow from weights."""
        source = self._producers.get(x)
        op = source.op_type if source is not None else ""
        found: int | None = None
        if source is None:
            return None
        if op == "Conv" and source.input[1] in self._constants:
            found = int(self._constants[source.input[1]].shape[0])
        elif op in ("Relu", "PRelu", "LeakyRelu"):
            found = self._channels(source.input[0])
        elif op == "Add":
            counts = {self._channels(name) for name in source.input}
            found = counts.pop() if len(counts) == 1 else None  # else one may be broadcast
        elif op == "Split" and self._splits_channels(source):
            found = int(self._constants[source.input[1]][list(source.output).index(x)])
        elif op == "Concat" and attribute(source, "axis") == 1:
            widths = [self._channels(name) for name in source.input]
            found = None if None in widths else sum(w for w in widths if w)
        return found

    def _splits_channels(self, node: onnx.NodeProto) -> bool:
        known = node.input[1:] and node.input[1] in self._constants
        return bool(known) and attribute(node, "axis", 0) == 1

    def _add_sum(self, node: onnx.NodeProto, parts: list[str]) -> None:
        weight, y = self._constants[node.input[1]], node.output[0]
        total, start, last = "", 0, len(parts) - 1
        for k, part in enumerate(parts):
            self._join(part)
            width = self._channels(part) or weight.shape[1] // len(parts)
            copy = _copy_node(node, f"{y}/part {k}" if last else y)  # a Concat may have one input
            columns = weight[:, start : start + width]
            copy.input[:] = [part, self._constant(f"{y}/part {k}/weight", columns)]
            if k == 0 and len(node.input) > 2:
                copy.input.append(self._constant(f"{y}/bias", self._constants[node.input[2]]))
            self._nodes.append(copy)
            start += width
            if k:
                name = y if k == last else f"{y}/to {k}"
                add = helper.make_node("Add", [total, copy.output[0]], [name], name=name)
                self._nodes.append(add)
            total = name if k else copy.output[0]
        self._joined.add(y)

    def _assemble(self) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(self._network)
        graph = copy.graph
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [c for c in self._network.graph.initializer if c.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        graph.initializer.extend(
            numpy_helper.from_array(v, n) for n, v in self._new_constants.items()
        )
        return copy


def _copy_node(node: onnx.NodeProto, output: str = "", **attributes: int) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if output:
        copy.output[:] = [output]
        copy.name = output
    for found in copy.attribute:
        if found.name in attributes:
            found.i = attributes[found.name]
    return copy
