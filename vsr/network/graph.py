"""Wraps a network's ONNX into the graph an engine runs: picture planes in, picture planes out.

Inputs `y`, `u`, `v` are the decoder's planes and outputs `y_out`, `u_out`, `v_out` the encoder's,
so range, matrix, chroma resampling, rounding and clipping happen inside the engine and host code
only moves bytes. Everything is convolution, pointwise or DepthToSpace: Resize(cubic) is slow on
every backend. Shapes are fixed when the graph is built, or left free for an engine with a profile.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from vsr.errors import ModelError
from vsr.media.colour import RGB, Colour, code_from_rgb, code_scale
from vsr.media.plane_format import YUV420, PlaneFormat
from vsr.network.nodes import NodeBuilder
from vsr.network.onnx_inputs import OPSET, flatten, sole_input

_SUPPORTED_CHROMA: Final = frozenset({(1, 1), (2, 1), (2, 2)})
"""Supported (luma columns, luma rows) per chroma sample."""
_CHROMA_AVERAGES: Final = {
    0.0: (-1, (0.25, 0.5, 0.25)), 0.5: (0, (0.5, 0.5)), 1.0: (0, (0.25, 0.5, 0.25)),
}  # fmt: skip
"""Position of the first chroma sample along an axis, in luma samples -> index of the first luma
sample averaged into it and the weights from there on, for two luma samples per chroma sample."""
_LUMA_OF_RGB: Final = Colour(matrix=6, full_range=True)
"""The luma that networks on luma are trained on: BT.601's, in full range."""


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """Facts about a network that are needed to wrap it."""

    scale: int
    colour: str
    """Channels of the network: `y`, one of full-range luma, or `rgb`, three."""
    value_max: float = 1.0
    """Upper end of the range 0..value_max that the network reads and writes."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Size, formats and network facts of one graph."""

    size: tuple[int, int] | None
    """(width, height) in LR luma pixels; None if free, then both are even."""
    planes: PlaneFormat
    facts: NetworkFacts
    colour: Colour

    @property
    def scale(self) -> int:
        return self.facts.scale

    @property
    def chroma_is_whole(self) -> bool:
        """Whether luma is a whole number of chroma samples, so that no crop or padding happens."""
        p = self.planes
        return self.size is None or (self.size[0] % p.chroma_x, self.size[1] % p.chroma_y) == (0, 0)

    def crop_to_luma(self, b: NodeBuilder, x: str) -> str:
        """Crop a plane made of whole chroma samples to the LR luma's size."""
        return x if self.chroma_is_whole or not self.size else b.crop(x, *self.size[::-1])

    def pad_to_chroma(self, b: NodeBuilder, x: str) -> str:
        """Repeat the edges of the enlarged picture up to whole chroma samples."""
        if self.chroma_is_whole or not self.size:
            return x
        width, height = self.planes.output(*self.size, self.scale)
        down, right = height - self.size[1] * self.scale, width - self.size[0] * self.scale
        return b.pad_edge(x, 0, 0, down, right)

    def crop_to_chroma(self, b: NodeBuilder, x: str) -> str:
        """Crop an enlarged chroma plane to the size that matches the output's luma."""
        if self.chroma_is_whole or not self.size:
            return x
        width, height = self.planes.chroma(*self.planes.output(*self.size, self.scale))
        return b.crop(x, height, width)

    def chroma_offset(self, factor: int) -> tuple[float, float]:
        """Return (row, column) of the first sample of a `factor` times finer chroma grid.

        In samples of the coarser grid. Each grid has the same siting relative to its luma, and both
        lumas share their pixel edges.
        """
        p = self.planes
        x, y = p.chroma_place
        # 4:2:0 as in H.264 by default: centred between rows, on every second column
        rows, columns = (
            ((place + 0.5) / factor - 0.5 - place) / step
            for place, step in ((y, p.chroma_y), (x, p.chroma_x))
        )
        return rows, columns

    def chroma_to_luma(self, b: NodeBuilder, uv: str) -> str:
        """Enlarge chroma to luma size: luma column x is chroma position (x - place) / step."""
        p = self.planes
        x, y = p.chroma_place
        factor = (p.chroma_y, p.chroma_x)
        fine = b.enlarge(uv, factor, (-y / p.chroma_y, -x / p.chroma_x), planes=2)
        return self.crop_to_luma(b, fine)

    def luma_to_chroma(self, b: NodeBuilder, plane: str) -> str:
        """Average a luma-size plane to chroma samples at their siting, with repeated edges."""
        p = self.planes
        if (p.chroma_x, p.chroma_y) == (1, 1):
            return plane
        x, y = p.chroma_place
        (left, columns), (top, rows) = (
            _CHROMA_AVERAGES[place] if step == 2 else (0, (1.0,))
            for place, step in ((x, p.chroma_x), (y, p.chroma_y))
        )
        right, bottom = (max(0, len(w) - 2 + at) for at, w in ((left, columns), (top, rows)))
        padded = b.pad_edge(plane, -top, -left, bottom, right)
        kernel = np.outer(rows, columns)[None, None]
        return b.convolve(padded, kernel, strides=[p.chroma_y, p.chroma_x])


