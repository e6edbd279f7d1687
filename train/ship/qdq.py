"""Prepare a float network for int8: select the quantised tensors and equalise their channels.

These rewrites keep the quantisation loss small and are exact before rounding:

- Every channel is scaled so that the channels of a tensor use its common range equally; the factor
  goes into the weights before and after, as ReLU, PReLU, sums and concatenations commute with it.
- Convolutions that read the picture stay float32, and so do the parts of later 1x1 convolutions
  that read such a linear layer: CARN passes the picture itself through its cascades, where 8 bits
  would be visible.
- Concatenated tensors share scale and zero point, so that the concatenation stays int8.

`train.ship.qdq_writer` writes the result with Q/DQ pairs.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from train.errors import TrainError

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]
_PICTURE_CHANNELS: Final = 3
"""Maximum input channels of a convolution that is taken to read the picture; it stays float32."""
_MOVE_OPS: Final = ("Concat", "Split", "DepthToSpace")
_FIXED: Final = 0
"""Class of the channels that must not be scaled: those of the input and output pictures."""
_MAX_FACTOR: Final = 1e4
_MIN_WEIGHT: Final = 1e-3
"""Lower limit for a channel's weight relative to the largest one, 0..1, in `channel_factors`."""


@dataclass(frozen=True, kw_only=True)
class Conv:
    """Convolution node with its weights and bias."""

    node: onnx.NodeProto
    weight: Floats
    """Kernel, [O, I / group, k, k]."""
    bias: Floats
    """Bias, [O]."""
    group: int

    @property
    def stays_float(self) -> bool:
        """Return whether it stays float32."""
        return self.weight.shape[1] * self.group <= _PICTURE_CHANNELS

    def per_group(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Arrange values per input channel [I] like the weights of each output [O, I / group]."""
        outputs = len(self.weight) // self.group
        return values.reshape(self.group, -1).repeat(outputs, axis=0)


@dataclass(frozen=True)
class Quantiser:
    """Quantisation parameters of one or more tensors: uint8 code = round(value / scale) + zero."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Graph:
    """Parsed float network of convolutions, immutable; rewrites return changed copies."""

    model: onnx.ModelProto
    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, npt.NDArray[Any]]
    convs: Mapping[str, Conv]
    """Convolutions by output name."""

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """Return the node that computes each tensor, by tensor name."""
        return {output: node for node in self.nodes for output in node.output}

    def sources(self, tensor: str, through: Sequence[str] = _MOVE_OPS) -> list[str]:
        """Return the tensors whose values `tensor` has, before layers that only move values."""
        node = self.producers.get(tensor)
        if node is None or node.op_type not in through:
            return [tensor]
        parts = node.input if node.op_type == "Concat" else node.input[:1]
        return [source for part in parts for source in self.sources(part, through)]

    def groups(self) -> list[list[str]]:
        """Return the quantised tensors, the sources of all int8 convolutions, grouped by scale."""
        found: list[set[str]] = []
        for conv in self.convs.values():
            if not conv.stays_float:
                together = set(self.sources(conv.node.input[0]))
                for other in [group for group in found if group & together]:
                    found.remove(other)
                    together |= other
                found.append(together)
        return [sorted(group) for group in found]


def parse(model: onnx.ModelProto) -> Graph:
    """Parse a deploy form; raise TrainError if a convolution's weights are not constant.

    Unsupported layers raise it only in `channel_classes`.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convs = {}
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        weight = _constant_input(node, 1, constants)
        has_bias = len(node.input) > 2 and node.input[2]
        bias = _constant_input(node, 2, constants) if has_bias else np.zeros(len(weight), "f4")
        convs[node.output[0]] = Conv(
            node=node, weight=weight, bias=bias, group=attribute(node, "group", 1)
        )
    return Graph(model, tuple(model.graph.node), constants, convs)


def _constant_input(
    node: onnx.NodeProto, index: int, constants: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Return an input of a node that must be an initializer; raise TrainError if it is not."""
    name = node.input[index] if index < len(node.input) else ""
    if name not in constants:
        raise TrainError(
            f"{node.op_type} '{node.output[0]}' cannot be quantised: "
            f"its input {index} ('{name}') is not an initializer"
        )
    return constants[name]


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return the integer attribute `name` of a node, or `default`."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


# exact rewrites of the float network


def with_linear_parts(graph: Graph, without_linear_part: Collection[str] = ()) -> Graph:
    """Split int8 1x1 convolutions: the part that reads a linear layer becomes float32.

    Convolutions in `without_linear_part` are not split.
    conv1x1(concat(entry(x), rest)) = conv1x1'(rest) + (conv1x1'' after entry)(x), where the last
    is one convolution of the picture, `<name>.linear`.
    """
    nodes: list[onnx.NodeProto] = []
    convs = dict(graph.convs)
    for node in graph.nodes:
        conv = graph.convs.get(node.output[0])
        first, *rest = graph.sources(node.input[0], ["Concat"]) if conv else [""]
        linear = graph.convs.get(first)
        pointwise = conv and not conv.stays_float and conv.group == 1 and conv.weight.shape[2] == 1
        name = node.output[0]
        splits = pointwise and linear and linear.stays_float and rest
        if not (conv and linear and splits) or name in without_linear_part:
            nodes.append(node)
            continue
        width = len(linear.weight)
        part = conv.weight[:, :width, 0, 0]
        skip, small = _renamed_copy(linear.node, name, "linear"), _renamed_copy(node, name, "rest")
        concat = []
        small.input[0] = rest[0]
        if len(rest) > 1:
            concat = [helper.make_node("Concat", rest, [f"{name}.parts"], axis=1)]
            small.input[0] = f"{name}.parts"
        convs |= {
            skip.output[0]: replace(
                linear,
                node=skip,
                weight=np.einsum("oc,cikl->oikl", part, linear.weight),
                bias=part @ linear.bias,
            ),
            small.output[0]: replace(conv, node=small, weight=conv.weight[:, width:]),
        }
        del convs[name]
        both = helper.make_node("Add", [small.output[0], skip.output[0]], [name])
        nodes += [*concat, small, skip, both]
    return replace(graph, nodes=_reachable(nodes, graph.model.graph.output[0].name), convs=convs)


