"""Puts our fused residual-E kernel into TensorRT engines, as an ahead-of-time plugin.

**Off by default**: `vsr` uses it only with `--fused`, because the kernel was never timed against
TensorRT's on a real GPU; it stays only if it is faster there (`bench/kernels.py`). Plugins exist in
TensorRT (`tensorrt.plugin`), not in TensorRT-RTX. The PTX becomes part of the engine, so that an
engine needs neither Python nor this module at run time.

    register(arch=86)                          # once, before the network is parsed
    network, blocks = fuse_residual_e(network)
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vsr.errors import BackendError, reason
from vsr.inference.kernels import compile_kernel, pack_residual_e
from vsr.inference.kernels.layout import CHANNELS, GROUPS, RESIDUAL_E_TILE, THREADS

NAMESPACE: Final = "vsr"
NAME: Final = "residual_e"
"""Name of the plugin, of its ONNX node and of the kernel."""
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """One residual-E block: its nodes in order, and the name of its input tensor."""

    nodes: Sequence[onnx.NodeProto]
    source: str

    @property
    def convolutions(self) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type == "Conv"]

    @property
    def result(self) -> str:
        return str(self.nodes[-1].output[0])


class _GraphIndex:
    """Looks up the constants of a graph and the nodes that read each tensor."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {constant.name: constant for constant in graph.initializer}
        self._outputs = {tensor.name for tensor in graph.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def sole_reader(self, node: onnx.NodeProto, op: str) -> onnx.NodeProto | None:
        """Return the only reader of this node's result if it is an `op`, else None."""
        name = node.output[0]
        readers = self._readers.get(name, [])
        alone = len(readers) == 1 and name not in self._outputs
        return readers[0] if alone and readers[0].op_type == op else None

    def is_convolution(self, node: onnx.NodeProto, side: int, groups: int) -> bool:
        """Return whether a node is a plain convolution on 64 channels with constant weights."""
        if node.op_type != "Conv" or any(i not in self.constants for i in node.input[1:] if i):
            return False
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        padded = attributes.get("pads", [0] * 4) == [side // 2] * 4
        plain = all(attributes.get(key, [1, 1]) == [1, 1] for key in ("strides", "dilations"))
        weight = list(self.constants[node.input[1]].dims)
        shaped = weight == [CHANNELS, CHANNELS // groups, side, side]
        automatic = attributes.get("auto_pad", b"NOTSET") != b"NOTSET"
        is_group = attributes.get("group", 1) == groups
        return padded and plain and shaped and not automatic and is_group

    def weights(self, node: onnx.NodeProto) -> tuple[Any, Any]:
        """Return (weight, bias) of a convolution; a missing bias is zeros."""
        names = [name for name in node.input[1:] if name]
        arrays = [numpy_helper.to_array(self.constants[name]) for name in names]
        return arrays[0], arrays[1] if len(arrays) > 1 else np.zeros(CHANNELS, np.float32)

    def block(self, first: onnx.NodeProto) -> _Block | None:
        """Return the residual-E block that begins with this node, or None."""
        if not self.is_convolution(first, 3, GROUPS):
            return None
        nodes, source = [first], first.input[0]
        for op in ("Relu", "Conv", "Relu", "Conv", "Add", "Relu"):
            node = self.sole_reader(nodes[-1], op)
            if node is None or (op == "Conv" and nodes[-1].output[0] != node.input[0]):
                return None
            nodes.append(node)
        second, point, add = nodes[2], nodes[4], nodes[5]
        is_block = self.is_convolution(second, 3, GROUPS) and self.is_convolution(point, 1, 1)
        if not is_block or sorted(add.input) != sorted([point.output[0], source]):
            return None
        return _Block(nodes=nodes, source=source)


def fuse_residual_e(network: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return a copy with every residual-E block replaced by a plugin node, and their number.

    For float16 and float32 networks; the plugin computes in float16, so a float32 one gets a Cast
    on both sides. Blocks that share weights share the packed ones. Unused constants are removed.
    Does not change `network` and does not need TensorRT.
    """
    fused = onnx.ModelProto()
    fused.CopyFrom(network)
    graph = fused.graph
    reader = _GraphIndex(graph)
    blocks = [block for block in map(reader.block, graph.node) if block is not None]
    last = {block.result: block for block in blocks}
    inside = {node.output[0] for block in blocks for node in block.nodes}

    nodes: list[onnx.NodeProto] = []
    packed: dict[tuple[str, ...], list[onnx.TensorProto]] = {}
    for node in graph.node:
        if node.output[0] in last:
            nodes += _plugin_nodes(reader, last[node.output[0]], packed)
        elif node.output[0] not in inside:
            nodes.append(node)
    read = {name for node in nodes for name in node.input} | {t.name for t in graph.output}
    constants = [c for c in graph.initializer if c.name in read]
    _replace(graph.node, nodes)
    _replace(graph.initializer, constants + [c for pair in packed.values() for c in pair])
    _replace(graph.value_info, [v for v in graph.value_info if v.name in read])
    return fused, len(blocks)


def _replace(field: Any, values: list[Any]) -> None:
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(copies)


def _plugin_nodes(
    reader: _GraphIndex, block: _Block, packed: dict[tuple[str, ...], list[onnx.TensorProto]]
) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that replace a block; its weights are added to `packed` once."""
    convolutions = block.convolutions
    key = tuple(name for node in convolutions for name in node.input[1:])
    if key not in packed:
        weights, bias = pack_residual_e(*(reader.weights(node) for node in convolutions))
        prefix = f"{NAME}_{len(packed)}"
        packed[key] = [
            numpy_helper.from_array(weights, f"{prefix}.weights"),
            numpy_helper.from_array(bias, f"{prefix}.bias"),
        ]
    half = reader.constants[convolutions[0].input[1]].data_type == TensorProto.FLOAT16
    source, result = block.source, block.result
    if not half:
        source, result = f"{block.result}.in", f"{block.result}.out"
        yield helper.make_node("Cast", [block.source], [source], to=TensorProto.FLOAT16)
    # TensorRT's parser looks for a plugin of the op's name and ignores the ONNX domain
    yield helper.make_node(
        NAME, [source, *(c.name for c in packed[key])], [result], name=f"{NAME}/{block.result}",
        plugin_namespace=NAMESPACE, plugin_version="1", aot=1,
    )  # fmt: skip
    if not half:
        yield helper.make_node("Cast", [result], [block.result], to=TensorProto.FLOAT)


def register(arch: int) -> None:
    """Register the plugin with TensorRT in this process; a second call does nothing.

    `arch` is ten times the compute capability of the GPU that engines are built for. The plugin
    takes x float16 [N, 64, H, W] in HWC8 format, weights float16 [22528] and bias float32 [192].
    Raises BackendError if TensorRT's plugins or NVRTC are missing. Requires TensorRT 10.13.
    """
    trtp = _plugins()
    log.warning("the fused residual-E kernel is experimental: not yet timed against TensorRT's")
    if hasattr(getattr(trtp.op, NAMESPACE, None), NAME):
        return
    ptx = compile_kernel(NAME, arch, "ptx").decode().rstrip("\0")
    plugin = f"{NAMESPACE}::{NAME}"
    tensor = trtp.TensorDesc

    def describe(x: Any, weights: Any, bias: Any) -> Any:
        return x.like()

    def formats(x: Any, weights: Any, bias: Any, outputs: Any) -> Any:
        kinds, layouts = "FP16, FP16, FP32, FP16", "HWC8, LINEAR, LINEAR, HWC8"
        return [trtp.AutoTuneCombination(kinds, layouts)]

    def launch(x: Any, weights: Any, bias: Any, outputs: Any, tactic: Any) -> Any:
        batch, _, height, width = x.shape_expr
        tile_width, tile_height = RESIDUAL_E_TILE
        blocks = trtp.KernelLaunchParams(
            grid_x=trtp.cdiv(width, tile_width), grid_y=trtp.cdiv(height, tile_height),
            grid_z=batch, block_x=THREADS,
        )  # fmt: skip
        return NAME, ptx, blocks, trtp.SymIntExprs.from_tuple((height, width))

    # TensorRT reads the annotations; its types are imported only above
    describe.__annotations__ = dict.fromkeys(("x", "weights", "bias", "return"), tensor)
    formats.__annotations__ = {"return": GenericAlias(list, (trtp.AutoTuneCombination,))}
    launch_types = (str, str, trtp.KernelLaunchParams, trtp.SymIntExprs)
    launch.__annotations__ = {"return": GenericAlias(tuple, launch_types)}
    trtp.register(plugin)(describe)
    trtp.autotune(plugin)(formats)
    trtp.aot_impl(plugin)(launch)


def _plugins() -> Any:
    try:
        import tensorrt.plugin as trtp

        trtp.KernelLaunchParams  # noqa: B018  absent where plugins run in Python only
    except (ImportError, AttributeError, OSError) as exc:
        hint = "pip install tensorrt --extra-index-url https://pypi.nvidia.com (not tensorrt-rtx)"
        raise BackendError(f"TensorRT's plugins cannot be loaded ({reason(exc)}): {hint}") from exc
    return trtp
