"""Tests of rewrites that round, to half precision and symmetric 8 bits, also in TensorRT-RTX."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor
from torch.nn import functional

from tests.network.test_rewrite import (
    FILES,
    Array,
    assert_halved,
    constants_as_nodes,
    parsed,
    shipped,
)
from train.data.images import pairs
from train.measure.evaluate import enlarged_luma
from train.measure.metrics import luma, psnr
from vsr.errors import BackendError, ModelError
from vsr.inference.backend import Backend
from vsr.inference.tensorrt.library import BuildOptions, Library, Sizes, load_library
from vsr.network.graph import NetworkFacts, PlaneGraph
from vsr.network.onnx_inputs import sole_input
from vsr.network.rewrite.gpu import for_tensorrt
from vsr.network.rewrite.rounding import biases_as_floats, to_half, to_signed_codes

ort: Any = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

# ---- half precision


PADS = {b"edge": "replicate"}
Values = dict[str, Tensor]


def run_in_half(network: onnx.ModelProto, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Run a network of this project with every tensor rounded to half precision; OpenVINO and ONNX
    Runtime compute such files in single precision."""
    values: Values = {
        c.name: torch.from_numpy(np.array(numpy_helper.to_array(c)))
        for c in network.graph.initializer
    }
    values[network.graph.input[0].name] = torch.from_numpy(x).half()
    for node in network.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        given = [values[name] for name in node.input]
        if node.op_type == "Split":
            parts = torch.split(given[0], given[1].tolist(), attributes["axis"])
            values |= dict(zip(node.output, parts, strict=True))
            continue
        values[node.output[0]] = _computed(node.op_type, given, attributes)
        assert values[node.output[0]].dtype == torch.float16, node.op_type
    return values[network.graph.output[0].name].float().numpy()