@dataclass(frozen=True, kw_only=True)
class PlaneGraph:
    """Builds a network's planes-to-planes graph for any picture size."""

    network: onnx.ModelProto
    facts: NetworkFacts
    colour: Colour = field(default_factory=Colour)
    planes: PlaneFormat = YUV420
    precision: str = "fp32"
    """Precision in which the backend computes the network."""
    label: str = "network"
    """Name for messages and files, such as `carn-m-x2`."""

    def onnx(self, size: tuple[int, int] | None, batch: int | None = 1) -> bytes:
        """Serialize the planes-to-planes graph for pictures of `size` (width, height).

        Inputs y uint8 [N, 1, H, W], u and v uint8 [N, 1, H/2, W/2] in 4:2:0 (rounded up); outputs
        the same at `scale` times the size. Above 8 bits a plane is byte pairs, uint8
        [N, 1, H, W, 2]. None leaves the size (which must then be even) or the batch free. The
        network is inlined; its input and output keep their dtype. RGB (matrix 0) is full planes G,
        B and R in y, u and v.
        """
        if (self.planes.chroma_x, self.planes.chroma_y) not in _SUPPORTED_CHROMA:
            raise ModelError(f"planes of {self.planes} are not supported")
        plan = _Plan(size=size, planes=self.planes, facts=self.facts, colour=self.colour)
        b = NodeBuilder()
        inputs = ("y", "u", "v")
        y, u, v = (b.from_codes(name, self.planes.bits) for name in inputs)
        uv = b.node("Concat", u, v, axis=1)
        wrap = _wrap_rgb
        if self.facts.colour == "y":
            wrap = _wrap_luma_of_rgb if self.colour.matrix == RGB else _wrap_luma
        plain = flatten(self.network)
        wrap(b, plain, plan, y, uv)
        return _make_model(b, plain, plan, batch).SerializeToString()


def _wrap_luma(b: NodeBuilder, network: onnx.ModelProto, plan: _Plan, y: str, uv: str) -> None:
    """Wrap a luma network: the network on Y, cubic interpolation on U and V."""
    gain, offset = code_scale(plan.colour, plan.planes.bits)
    unit = gain[0] / plan.facts.value_max
    centred = b.node("Sub", y, b.constant(offset[0]))
    luma = _inline_network(b, network, b.node("Mul", centred, b.constant(1 / unit)))
    codes = b.node("Add", b.node("Mul", luma, b.constant(unit)), b.constant(offset[0]))
    b.to_codes(plan.pad_to_chroma(b, codes), "y_out", plan.planes.bits)

    s = plan.scale
    large = b.enlarge(uv, (s, s), plan.chroma_offset(s), planes=2) if s > 1 else uv
    large = plan.crop_to_chroma(b, large)
    for plane, name in zip(b.split(large, 2, 1), ("u_out", "v_out"), strict=True):
        b.to_codes(plane, name, plan.planes.bits)


def _wrap_luma_of_rgb(
    b: NodeBuilder, network: onnx.ModelProto, plan: _Plan, y: str, uv: str
) -> None:
    """Wrap a luma network for RGB planes: RGB -> YUV, enlarged as in `_wrap_luma` -> RGB."""
    matrix, offset = code_from_rgb(plan.colour, plan.planes.bits)
    luma, _ = code_from_rgb(_LUMA_OF_RGB, 8)
    to_luma = luma / 255 @ np.linalg.inv(matrix)  # Y in 0..1, U and V in -0.5..0.5
    codes = b.node("Concat", y, uv, axis=1)
    yuv = b.convolve(codes, to_luma[:, :, None, None], -to_luma @ offset)
    only, *chroma = b.split(yuv, 3, 1)
    top = plan.facts.value_max
    large = _inline_network(b, network, b.node("Mul", only, b.constant(top)))
    large = b.node("Mul", large, b.constant(1 / top))
    s = plan.scale
    both = b.node("Concat", *chroma, axis=1)
    fine = b.enlarge(both, (s, s), plan.chroma_offset(s), planes=2)
    back = np.linalg.inv(to_luma)[:, :, None, None]
    result = b.convolve(b.node("Concat", large, fine, axis=1), back, offset)
    for plane, name in zip(b.split(result, 3, 1), ("y_out", "u_out", "v_out"), strict=True):
        b.to_codes(plane, name, plan.planes.bits)


