"""Builds ONNX graphs node by node."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from vsr.errors import ModelError
from vsr.network.resampling import KERNEL_RADIUS, Array, enlarging_kernel


class NodeBuilder:
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

    def convolve(self, x: str, kernel: Array, bias: Array | None = None, **attributes: Any) -> str:
        inputs = [x, self.constant(kernel)] + ([] if bias is None else [self.constant(bias)])
        return self.node("Conv", *inputs, **attributes)

    def enlarge(
        self, x: str, factor: tuple[int, int], offset: tuple[float, float], planes: int = 1
    ) -> str:
        """Enlarge each of `planes` channels by (rows, columns), cubic, with repeated edges."""
        rows, columns = factor
        if factor == (1, 1):
            return x
        kernel = enlarging_kernel(*factor, *offset)
        padded = self.pad_edge(x, *[KERNEL_RADIUS] * 4)
        if rows == columns:
            y = self.convolve(padded, np.tile(kernel, (planes, 1, 1, 1)), group=planes)
            return self.node("DepthToSpace", y, blocksize=rows, mode="CRD")
        if rows != 1:
            raise ModelError(f"a plane cannot be enlarged by {rows} rows and {columns} columns")
        # stack the columns of every phase on a last axis, then merge it into the width
        last = self.constant([-1], np.int64)
        phases = [
            self.convolve(padded, np.tile(phase[None], (planes, 1, 1, 1)), group=planes)
            for phase in kernel
        ]
        stacked = self.node("Concat", *(self.node("Unsqueeze", p, last) for p in phases), axis=-1)
        return self.node("Reshape", stacked, self.constant([0, 0, 0, -1], np.int64))

    def from_codes(self, name: str, bits: int) -> str:
        """Convert an input's codes to float; above 8 bits they are byte pairs [N, 1, H, W, 2]."""
        codes = self.node("Cast", name, to=TensorProto.FLOAT)
        if bits == 8:
            return codes
        last = self.constant([-1], np.int64)
        low, high = (self.node("Squeeze", part, last) for part in self.split(codes, 2, -1))
        return self.node("Add", low, self.node("Mul", high, self.constant(256.0)))

    def to_codes(self, x: str, output: str, bits: int) -> None:
        """Round to the nearest code and make it the graph's `output` (Cast alone truncates).

        Above 8 bits as little-endian byte pairs, so that no backend needs uint16.
        """
        half = self.node("Add", x, self.constant(0.5))
        low, high = self.constant(0.0), self.constant(2.0**bits - 1)
        rounded = self.node("Floor", self.node("Clip", half, low, high))
        if bits > 8:
            # [whole, whole / 256] less [256 (whole / 256), 0]: pointwise, which OpenVINO computes
            # in half the time of bytes that are computed separately and joined
            pair = self.node("Unsqueeze", rounded, self.constant([-1], np.int64))
            shifted = self.node("Floor", self.node("Mul", pair, self.constant([1.0, 1 / 256])))
            upper = self.node("Floor", self.node("Mul", pair, self.constant([1 / 256, 0.0])))
            rounded = self.node("Sub", shifted, self.node("Mul", upper, self.constant(256.0)))
        self.node("Cast", rounded, output=output, to=TensorProto.UINT8)
