"""Tests of int8 networks: error against float on OpenVINO, 8-bit layers, the faster form."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from train.errors import TrainError
from train.measure.shipped import openvino_core, openvino_enlarge
from train.ship.calibrate import (
    Spread,
    black_and_white,
    choose_quantiser,
    measure_spreads,
    two_colours,
)
from train.ship.qdq import (
    channel_classes,
    channel_factors,
    parse,
    scale_channels,
    with_linear_parts,
)
from train.ship.qdq_writer import int8_weights, to_onnx
from train.ship.quantise import Settings, best_form

pytestmark = pytest.mark.usefixtures("one_thread")
ENGINES = Path(__file__).parents[2] / "engines"
NETWORKS = {"small carn": 3, "c-dcscn": 1}
"""Network name -> number of picture channels."""
QUICK = Settings(patches=3, held_out=2, black_and_white=1, exponents=(0.5,), powers=(2,))
Floats = npt.NDArray[np.float32]

# group convolutions, a cascade from a linear entry, two pixel shuffles, and names without dots
CARN = """<ir_version: 10, opset_import: ["": 18]>
carn (float[N, 3, H, W] lr) => (float[N, 3, Y, X] sr) {
    mean = Conv<kernel_shape = [1, 1]>(lr, w0, b0)
    entry = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(mean, w1, b1)
    x1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 2>(entry, w2, b2)
    r1 = Relu(x1)
    x2 = Conv<kernel_shape = [1, 1]>(r1, w3, b3)
    sum = Add(x2, entry)
    r2 = Relu(sum)
    cat1 = Concat<axis = 1>(entry, r2)
    x3 = Conv<kernel_shape = [1, 1]>(cat1, w4, b4)
    r3 = Relu(x3)
    cat2 = Concat<axis = 1>(cat1, r3)
    x4 = Conv<kernel_shape = [1, 1]>(cat2, w5, b5)
    r4 = Relu(x4)
    x5 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 2>(r4, w6, b6)
    r5 = Relu(x5)
    up = DepthToSpace<blocksize = 2, mode = "CRD">(r5)
    x6 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(up, w7, b7)
    sr = DepthToSpace<blocksize = 2, mode = "CRD">(x6)
}"""
SHAPES = [(3, 3, 1, 1), (8, 3, 3, 3), (8, 4, 3, 3), (8, 8, 1, 1), (8, 16, 1, 1), (8, 24, 1, 1),
          (16, 4, 3, 3), (12, 4, 3, 3)]  # fmt: skip


def _network(name: str) -> onnx.ModelProto:
    if name == "c-dcscn":
        return onnx.load_model(str(ENGINES / "c-dcscn/x3.onnx"))
    rng = np.random.default_rng(1)
    model = onnx.parser.parse_model(CARN)
    for i, shape in enumerate(SHAPES):
        weight = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype("f4")
        bias = rng.normal(0, 0.1, shape[0]).astype("f4")
        values = {f"w{i}": weight, f"b{i}": bias}
        model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in values.items())
    return model


def _pictures(count: int, colours: int, seed: int) -> Floats:
    """Return smooth random pictures [N, C, 24, 20] in 0..1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:24, :20] / 24
    a, b, c = rng.uniform(-9, 9, (3, count, colours, 1, 1))
    return (0.5 + 0.5 * np.sin(a * y + b * x + c)).astype(np.float32)


def _run(model: onnx.ModelProto, x: Floats) -> Floats:
    return openvino_enlarge(model.SerializeToString())(x)


# graph transformations


