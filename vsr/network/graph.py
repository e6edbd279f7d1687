"""Wraps a network's ONNX into the graph an engine runs: picture planes in, picture planes out.

Inputs `y`, `u`, `v` are the decoder's planes and outputs `y_out`, `u_out`, `v_out` the encoder's,
so range, matrix, chroma resampling, rounding and clipping happen inside the engine and host code
only moves bytes. Everything is convolution, pointwise or DepthToSpace: Resize(cubic) is slow on
every backend. Shapes are fixed when the graph is built, or left free for an engine with a profile.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from vsr.errors import ModelError
from vsr.media.colour import Colour, code_from_rgb, code_scale
from vsr.media.frame import YUV420, PlaneFormat
from vsr.network.onnx_inputs import OPSET, inlinable, sole_input
from vsr.network.resampling import REACH, Array, enlarging_kernel


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """What the wrapper must know of the network inside."""

    scale: int
    colour: str
    """`y`: one channel of full-range luma; `rgb`: three."""
    value_max: float = 1.0
    """The network reads and writes 0..value_max."""


class _Builder:
    """Collects nodes and constants; every helper returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        name = f"const_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def split(self, x: str, parts: int, axis: int) -> list[str]:
        names = [f"split_{len(self.nodes)}_{k}" for k in range(parts)]
        sizes = self.constant([1] * parts, np.int64)
        self.nodes.append(helper.make_node("Split", [x, sizes], names, axis=axis))
        return names

    def pad_edge(self, x: str, top: int, left: int, bottom: int, right: int) -> str:
        if not any((top, left, bottom, right)):
            return x
        pads = self.constant([0, 0, top, left, 0, 0, bottom, right], np.int64)
        return self.node("Pad", x, pads, mode="edge")

    def crop(self, x: str, height: int, width: int) -> str:
        ends = self.constant([height, width], np.int64)
        starts, axes = self.constant([0, 0], np.int64), self.constant([2, 3], np.int64)
        return self.node("Slice", x, starts, ends, axes)

    def convolve(self, x: str, kernel: Array, bias: Array | None = None, **kw: Any) -> str:
        inputs = [x, self.constant(kernel)] + ([] if bias is None else [self.constant(bias)])
        return self.node("Conv", *inputs, **kw)

    def enlarge(
        self, x: str, factor: tuple[int, int], offset: tuple[float, float], planes: int = 1
    ) -> str:
        """Cubic enlargement of each of `planes` channels by (rows, columns), edges repeated."""
        kernel = np.tile(enlarging_kernel(*factor, *offset), (planes, 1, 1, 1))
        y = self.convolve(self.pad_edge(x, *[REACH] * 4), kernel, group=planes)
        return self.interleave(y, *factor)

    def interleave(self, x: str, rows: int, columns: int) -> str:
        """[N, C*rows*columns, H, W] -> [N, C, rows*H, columns*W]."""
        if rows == columns:
            return self.node("DepthToSpace", x, blocksize=rows, mode="CRD") if rows > 1 else x
        raise ModelError(f"chroma enlarged {rows}x{columns} is not supported yet")

    def to_codes(self, x: str, output: str, bits: int) -> None:
        """Round to the nearest code value and leave the graph (Cast alone truncates)."""
        half = self.node("Add", x, self.constant(0.5))
        low, high = self.constant(0.0), self.constant(2.0**bits - 1)
        whole = self.node("Floor", self.node("Clip", half, low, high))
        self.node("Cast", whole, output=output, to=TensorProto.UINT8)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What every part of one graph agrees on."""

    size: tuple[int, int] | None
    """(width, height) in LR luma pixels; None: free, both even."""
    planes: PlaneFormat
    facts: NetworkFacts
    colour: Colour

    @property
    def scale(self) -> int:
        return self.facts.scale

    @property
    def chroma_is_whole(self) -> bool:
        """Whether luma is a whole number of chroma samples, so that nothing is cut or repeated."""
        p = self.planes
        return self.size is None or (self.size[0] % p.chroma_x, self.size[1] % p.chroma_y) == (0, 0)

    def cut_to_luma(self, b: _Builder, x: str) -> str:
        """A plane made of whole chroma samples, cut to the LR luma's size."""
        return x if self.chroma_is_whole or not self.size else b.crop(x, *self.size[::-1])

    def repeat_edge(self, b: _Builder, x: str) -> str:
        """The enlarged picture, grown to whole chroma samples."""
        if self.chroma_is_whole or not self.size:
            return x
        width, height = self.planes.output(*self.size, self.scale)
        down, right = height - self.size[1] * self.scale, width - self.size[0] * self.scale
        return b.pad_edge(x, 0, 0, down, right)

    def cut_to_chroma(self, b: _Builder, x: str) -> str:
        """An enlarged chroma plane, cut to the size that goes with the output's luma."""
        if self.chroma_is_whole or not self.size:
            return x
        width, height = self.planes.chroma(*self.planes.output(*self.size, self.scale))
        return b.crop(x, height, width)

    def chroma_offset(self, factor: int) -> tuple[float, float]:
        """(rows, columns) where the first chroma sample of a `factor` times finer grid lies.

        4:2:0 chroma is centred between rows and on every second column (H.264 default,
        `chroma_sample_loc_type` 0); both grids share the luma's pixel edges.
        """
        p = self.planes
        centred = 0.5 / factor - 0.5
        cosited = (0.5 / factor - 0.5) / p.chroma_x
        return (centred, cosited if p.chroma_x > 1 else centred)


