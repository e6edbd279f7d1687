"""Tests of 10 bits, 4:2:2, 4:4:4 and RGB on TensorRT: run on a simulated GPU, and built."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from tests.host_gpu import cubic, equal, machine, right
from tests.network.test_graph import network
from vsr.cli.main import main
from vsr.inference.tensorrt.builder import Builder, file_label
from vsr.inference.tensorrt.cache import EngineCache
from vsr.inference.tensorrt.library import BuildOptions, Sizes, load_library
from vsr.inference.tensorrt.rtx_plan import read_plan
from vsr.media.colour import RGB, Colour
from vsr.media.frame import Planes
from vsr.media.plane_format import is_rgb, planes_for
from vsr.network.graph import NetworkFacts, PlaneGraph

NAMES = (
    "yuv420p10le", "yuv422p", "yuv422p10le", "yuv444p", "yuv444p12le", "gbrp", "gbrp10le",
)  # fmt: skip
SIZES = Sizes.fixed((64, 48))
RANGE = Sizes(min_size=(32, 32), opt_size=(48, 32), max_size=(128, 96))


def graph_of(pixel_format: str, siting: str = "left") -> PlaneGraph:
    """Return a bicubic graph for planes of a pixel format."""
    planes = replace(planes_for(pixel_format), siting=siting)
    colour = Colour(matrix=RGB, full_range=True) if is_rgb(pixel_format) else Colour()
    return replace(cubic(), planes=planes, colour=colour)


def noise(pixel_format: str, size: tuple[int, int]) -> Planes:
    form, random = planes_for(pixel_format), np.random.default_rng(1)
    shapes = (size, form.chroma(*size), form.chroma(*size))
    y, u, v = (random.integers(0, 2**form.bits, (h, w), form.dtype) for w, h in shapes)
    return y, u, v


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(48, 32), (47, 33)])
def test_an_engine_takes_and_returns_every_format(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    graph, planes = graph_of(name), noise(name, size)
    engine = machine(tmp_path).engine(graph, size, batch=2)
    for ticket in [engine.submit(planes) for _ in range(engine.slots)]:
        result = ticket.result()
        assert result[0].dtype == planes[0].dtype
        assert equal(result, right(graph, planes))


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_of_a_range_of_sizes_takes_every_format(name: str, tmp_path: Path) -> None:
    graph, planes = graph_of(name), noise(name, (64, 48))
    host = machine(tmp_path)
    options = BuildOptions(sizes=RANGE, planes=graph.planes)
    engine = host.start(host.library.build(graph.onnx(None), options).plan, (64, 48))
    assert equal(engine.submit(planes).result(), right(graph, planes))


@pytest.mark.parametrize(
    ("name", "sizes"), [*((name, SIZES) for name in NAMES), ("yuv422p10le", RANGE)], ids=str
)
def test_rtx_builds_every_format(name: str, sizes: Sizes, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    rtx = load_library("tensorrt-rtx")
    in_rgb = PlaneGraph(
        network=network(3, 'sr = Resize <mode = "linear"> (lr, , twice)'),
        facts=NetworkFacts(scale=2, colour="rgb"), colour=graph_of(name).colour,
        planes=planes_for(name), label="linear-x2",
    )  # fmt: skip
    builder = Builder(rtx, EngineCache(tmp_path))
    for graph in (graph_of(name), in_rgb):
        engine = builder.build(graph, BuildOptions(sizes=sizes, targets=("sm86",)))
        facts = read_plan(engine.plan)
        assert facts.targets == ("sm86",) and facts.programs[0].kernels
        assert f"-{name}-" in engine.path.name


def test_formats_have_engines_of_their_own() -> None:
    labels = [file_label(graph_of(name)) for name in ("yuv420p", *NAMES)]
    labels.append(file_label(graph_of("yuv420p", "topleft")))
    assert labels[0] == "cubic-x2-fp32"
    assert len(set(labels)) == len(labels)


def test_build_engine_writes_the_graph_of_a_pixel_format(tmp_path: Path) -> None:
    given = ["--model", "bicubic", "--size", "64x48", "--pix-fmt", "yuv422p10le"]
    file = str(tmp_path / "graph.onnx")
    done = CliRunner().invoke(main, ["build-engine", *given, "--onnx", file])
    assert done.exit_code == 0, done.output
    shapes = {
        tensor.name: [d.dim_value for d in tensor.type.tensor_type.shape.dim]
        for tensor in onnx.load(file).graph.input
    }
    assert shapes == {"y": [1, 1, 48, 64, 2], "u": [1, 1, 48, 32, 2], "v": [1, 1, 48, 32, 2]}
    wrong = ["build-engine", "--size", "64x48", "--pix-fmt", "p10", "--onnx", file]
    assert "unknown pixel format 'p10'" in CliRunner().invoke(main, wrong).output