def _wrap_rgb(b: NodeBuilder, network: onnx.ModelProto, plan: _Plan, y: str, uv: str) -> None:
    """Wrap an RGB network: chroma to luma size, YUV -> RGB, network, RGB -> YUV, chroma down."""
    bits = plan.planes.bits
    matrix, offset = code_from_rgb(plan.colour, bits)
    inverse = np.linalg.inv(matrix) * plan.facts.value_max
    yuv = b.node("Concat", y, plan.chroma_to_luma(b, uv), axis=1)
    rgb = b.convolve(yuv, inverse[:, :, None, None], -inverse @ offset)

    result = _inline_network(b, network, rgb)
    kernel = (matrix / plan.facts.value_max)[:, :, None, None]
    codes = b.convolve(result, kernel, offset)
    y_out, *chroma = b.split(plan.pad_to_chroma(b, codes), 3, 1)
    b.to_codes(y_out, "y_out", bits)
    for plane, name in zip(chroma, ("u_out", "v_out"), strict=True):
        b.to_codes(plan.luma_to_chroma(b, plane), name, bits)


def _inline_network(b: NodeBuilder, network: onnx.ModelProto, x: str) -> str:
    """Inline the network on tensor `x` and return its result, both float32 outside."""
    tensor = sole_input(network)
    input_type = tensor.type.tensor_type.elem_type
    output = network.graph.output[0]
    renames = {
        tensor.name: b.node("Cast", x, to=input_type) if input_type != TensorProto.FLOAT else x
    }

    def renamed(name: str) -> str:
        return renames.get(name, f"net/{name}") if name else ""

    for constant in network.graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(constant)
        copy.name = renamed(constant.name)
        b.constants.append(copy)
    for node in network.graph.node:
        inner = onnx.NodeProto()
        inner.CopyFrom(node)
        inner.name = f"net/{node.name or node.output[0]}"  # TensorRT refuses duplicate names
        inner.input[:] = [renamed(name) for name in node.input]
        inner.output[:] = [renamed(name) for name in node.output]
        b.nodes.append(inner)
    result = renamed(output.name)
    if output.type.tensor_type.elem_type != TensorProto.FLOAT:
        result = b.node("Cast", result, to=TensorProto.FLOAT)
    return result


def _make_model(
    b: NodeBuilder, network: onnx.ModelProto, plan: _Plan, batch: int | None
) -> onnx.ModelProto:
    sizes: list[tuple[str, int | str, int | str, int | str, int | str]]
    if plan.size is None:
        wide, high = (
            f"/{step}" if step > 1 else "" for step in (plan.planes.chroma_x, plan.planes.chroma_y)
        )
        sizes = [
            ("", "W", "H", f"W{wide}", f"H{high}"), ("_out", "sW", "sH", f"sW{wide}", f"sH{high}"),
        ]  # fmt: skip
    else:
        out = plan.planes.output(*plan.size, plan.scale)
        both = (("", plan.size), ("_out", out))
        sizes = [(suffix, *size, *plan.planes.chroma(*size)) for suffix, size in both]
    pair = [2] if plan.planes.bits > 8 else []
    tensors = {
        suffix: [
            helper.make_tensor_value_info(
                name, TensorProto.UINT8, [batch or "N", 1, high, wide, *pair]
            )
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
    """Build a luma network that does bicubic enlargement (Keys, a = -0.5)."""
    b = NodeBuilder()
    offset = 0.5 / scale - 0.5
    result = b.enlarge("lr", (scale, scale), (offset, offset))
    b.node("Identity", result, output="sr")
    x = helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["N", 1, "H", "W"])
    y = helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["N", 1, "sH", "sW"])
    graph = helper.make_graph(b.nodes, "bicubic", [x], [y], b.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    return model