@dataclass(frozen=True, kw_only=True)
class PlaneGraph:
    """A network wrapped for one colour and precision: makes the graph of any picture size."""

    network: onnx.ModelProto
    facts: NetworkFacts
    colour: Colour = field(default_factory=Colour)
    planes: PlaneFormat = YUV420
    precision: str = "fp32"
    """What the network inside is to be computed in; realised by the backend."""
    label: str = "network"
    """Name for people and for files, such as `carn-m-x2`."""

    def onnx(self, size: tuple[int, int] | None, batch: int | None = 1) -> bytes:
        """The serialized planes-to-planes graph for pictures of `size` (width, height).

        Inputs y uint8 [N, 1, H, W], u and v uint8 [N, 1, H/2, W/2] (rounded up); outputs the same
        at `scale` times the size. None leaves the size (which must then be even) or the batch
        free. The network is inlined; its input and output keep their dtype.
        """
        if self.planes != YUV420:
            raise ModelError("only 8-bit 4:2:0 planes are supported yet")
        plan = _Plan(size=size, planes=self.planes, facts=self.facts, colour=self.colour)
        b = _Builder()
        inputs = ("y", "u", "v")
        y, u, v = (b.node("Cast", name, to=TensorProto.FLOAT) for name in inputs)
        uv = b.node("Concat", u, v, axis=1)
        wrap = _wrap_luma if self.facts.colour == "y" else _wrap_rgb
        plain = inlinable(self.network)
        wrap(b, plain, plan, y, uv)
        return _assemble(b, plain, plan, batch).SerializeToString()


def _wrap_luma(b: _Builder, network: onnx.ModelProto, plan: _Plan, y: str, uv: str) -> None:
    """The network on luma, cubic interpolation on chroma."""
    gain, offset = code_scale(plan.colour, plan.planes.bits)
    unit = gain[0] / plan.facts.value_max
    centred = b.node("Sub", y, b.constant(offset[0]))
    luma = _run_network(b, network, b.node("Mul", centred, b.constant(1 / unit)))
    codes = b.node("Add", b.node("Mul", luma, b.constant(unit)), b.constant(offset[0]))
    b.to_codes(plan.repeat_edge(b, codes), "y_out", plan.planes.bits)

    s = plan.scale
    large = b.enlarge(uv, (s, s), plan.chroma_offset(s), planes=2) if s > 1 else uv
    large = plan.cut_to_chroma(b, large)
    for plane, name in zip(b.split(large, 2, 1), ("u_out", "v_out"), strict=True):
        b.to_codes(plane, name, plan.planes.bits)