@pytest.mark.parametrize("name", NETWORKS)
def test_exact_changes_leave_what_a_network_computes(name: str) -> None:
    model, x = _network(name), _pictures(2, NETWORKS[name], 1)
    graph = with_linear_parts(parse(model))
    rng = np.random.default_rng(2)
    largest = {
        tensor: rng.uniform(0.1, 9, len(classes)).astype("f4")
        for tensor, classes in channel_classes(graph).items()
    }
    factors = channel_factors(graph, largest, 0.7)
    assert max(float(f.max() / f.min()) for f in factors.values()) > 2  # channels are scaled
    expected = _run(model, x)
    for dense in (False, True):
        changed = to_onnx(scale_channels(graph, factors), dense=dense)
        assert np.abs(_run(changed, x) - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_no_8_bit_concatenation_holds_what_is_linear_in_the_picture() -> None:
    graph = parse(_network("small carn"))
    assert "entry" in graph.sources("cat2")
    lifted = with_linear_parts(graph)
    concats = [node for node in lifted.nodes if node.op_type == "Concat"]
    assert [list(node.input) for node in concats] == [["r2", "r3"]]
    assert sorted(name for name, conv in lifted.convs.items() if conv.stays_float) == [
        "entry", "mean", "x3.linear", "x4.linear",
    ]  # fmt: skip


def test_a_layer_that_is_unknown_is_named() -> None:
    model = onnx.parser.parse_model(CARN.replace("r4 = Relu(", "r4 = Sigmoid("))
    model.graph.initializer.extend(_network("small carn").graph.initializer)
    with pytest.raises(TrainError, match=r"^a network with Sigmoid cannot be quantised$"):
        best_form(model, _pictures(2, 3, 1), _pictures(1, 3, 2), QUICK)


@pytest.mark.parametrize(
    ("layer", "other", "reason"),
    [
        ("w3, b3)", "w3x, b3)", r"^Conv 'x2' cannot be quantised: its input 1 \('w3x'\) is not an"),
        ("w3, b3)", "w3, b3x)", r"^Conv 'x2' cannot be quantised: its input 2 \('b3x'\) is not an"),
        ("Add(x2, entry)", "Add(x2, b1)", r"^Add 'sum' cannot be quantised: its input 'b1' is not"),
        ("Add(x2, entry)", "Add(b1, x2)", r"^Add 'sum' cannot be quantised: its input 'b1' is not"),
        ("1>(entry, r2)", "1>(b1, r2)", r"^Concat 'cat1' cannot be quantised: its input 'b1' is"),
        (
            "r2 = Relu(sum)",
            "r2, r9 = Split<axis = 1>(sum)",
            r"^Split 'r2' .* input 1 \(''\) is not",
        ),
        ("r2 = Relu(sum)", "one = Constant<value_float = 1.0>() r2 = Relu(sum)", "with Constant"),
    ],
)
def test_a_layer_without_its_constants_is_named(layer: str, other: str, reason: str) -> None:
    assert CARN.count(layer) == 1
    model = onnx.parser.parse_model(CARN.replace(layer, other))
    model.graph.initializer.extend(_network("small carn").graph.initializer)
    with pytest.raises(TrainError, match=reason):
        channel_classes(parse(model))


# codes, scales and calibration


def test_weights_are_rounded_each_output_channel_on_its_own_scale() -> None:
    weight = np.random.default_rng(3).normal(0, 1, (5, 8, 3, 3)).astype("f4")
    weight[1] *= 1e-4
    weight[2] = 0
    codes, scale = int8_weights(weight)
    assert (codes.dtype, codes.shape, scale.shape) == (np.int8, weight.shape, (5,))
    assert np.abs(codes).max((1, 2, 3)).tolist() == [127, 127, 0, 127, 127]
    step = scale[:, None, None, None]
    assert (np.abs(codes * step - weight) <= 0.5001 * step).all()


def _spread(low: float, high: float, counts: dict[int, int]) -> Spread:
    bins = np.zeros((1, 512), np.int64)
    for place, count in counts.items():
        bins[0, place] = count
    return Spread(np.array([low], "f4"), np.array([high], "f4"), bins)


def test_rare_large_values_are_cut_less_the_more_they_count() -> None:
    spread = _spread(0, 10, {**dict.fromkeys(range(128), 1000), 511: 1})
    cut, kinder = (choose_quantiser([spread], power) for power in (2, 4))
    assert cut.zero == kinder.zero == 0
    assert 10 * 0.4 - 0.01 < 255 * cut.scale < 255 * kinder.scale <= 10.01


def test_tensors_that_share_a_range_are_all_in_it_and_0_is_exact() -> None:
    even = dict.fromkeys(range(512), 10)
    both = choose_quantiser([_spread(-1, 0, even), _spread(0, 3, even)], 2)
    assert 3.6 < 255 * both.scale <= 4.01
    assert both.zero == pytest.approx(255 / 4, abs=1)
    assert choose_quantiser([_spread(0, 0, {0: 99})], 2).scale == 1  # only zeros


def test_calibration_sees_what_the_network_computes() -> None:
    model, x = _network("small carn"), _pictures(11, 3, 4)  # more than a batch, the last is partial
    seen = measure_spreads(model, ["r2", "x6"], x)
    assert seen["r2"].low.max() == 0
    assert (seen["r2"].counts.sum(1) == x[:, 0].size).all()
    result = _run(model, x).reshape(11, 3, -1)  # x6 is sr before the shuffle: 4 channels each
    high = seen["x6"].high.reshape(3, 4).max(1)
    assert high == pytest.approx(np.maximum(result.max((0, 2)), 0), rel=1e-5)
    mean = (seen["x6"].values() * seen["x6"].counts).sum(1).reshape(3, 4).sum(1)
    assert mean / result[:, 0].size == pytest.approx(result.mean((0, 2)), abs=0.02)


def test_text_is_made_of_black_and_white() -> None:
    picture = np.random.default_rng(5).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    made = black_and_white(picture)
    assert (made.dtype, made.shape) == (np.uint8, picture.shape)
    assert set(np.unique(made)) == {0, 255}
    assert (made == made[..., :1]).all()


def test_vivid_pictures_are_of_two_pure_colours_and_together_of_all() -> None:
    rng = np.random.default_rng(5)
    made = two_colours([rng.integers(0, 256, (8, 9, 3)).astype(np.uint8) for _ in range(14)])
    colours = [{tuple(pixel) for pixel in picture.reshape(-1, 3)} for picture in made]
    assert {picture.dtype for picture in made} == {np.dtype(np.uint8)}
    assert {len(two) for two in colours} == {2}
    assert set.union(*colours) == set(product((0, 255), repeat=3))
    assert len({frozenset(two) for two in colours}) > 7
    assert set.union(*colours[:8]) == set.union(*colours)


def test_linear_parts_are_in_float_only_where_that_lessens_the_error() -> None:
    model, pictures = _network("small carn"), (_pictures(6, 3, 6), _pictures(2, 3, 7))
    kept = {
        worth: best_form(model, *pictures, replace(QUICK, min_linear_gain_db=worth))[1]
        for worth in (-99.0, 99.0)
    }
    assert [facts["linear_parts"] for facts in kept.values()] == [2, 0]
    assert kept[-99.0]["error_db"] < kept[99.0]["error_db"] - 1


# the int8 network


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, onnx.ModelProto, dict[str, Any]]:
    """Return a float network, its int8 form and the chosen values."""
    model, colours = _network(request.param), NETWORKS[request.param]
    data, facts = best_form(model, _pictures(6, colours, 6), _pictures(2, colours, 7), QUICK)
    return model, onnx.load_model_from_string(data), facts