def _computed(op: str, given: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    x, *rest = given
    if op == "Conv":
        top, left, *other = attributes["pads"]
        assert other == [top, left]
        # Tensor Cores sum in single precision and round the result
        weight, bias = rest[0].float(), rest[1].float() if len(rest) > 1 else None
        how: dict[str, Any] = {"padding": (top, left), "groups": attributes["group"]}
        return functional.conv2d(x.float(), weight, bias, **how).half()
    if op == "Pad":
        _, _, top, left, _, _, bottom, right = rest[0].tolist()
        return functional.pad(x, (left, right, top, bottom), mode=PADS[attributes["mode"]])
    simple: dict[str, Callable[[], Tensor]] = {
        "Relu": x.relu,
        "Neg": lambda: -x,
        "Add": lambda: x + rest[0],
        "Sub": lambda: x - rest[0],
        "Mul": lambda: x * rest[0],
        "Concat": lambda: torch.cat(given, attributes["axis"]),
        "DepthToSpace": lambda: functional.pixel_shuffle(x, attributes["blocksize"]),
    }
    assert attributes.get("mode", b"CRD") == b"CRD"
    return simple[op]()


@pytest.mark.parametrize("file", FILES)
def test_shipped_networks_are_valid_in_half_precision(file: str) -> None:
    network = shipped(file)
    before = network.SerializeToString(deterministic=True)
    after = for_tensorrt(network, "fp16")
    assert network.SerializeToString(deterministic=True) == before
    assert_halved(after.network)
    assert after.notes[-1] == "weights and activations in half precision"
    assert to_half(after.network) is after.network


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["c-dcscn", "carn-m"])
def test_half_precision_costs_next_to_nothing(data: Path, backend: Backend, name: str) -> None:
    """Weights, every activation and every sum of two are rounded to half, as on a GPU."""
    network = shipped(f"{name}/x2")
    small = for_tensorrt(network, "fp16").network
    colour = "y" if name == "c-dcscn" else "rgb"

    def single(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(backend.run(network.SerializeToString(), [x])[0], np.float32)

    losses = list[float]()
    for _, lr, hr in islice(pairs(data / "images/test/set5", 2), 3):
        patch, truth = lr[20:68, 20:68], luma(hr[40:136, 40:136])
        ours, theirs = (
            enlarged_luma(enlarge, patch, colour)
            for enlarge in (partial(run_in_half, small), single)
        )
        assert (ours != theirs).any()
        losses.append(psnr(theirs, truth, 2) - psnr(ours, truth, 2))
    assert np.mean(losses) <= 0.01, losses
    assert max(losses) <= 0.02, losses


def referred(network: onnx.ModelProto, x: Array) -> Array:
    """Run a network with ONNX's reference evaluator, which uses the types in the file."""
    (y, *_) = list(ReferenceEvaluator(network).run(None, {"lr": x}))
    return np.asarray(y)


BY = "by = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()"
RESIZED = 'sr = Resize <mode = "nearest"> (a, , by)'


@pytest.mark.parametrize(
    "scales", [BY, BY.replace("value = float[4] {", "value_floats = [").replace("}", "]")]
)
def test_scales_of_resize_stay_single(scales: str) -> None:
    after = to_half(parsed(f"{scales} a = Conv (lr, w) {RESIZED}", 3, "w[3,3,1,1]"))
    onnx.checker.check_model(after, full_check=True)
    x = np.random.default_rng(2).random((1, 3, 5, 7)).astype(np.float16)
    y = referred(after, x)
    assert y.dtype == np.float16
    assert y.shape == (1, 3, 10, 14)


def test_scales_of_resize_stay_single_as_initializers() -> None:
    network = parsed(f"a = Conv (lr, w) {RESIZED}", 3, "w[3,3,1,1] by[4]")
    assert_halved(to_half(network))


@pytest.mark.parametrize("text", ["value = float {0.5}", "value_float = 0.5"])
def test_constants_and_casts_are_halved(text: str) -> None:
    body = f"k = Constant <{text}> () a = Cast <to = 1> (lr) sr = Mul (a, k)"
    after = to_half(parsed(body))
    assert_halved(after)
    y = referred(after, np.ones((1, 3, 2, 2), np.float16))
    assert y.dtype == np.float16
    assert (y == 0.5).all()


@pytest.mark.parametrize(
    "text", ["value = float {-7e4}", "value_float = 7e4", "value_floats = [7e4]"]
)
def test_constants_too_large_for_half_are_refused(text: str) -> None:
    with pytest.raises(ModelError, match="use fp32"):
        to_half(parsed(f"k = Constant <{text}> () sr = Mul (lr, k)"))


def test_weights_too_large_for_half_are_refused() -> None:
    network = parsed("sr = Conv (lr, w)", 3, "w[3,3,1,1]")
    for most, fine in ((65504.0, True), (65600.0, False), (np.inf, False)):
        weight = np.full((3, 3, 1, 1), -most, np.float32)
        network.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
        if fine:
            assert_halved(to_half(network))
            continue
        for precision in ("fp16", "int8"):
            with pytest.raises(ModelError, match="too large for fp16: use fp32"):
                for_tensorrt(network, precision)
        assert for_tensorrt(network, "fp32").network is network


def test_half_precision_files_stay_as_they_are() -> None:
    network = to_half(shipped("c-dcscn/x2"))
    assert to_half(network) is network
    after = for_tensorrt(network, "fp16")
    assert "weights and activations in half precision" not in after.notes
    assert_halved(after.network)


# ---- 8 bits


QUANTISED = """
    q = QuantizeLinear (lr, s, z) d = DequantizeLinear (q, s, z)
    k = DequantizeLinear <axis = 0> (w, ws, wz) a = Conv <pads = [1, 1, 1, 1]> (d, k)
    e = QuantizeLinear (a, s, y) f = DequantizeLinear (e, s, y)
    sr = DepthToSpace <blocksize = 2> (f)"""


def quantised(
    zero: int, weights: str = "i1", opset: int = 17, body: str = QUANTISED,
    more: Mapping[str, Array] | None = None,
) -> Any:  # fmt: skip
    """Return a network with uint8 activations, zero points `zero` and 128, per-channel weights."""
    network = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> test'
        f"(float[N,1,H,W] lr) => (float[N,1,sH,sW] sr) {{{body}}}"
    )
    for node in network.graph.node:
        node.name = node.output[0]
    rng = np.random.default_rng(5)
    low = 0 if weights == "u1" else -127
    values: dict[str, Array] = {
        "s": np.array(0.01, np.float32), "z": np.array(zero, np.uint8),
        "y": np.array(128, np.uint8), "ws": rng.uniform(1e-3, 2e-3, 4).astype(np.float32),
        "w": rng.integers(low, low + 255, (4, 1, 3, 3)).astype(weights),
        "wz": np.array([120, 128, 128, 200] if weights == "u1" else [0] * 4, weights),
        **(more or {}),
    }  # fmt: skip
    used = {name for node in network.graph.node for name in node.input}
    network.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in values.items() if name in used
    )
    onnx.checker.check_model(network, full_check=True)
    return network


def computed(network: onnx.ModelProto, x: Array) -> Array:
    """Run a network with ONNX Runtime, whose quantisers conform to the standard."""
    session = ort.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    kind = sole_input(network).type.tensor_type.elem_type
    x = x.astype(helper.tensor_dtype_to_np_dtype(kind))
    return np.asarray(session.run(None, {"lr": x})[0]).astype(np.float64)


def in_range(zero: int) -> Array:
    """Return values that uint8 codes with zero point `zero` and a step of 0.01 can represent."""
    return np.random.default_rng(6).uniform(-zero, 255 - zero, (1, 1, 6, 7)).astype("f4") * 0.01


