"""Measures engines on an NVIDIA GPU for `bench/engines.py`, with CUDA events, and reports clocks.

Times are those of the planes-to-planes graph, as `vsr run` runs it, without the copies. The peak is
that of a stack of dense 3x3 convolutions of 64 channels, in the same precision and the same run.
"""

import shutil
import subprocess
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from vsr.inference import models
from vsr.inference.backend import load_backend
from vsr.inference.tensorrt.backend import TensorRtBackend
from vsr.inference.tensorrt.engine import TensorRtEngine
from vsr.media.colour import Colour
from vsr.network.graph import NetworkFacts, PlaneGraph

CHANNELS: Final = 64
DEPTH: Final = 16
"""Number of convolutions in the stack; makes the time of the other layers negligible."""
PRECISIONS: Final = {"tensorrt": ("fp32", "fp16", "int8"), "tensorrt-rtx": ("fp32", "fp16")}


@dataclass
class Row:
    """One engine, and its time in every round, in ms."""

    name: str
    precision: str
    operations: float
    engine: TensorRtEngine
    ms: list[float] = field(default_factory=list)


def dense_stack(width: int, height: int) -> tuple[onnx.ModelProto, float]:
    """Return a luma network of almost only dense convolutions, and its number of operations."""
    rng = np.random.default_rng(2)
    nodes, constants, x = [], [], "lr"
    shape = [(CHANNELS, 1), *[(CHANNELS, CHANNELS)] * DEPTH, (1, CHANNELS)]
    for k, (out, inner) in enumerate(shape):
        weight = rng.standard_normal((out, inner, 3, 3)) / (3 * inner**0.5)
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"w{k}"))
        y = "sr" if k == len(shape) - 1 else f"x{k}"
        nodes.append(helper.make_node("Conv", [x, f"w{k}"], [y], name=y, pads=[1] * 4))
        x = y
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 1, "H", "W"])
        for name in ("lr", "sr")
    ]
    graph = helper.make_graph(nodes, "peak", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, 2.0 * 9 * CHANNELS**2 * DEPTH * width * height


def clocks() -> str:
    """Return the GPU's current clocks and temperature, from nvidia-smi."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "clocks unknown (no nvidia-smi)"
    asked = "--query-gpu=clocks.sm,clocks.mem,temperature.gpu"
    done = subprocess.run(
        [tool, asked, "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return f"SM and memory clocks, temperature: {' '.join(done.stdout.split())}"


def measure(
    backend_name: str, names: list[str], scale: int, size: tuple[int, int], rounds: int
) -> tuple[list[list[str]], str]:
    """Return rows (model, precision, p50 ms, p99 ms, frames/s, GFLOP/s, of peak) and the machine.

    Raises BackendError without a GPU or the library.
    """
    backend = load_backend(backend_name)
    assert isinstance(backend, TensorRtBackend)
    machine = f"{backend.device}, {clocks()}"
    lines = []
    for precision in PRECISIONS[backend_name]:
        rows = [_peak(backend, size, precision)]
        rows += [_shipped(backend, name, scale, size, precision) for name in names]
        for _ in range(rounds):
            for row in rows:
                row.ms.append(row.engine.batch_time_ms(1))
        lines += [_line(row, rows[0]) for row in rows]
    return lines, f"{machine}; after: {clocks()}"


def _peak(backend: TensorRtBackend, size: tuple[int, int], precision: str) -> Row:
    network, operations = dense_stack(*size)
    graph = PlaneGraph(
        network=network, facts=NetworkFacts(scale=1, colour="y"),
        precision="fp16" if precision == "int8" else precision, label="peak",
    )  # fmt: skip
    return Row("dense 64", precision, operations, backend.compile(graph, size))


def _shipped(
    backend: TensorRtBackend, name: str, scale: int, size: tuple[int, int], precision: str
) -> Row:
    model = models.find(name, scale, backend, precision)
    per_pixel = models.manifest()[name][f"x{scale}"]["multadds_720p"] / (1280 * 720)
    operations = 2.0 * per_pixel * size[0] * size[1] * scale**2
    engine = backend.compile(model.graph(Colour()), size)
    return Row(f"{name} x{scale}", precision, operations, engine)


def _line(row: Row, peak: Row) -> list[str]:
    half, last = (float(np.percentile(row.ms, p)) for p in (50, 99))
    rate = row.operations / half / 1e6
    best = peak.operations / float(np.percentile(peak.ms, 50)) / 1e6
    return [
        row.name, row.precision, f"{half:.3f}", f"{last:.3f}", f"{1000 / half:.0f}",
        f"{rate:.0f}", f"{rate / best:.0%}",
    ]  # fmt: skip