Pair = tuple[onnx.ModelProto, onnx.ModelProto, dict[str, Any]]


def test_int8_is_near_float_on_openvino(pair: Pair) -> None:
    model, small, facts = pair
    colours = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    x = _pictures(3, colours, 8)
    expected, result = _run(model, x), _run(small, x)
    error = float(np.sqrt(((result - expected) ** 2).mean()))
    assert 0 < error < 0.02 * float(expected.std())
    assert facts["error_db"] == pytest.approx(20 * np.log10(error), abs=6)


def test_scales_are_as_backends_need_them(pair: Pair) -> None:
    """Weights are symmetric int8 per output channel, activations uint8 per tensor, I/O float."""
    model, small, facts = pair
    assert (small.graph.input, small.graph.output) == (model.graph.input, model.graph.output)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in small.graph.initializer}
    quantised = 0
    for node in small.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (values[name] for name in node.input[1:])
            assert (scale.shape, zero.shape, zero.dtype) == ((), (), np.uint8)
        elif node.op_type == "DequantizeLinear" and node.input[0] in values:
            codes, scale, zero = (values[name] for name in node.input)
            assert (codes.dtype, zero.dtype) == (np.int8, np.int8)
            assert scale.shape == zero.shape == codes.shape[:1]
            assert not zero.any()
            assert scale.min() > 0
            quantised += 1
    convs = sum(node.op_type == "Conv" for node in small.graph.node)
    assert convs - quantised == len(facts["float"]) + facts["linear_parts"] <= 4


def test_openvino_computes_all_but_the_float_layers_in_8_bits(pair: Pair) -> None:
    _, small, facts = pair
    core = openvino_core()
    if "INT8" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no instructions for 8 bits")
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(small.SerializeToString()), "CPU", config)
    layers = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [
        str(info["runtimePrecision"].astype(str))
        for info in layers
        if info["layerType"].astype(str) == "Convolution"
    ]
    assert kinds.count("f32") == len(facts["float"]) + facts["linear_parts"]
    assert kinds.count("u8") == len(kinds) - kinds.count("f32") > 5


def test_group_convolutions_are_written_in_the_faster_form() -> None:
    model = _network("small carn")
    data, facts = best_form(model, _pictures(6, 3, 6), _pictures(2, 3, 7), QUICK)
    groups = [
        attribute.i
        for node in onnx.load_model_from_string(data).graph.node
        for attribute in node.attribute
        if attribute.name == "group"
    ]
    assert facts["convolutions"] == min(facts["ms"], key=lambda form: facts["ms"][form])
    assert max(groups) == {"grouped": 2, "dense": 1}[facts["convolutions"]]