def _renamed_copy(node: onnx.NodeProto, name: str, suffix: str) -> onnx.NodeProto:
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    twin.name = twin.output[0] = f"{name}.{suffix}"
    return twin


def _reachable(nodes: Iterable[onnx.NodeProto], result: str) -> tuple[onnx.NodeProto, ...]:
    needed, kept = {result}, []
    for node in reversed(list(nodes)):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    return tuple(reversed(kept))


def scale_channels(graph: Graph, factors: Mapping[str, Floats]) -> Graph:
    """Scale every channel of every tensor by `factors` (from `channel_factors`)."""
    convs = {}
    for name, conv in graph.convs.items():
        out, read = factors[name], conv.per_group(factors[conv.node.input[0]])
        weight = conv.weight * out[:, None, None, None] / read[:, :, None, None]
        convs[name] = replace(conv, weight=weight.astype("f4"), bias=(conv.bias * out).astype("f4"))
    return replace(graph, convs=convs)


def channel_factors(
    graph: Graph, largest: Mapping[str, Floats], exponent: float
) -> dict[str, Floats]:
    """Return a factor per channel of every tensor, equal for channels that must scale together.

    `largest` has the magnitude of each channel of the quantised tensors. With exponent 1, all
    channels then have the same magnitude; a smaller exponent also equalises the weights that read
    them.
    """
    classes = channel_classes(graph)
    count = 1 + max(int(c.max()) for c in classes.values())
    reach, weight = np.zeros(count), np.zeros(count)
    for name, values in largest.items():
        np.maximum.at(reach, classes[name], values)
    for conv in graph.convs.values():
        size = np.abs(conv.weight).max((2, 3))
        share = size / np.maximum(size.max(1, keepdims=True), np.finfo("f4").tiny)
        np.maximum.at(weight, conv.per_group(classes[conv.node.input[0]]), share)
    used = reach > 0
    factor = np.ones(count)
    factor[used] = reach[used] ** -exponent * np.maximum(weight[used], _MIN_WEIGHT) ** (
        1 - exponent
    )
    factor = np.clip(factor, 1 / _MAX_FACTOR, _MAX_FACTOR)
    factor[_FIXED] = 1
    return {name: factor[c].astype("f4") for name, c in classes.items()}


def channel_classes(graph: Graph) -> dict[str, Classes]:
    """Return a class per channel of each tensor; channels of one class must be scaled together.

    Raises TrainError for unsupported layers, and for sums and concatenations with constants.
    """
    parent = [_FIXED]

    def root(i: int) -> int:
        return i if parent[i] == i else root(parent[i])

    def join(one: Classes, other: Classes) -> None:
        for a, b in zip(map(root, one), map(root, other), strict=True):
            parent[max(a, b)] = min(a, b)

    def computed(node: onnx.NodeProto, tensor: str) -> Classes:
        if tensor not in found:
            raise TrainError(
                f"{node.op_type} '{node.output[0]}' cannot be quantised: "
                f"its input '{tensor}' is not the output of a layer"
            )
        return found[tensor]

    found: dict[str, Classes] = {}
    for node in graph.nodes:
        first = found.get(node.input[0] if node.input else "", np.array([_FIXED]))
        name = node.output[0]
        match node.op_type:
            case "Conv":
                conv = graph.convs[name]
                if node.input[0] not in found:
                    found[node.input[0]] = np.full(conv.weight.shape[1] * conv.group, _FIXED)
                found[name] = np.arange(len(parent), len(parent) + len(conv.weight))
                parent.extend(found[name].tolist())
            case "Relu" | "PRelu":
                found[name] = first
            case "Pad":  # of the picture, or of a tensor with classes
                if node.input[0] in found:
                    found[name] = first
            case "Add":
                join(computed(node, node.input[0]), computed(node, node.input[1]))
                found[name] = first
            case "Concat":
                found[name] = np.concatenate([computed(node, part) for part in node.input])
            case "Split":
                ends = np.cumsum(_constant_input(node, 1, graph.constants))[:-1]
                found |= dict(zip(node.output, np.split(first, ends), strict=True))
            case "DepthToSpace":
                shuffled = first.reshape(-1, attribute(node, "blocksize", 1) ** 2)
                found[name] = shuffled[:, 0]
                join(first, found[name].repeat(shuffled.shape[1]))
            case other:
                raise TrainError(f"a network with {other} cannot be quantised")
    result = found[graph.model.graph.output[0].name]
    join(result, np.full_like(result, _FIXED))
    return {name: np.array([root(int(i)) for i in c]) for name, c in found.items()}