@pytest.mark.parametrize("zero", [0, 3, 127, 128, 130, 255])
def test_symmetric_activations_are_within_a_step(zero: int) -> None:
    body = "q = QuantizeLinear (lr, s, z) sr = DequantizeLinear (q, s, z)"
    network = quantised(zero, body=body)
    before = network.SerializeToString()
    after = to_signed_codes(network)
    assert network.SerializeToString() == before
    onnx.checker.check_model(after, full_check=True)
    constants = [numpy_helper.to_array(c) for c in after.graph.initializer]
    step = float(next(c for c in constants if c.dtype == np.float32))
    assert {str(c.dtype): int(c) for c in constants if c.dtype != np.float32} == {"int8": 0}
    assert step == pytest.approx(0.01 * max(zero / 128, (255 - zero) / 127))
    x = in_range(zero)
    assert np.abs(computed(after, x) - x).max() <= step / 2 * 1.001
    if zero == 128:
        np.testing.assert_array_equal(computed(after, x), computed(network, x))


@pytest.mark.parametrize("weights", ["i1", "u1"])
@pytest.mark.parametrize("zero", [3, 128])
def test_symmetric_networks_compute_nearly_the_same(zero: int, weights: str) -> None:
    network = quantised(zero, weights)
    after = to_signed_codes(network)
    onnx.checker.check_model(after, full_check=True)
    types = {c.data_type for c in after.graph.initializer}
    assert types == {TensorProto.FLOAT, TensorProto.INT8}
    x, scales = in_range(zero), 2e-3
    off = np.abs(computed(after, x) - computed(network, x))
    # increase of the step (u1: the whole step) of nine inputs, times weights; a step of the result
    step = 0.01 * max(zero / 128, (255 - zero) / 127)
    bound = 9 * 127 * scales * (step - 0.01 if weights == "i1" else step) + 0.01
    assert off.max() <= bound
    assert off.mean() <= 0.01
    assert computed(network, x).std() > 0.1


BARE = QUANTISED.replace(", z)", ")").replace(", wz)", ")")
"""`QUANTISED` without the zero points of input and weights, which ONNX allows to omit."""


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("weights", ["i1", "u1"])
@pytest.mark.parametrize("moved", [False, True])
def test_zero_points_left_out_are_0_of_uint8(weights: str, opset: int, moved: bool) -> None:
    body = BARE
    if moved:  # an operator between quantiser and dequantiser
        body = body.replace("DequantizeLinear (q, s)", "DequantizeLinear (p, s)")
        body = body.replace("d = Deq", "p = Transpose <perm = [0, 1, 2, 3]> (q) d = Deq")
    network = quantised(0, weights, opset, body)
    written = quantised(0, weights, opset)
    zeros = numpy_helper.from_array(np.zeros(4, weights), "wz")
    next(c for c in written.graph.initializer if c.name == "wz").CopyFrom(zeros)
    x = in_range(0)
    assert x.max() > 2  # uses the upper half of uint8
    np.testing.assert_array_equal(computed(network, x), computed(written, x))
    after = to_signed_codes(network)
    onnx.checker.check_model(after, full_check=True)
    np.testing.assert_array_equal(computed(after, x), computed(to_signed_codes(written), x))
    constants = {c.name: c.data_type for c in after.graph.initializer}
    zero = [node.input[2] for node in after.graph.node if node.op_type == "QuantizeLinear"]
    assert {constants[name] for name in zero} == {TensorProto.INT8}


def test_int8_that_shares_a_scale_with_uint8_is_left_alone() -> None:
    body = BARE.replace("(w, ws)", "(w, s)").replace("<axis = 0>", "")
    network = quantised(0, body=body)
    after = to_signed_codes(network)
    (before,) = (node for node in network.graph.node if node.output[0] == "k")
    assert before in after.graph.node
    x = in_range(0)
    assert np.abs(computed(after, x) - computed(network, x)).mean() <= 0.02


def test_int8_by_an_attribute_stays_as_it_is() -> None:
    body = "q = QuantizeLinear <output_dtype = 3> (lr, s) sr = DequantizeLinear (q, s)"
    network = quantised(0, opset=21, body=body)
    assert to_signed_codes(network) is network
    told = quantised(0, opset=21, body=body.replace("= 3", "= 2"))
    x = in_range(0)
    step = 0.01 * 255 / 127
    assert np.abs(computed(to_signed_codes(told), x) - x).max() <= step / 2 * 1.001