def _wrap_rgb(b: _Builder, network: onnx.ModelProto, plan: _Plan, y: str, uv: str) -> None:
    """Chroma to luma size, YUV -> RGB, the network, RGB -> YUV, chroma back to its size."""
    p = plan.planes
    matrix, offset = code_from_rgb(plan.colour, p.bits)
    inverse = np.linalg.inv(matrix) * plan.facts.value_max
    # a luma column x lies at chroma column x / 2: on the first of every two
    fine = b.enlarge(uv, (p.chroma_y, p.chroma_x), (0.5 / p.chroma_y - 0.5, 0.0), planes=2)
    yuv = b.node("Concat", y, plan.cut_to_luma(b, fine), axis=1)
    rgb = b.convolve(yuv, inverse[:, :, None, None], -inverse @ offset)

    result = _run_network(b, network, rgb)
    kernel = (matrix / plan.facts.value_max)[:, :, None, None]
    codes = b.convolve(result, kernel, offset)
    y_out, *chroma = b.split(plan.repeat_edge(b, codes), 3, 1)
    b.to_codes(y_out, "y_out", p.bits)
    # rows averaged in pairs, columns [1 2 1]/4 around every second one: same siting as above
    small = np.outer([0.5, 0.5], [0.25, 0.5, 0.25])[None, None]
    for plane, name in zip(chroma, ("u_out", "v_out"), strict=True):
        padded = b.pad_edge(plane, 0, 1, 0, 0)
        coarse = b.convolve(padded, small, strides=[p.chroma_y, p.chroma_x])
        b.to_codes(coarse, name, p.bits)


def _run_network(b: _Builder, network: onnx.ModelProto, x: str) -> str:
    """Inline the network on tensor `x` and return its result, both float32 outside."""
    tensor = sole_input(network)
    wanted = tensor.type.tensor_type.elem_type
    given = network.graph.output[0]
    prefixed = {tensor.name: b.node("Cast", x, to=wanted) if wanted != TensorProto.FLOAT else x}

    def renamed(name: str) -> str:
        return prefixed.get(name, f"net/{name}") if name else ""

    for constant in network.graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(constant)
        copy.name = renamed(constant.name)
        b.constants.append(copy)
    for node in network.graph.node:
        inner = onnx.NodeProto()
        inner.CopyFrom(node)
        inner.name = f"net/{node.name or node.output[0]}"  # TensorRT refuses two of one name
        inner.input[:] = [renamed(name) for name in node.input]
        inner.output[:] = [renamed(name) for name in node.output]
        b.nodes.append(inner)
    result = renamed(given.name)
    if given.type.tensor_type.elem_type != TensorProto.FLOAT:
        result = b.node("Cast", result, to=TensorProto.FLOAT)
    return result


def _assemble(
    b: _Builder, network: onnx.ModelProto, plan: _Plan, batch: int | None
) -> onnx.ModelProto:
    sizes: list[tuple[str, int | str, int | str, int | str, int | str]]
    if plan.size is None:
        sizes = [("", "W", "H", "W/2", "H/2"), ("_out", "sW", "sH", "sW/2", "sH/2")]
    else:
        out = plan.planes.output(*plan.size, plan.scale)
        both = (("", plan.size), ("_out", out))
        sizes = [(suffix, *size, *plan.planes.chroma(*size)) for suffix, size in both]
    tensors = {
        suffix: [
            helper.make_tensor_value_info(name, TensorProto.UINT8, [batch or "N", 1, high, wide])
            for name, wide, high in (
                (f"y{suffix}", width, height),
                (f"u{suffix}", chroma_w, chroma_h),
                (f"v{suffix}", chroma_w, chroma_h),
            )
        ]
        for suffix, width, height, chroma_w, chroma_h in sizes
    }
    graph = helper.make_graph(b.nodes, "planes", tensors[""], tensors["_out"], b.constants)
    model = helper.make_model(graph, opset_imports=list(network.opset_import))
    model.ir_version = max(network.ir_version, 8)
    return model


def bicubic_network(scale: int) -> onnx.ModelProto:
    """Bicubic enlargement (Keys, a = -0.5) as a network on luma: the comparison and fallback."""
    b = _Builder()
    offset = 0.5 / scale - 0.5
    result = b.enlarge("lr", (scale, scale), (offset, offset))
    b.node("Identity", result, output="sr")
    x = helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["N", 1, "H", "W"])
    y = helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["N", 1, "sH", "sW"])
    graph = helper.make_graph(b.nodes, "bicubic", [x], [y], b.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    return model