def with_bias(zero: bool, scale: Array) -> onnx.ModelProto:
    """Return a network with int32 bias codes, as written by ONNX Runtime's and other quantisers."""
    given = "(b, bs, bz)" if zero else "(b, bs)"
    body = QUANTISED.replace("(d, k)", "(d, k, c)").replace(
        "a = Conv", f"c = DequantizeLinear <axis = 0> {given} a = Conv"
    )
    codes = np.array([900, -40_000, 7, 123_456], np.int32)
    values = {"b": codes, "bs": scale, "bz": np.zeros(scale.shape, np.int32)}
    return quantised(128, body=body, more=values)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("scale", [0.001, [0.001, 0.01, 0.1, 1e-4]], ids=["one", "each"])
def test_quantised_biases_become_the_floats_they_are(
    zero: bool, scale: float | list[float]
) -> None:
    network = with_bias(zero, np.array(scale, np.float32))
    after = biases_as_floats(network)
    onnx.checker.check_model(after, full_check=True)
    x = in_range(128)
    np.testing.assert_allclose(computed(after, x), computed(network, x), rtol=0, atol=0.011)
    kinds = {c.data_type for c in after.graph.initializer}
    assert TensorProto.INT32 not in kinds
    assert {n.output[0] for n in network.graph.node} - {n.output[0] for n in after.graph.node} == {
        "c"
    }
    assert biases_as_floats(after) is after


def test_networks_without_uint8_stay_as_they_are() -> None:
    once = to_signed_codes(quantised(3))
    assert to_signed_codes(once) is once
    assert to_signed_codes(shipped("c-dcscn/x2")) is shipped("c-dcscn/x2")


def test_quantisers_may_have_constants_as_nodes() -> None:
    after = to_signed_codes(constants_as_nodes(quantised(3)))
    onnx.checker.check_model(after, full_check=True)
    x = in_range(3)
    np.testing.assert_array_equal(computed(after, x), computed(to_signed_codes(quantised(3)), x))


@pytest.mark.parametrize("opset", [13, 17, 18, 19])
def test_half_precision_quantisers_get_the_opset_that_has_them(opset: int) -> None:
    """Before opset 18, the network contains a Split, whose form changed in that opset."""
    both = "p, r = Split <axis = 1> (d2) d3 = Add (p, r)" if opset < 18 else "d3 = Identity (d)"
    body = QUANTISED.replace("(d, k)", "(d3, k)").replace(
        "k = Deq", f"d2 = Concat <axis = 1> (d, d) {both} k = Deq"
    )
    network = quantised(3, opset=opset, body=body)
    after = for_tensorrt(network, "int8")
    assert_halved(after.network)
    assert [o.version for o in after.network.opset_import] == [19]
    x = in_range(3)
    expected = computed(to_signed_codes(network), x)
    assert np.abs(computed(after.network, x) - expected).mean() <= 0.005


def test_quantised_weights_alone_get_that_opset_too() -> None:
    body = """
        k = DequantizeLinear <axis = 0> (w, ws) a = Conv <pads = [1, 1, 1, 1]> (lr, k)
        sr = DepthToSpace <blocksize = 2> (a)"""
    network = quantised(0, body=body)
    after = for_tensorrt(network, "fp16").network
    assert [o.version for o in after.opset_import] == [19]
    onnx.checker.check_model(after, full_check=True)
    x = in_range(0)
    np.testing.assert_allclose(computed(after, x), computed(network, x), atol=0.01)


# ---- building with TensorRT-RTX


@pytest.fixture(scope="module")
def rtx() -> Library:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    return load_library("tensorrt-rtx")


OPTIONS = BuildOptions(sizes=Sizes.fixed((64, 48)), targets=("sm86",))


def planes_to_planes(network: onnx.ModelProto) -> bytes:
    return PlaneGraph(network=network, facts=NetworkFacts(scale=2, colour="y")).onnx((64, 48))


@pytest.mark.parametrize("weights", ["i1", "u1"])
def test_tensorrt_rtx_takes_symmetric_quantisers_only(rtx: Library, weights: str) -> None:
    with pytest.raises(BackendError):
        rtx.build(planes_to_planes(quantised(3, weights)), OPTIONS)
    ready = for_tensorrt(quantised(3, weights), "int8")
    assert len(rtx.build(planes_to_planes(ready.network), OPTIONS).plan) > 1000


@pytest.mark.parametrize("weights", ["i1", "u1"])
def test_tensorrt_rtx_takes_zero_points_left_out_and_quantised_biases(
    rtx: Library, weights: str
) -> None:
    bare = quantised(0, weights, body=BARE)
    for network in (bare, with_bias(False, np.array(0.001, np.float32))):
        ready = for_tensorrt(network, "int8")
        assert len(rtx.build(planes_to_planes(ready.network), OPTIONS).plan) > 1000


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_takes_rewritten_networks(rtx: Library, precision: str) -> None:
    ready = for_tensorrt(shipped("c-dcscn/x2"), precision)
    assert len(ready.notes) == (2 if precision == "fp32" else 3)
    assert len(rtx.build(planes_to_planes(ready.network), OPTIONS).plan) > 1000
