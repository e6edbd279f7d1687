"""Tests that exact rewrites do not change what a network computes."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from vsr.inference.backend import Backend
from vsr.network.onnx_inputs import sole_input
from vsr.network.onnx_tools import constants_of, set_constants
from vsr.network.rewrite.gpu import for_tensorrt, make_dense, pad_channels, prelu_as_relus
from vsr.network.rewrite.rounding import to_half

Array = npt.NDArray[Any]
Rewrite = Callable[[onnx.ModelProto], onnx.ModelProto]
ENGINES = Path(__file__).parents[2] / "engines"
NAMES = ("c-dcscn", "dcscn", "carn-m", "pcarn-m")
FILES = [
    f"{path.parent.name}/{path.stem}"
    for name in NAMES
    for path in sorted((ENGINES / name).glob("x*.onnx"))
    if not path.stem.endswith("int8")
]
EXACT: dict[str, Rewrite] = {
    "padded": pad_channels,
    "relu_pairs": prelu_as_relus,
    "dense": make_dense,
}
every_exact = pytest.mark.parametrize("rewrite", EXACT.values(), ids=EXACT)


def exactly(network: onnx.ModelProto) -> onnx.ModelProto:
    """Apply all exact rewrites, one after the other."""
    return prelu_as_relus(pad_channels(make_dense(network)))


@cache
def shipped(name: str) -> onnx.ModelProto:
    return onnx.load(ENGINES / f"{name}.onnx")


def parsed(body: str, channels: int = 3, weights: str = "", opset: int = 17) -> onnx.ModelProto:
    """Return a network `lr` -> `sr`; `body` is in ONNX's text form.

    `weights` lists tensors such as `w[8,3,3,3]` or a slope `s[8]`; their values are random.
    """
    head = f'<ir_version: 8, opset_import: ["" : {opset}]> test'
    sizes = f"(float[N,{channels},H,W] lr) => (float[N,C,sH,sW] sr)"
    model = onnx.parser.parse_model(f"{head} {sizes} {{{body}}}")
    rng = np.random.default_rng(1)
    for text in weights.split():
        name, _, dims = text.rstrip("]").partition("[")
        values = rng.normal(0, 0.3, [int(n) for n in dims.split(",")]).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.checker.check_model(model, full_check=True)
    return model


def kinds(network: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in network.graph.node]


def weights_of(network: onnx.ModelProto) -> dict[str, Array]:
    """Return the weights of every convolution, by the name of its output."""
    values = {c.name: numpy_helper.to_array(c) for c in network.graph.initializer}
    convs = [node for node in network.graph.node if node.op_type == "Conv"]
    return {node.output[0]: values[node.input[1]] for node in convs}


def widths(network: onnx.ModelProto) -> dict[str, int]:
    """Return the number of output channels of every convolution, by the name of its output."""
    return {name: len(weight) for name, weight in weights_of(network).items()}


def result(backend: Backend, network: onnx.ModelProto, size: tuple[int, int] = (13, 9)) -> Array:
    channels = sole_input(network).type.tensor_type.shape.dim[1].dim_value
    x = np.random.default_rng(2).random((2, channels, *size), np.float32)
    return np.asarray(backend.run(network.SerializeToString(), [x])[0])


def assert_equal(backend: Backend, network: onnx.ModelProto, rewrite: Rewrite) -> onnx.ModelProto:
    """Assert that a rewritten network is valid and equivalent, and the old one unchanged."""
    before = network.SerializeToString(deterministic=True)
    after = rewrite(network)
    assert network.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(after, full_check=True)
    expected = result(backend, network)
    assert expected.std() > 0.01
    np.testing.assert_allclose(result(backend, after), expected, rtol=0, atol=1e-5)
    used = {name for node in after.graph.node for name in node.input}
    assert {constant.name for constant in after.graph.initializer} <= used
    return after


def assert_halved(network: onnx.ModelProto) -> None:
    onnx.checker.check_model(network, full_check=True)
    tensors = (*network.graph.input, *network.graph.output)
    assert {t.type.tensor_type.elem_type for t in tensors} == {TensorProto.FLOAT16}
    kept = {node.input[2] for node in network.graph.node if node.op_type == "Resize"}
    constants = {c.name: c.data_type for c in network.graph.initializer}
    for node in network.graph.node:
        for found in node.attribute:
            if node.op_type == "Constant" and found.name == "value":
                constants[node.output[0]] = found.t.data_type
    for name, kind in constants.items():
        assert (kind == TensorProto.FLOAT) == (name in kept), name


# ---- shipped networks


@pytest.mark.parametrize("file", FILES)
def test_shipped_networks_compute_the_same(backend: Backend, file: str) -> None:
    after = assert_equal(backend, shipped(file), exactly)
    assert "PRelu" not in kinds(after)
    assert not any(a.name == "group" and a.i > 1 for n in after.graph.node for a in n.attribute)
    channels = sole_input(after).type.tensor_type.shape.dim[1].dim_value
    pictures = {channels, channels * 2**2, channels * 3**2}  # before and after the pixel shuffle
    assert {width for width in widths(after).values() if width % 8} <= pictures


def test_constants_are_set_without_changing_the_given_dict() -> None:
    model = parsed("sr = Conv (lr, w)", 3, "w[4,3,1,1]")
    given = {"w": np.zeros((4, 3, 1, 1), np.float32), "b": np.ones(4, np.float32)}
    set_constants(model, given)
    assert set(given) == {"w", "b"}
    found = constants_of(model)
    assert {name: float(value.mean()) for name, value in found.items()} == {"w": 0, "b": 1}


@every_exact
@pytest.mark.parametrize("name", NAMES)
def test_each_rewrite_alone_computes_the_same(
    backend: Backend, name: str, rewrite: Rewrite
) -> None:
    network, luma_only = shipped(f"{name}/x2"), "dcscn" in name
    touched = luma_only != (rewrite is make_dense)
    if rewrite is pad_channels:
        touched = name == "c-dcscn"  # the others' channels already are multiples of 8
    assert (rewrite(network) is not network) == touched
    if touched:
        assert_equal(backend, network, rewrite)


@every_exact
@pytest.mark.parametrize("name", NAMES)
def test_rewriting_again_changes_nothing(name: str, rewrite: Rewrite) -> None:
    once = rewrite(shipped(f"{name}/x2"))
    assert rewrite(once) is once


# ---- padding


TAIL = "c = Conv <pads = [1, 1, 1, 1]> (b, v) sr = DepthToSpace <blocksize = 2> (c)"
HEAD = "a = Conv <pads = [1, 1, 1, 1]> (lr, w)"


@pytest.mark.parametrize("slope", ["1", "1,1,1", "10,1,1", "1,10,1,1"])
@pytest.mark.parametrize(
    "rewrite", [pad_channels, prelu_as_relus, exactly], ids=lambda f: f.__name__
)
def test_slopes_of_every_shape(backend: Backend, slope: str, rewrite: Rewrite) -> None:
    network = parsed(f"{HEAD} b = PRelu (a, s) {TAIL}", 3, f"w[10,3,3,3] s[{slope}] v[4,10,3,3]")
    after = assert_equal(backend, network, rewrite)
    if rewrite is not prelu_as_relus:
        assert widths(after) == {"a": 16, "c": 4}


def test_a_slope_per_column_is_none_per_channel(backend: Backend) -> None:
    network = parsed(f"{HEAD} b = PRelu (a, s) {TAIL}", 3, "w[9,3,3,3] s[9] v[4,9,3,3]")
    assert pad_channels(network) is network  # pictures are 9 wide, like the 9 channels
    assert_equal(backend, network, prelu_as_relus)


@pytest.mark.parametrize("op", ["Relu", "LeakyRelu <alpha = 0.3>", "Tanh"])
def test_activations_that_keep_zero_are_padded_through(backend: Backend, op: str) -> None:
    name, _, attributes = op.partition(" ")
    network = parsed(f"{HEAD} b = {name} {attributes} (a) {TAIL}", 3, "w[11,3,3,3] v[4,11,3,3]")
    assert widths(assert_equal(backend, network, pad_channels)) == {"a": 16, "c": 4}


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        (f"{HEAD} b = Sigmoid (a) {TAIL}", "v[4,10,3,3]"),
        (f"{HEAD} b = Add (a, one) {TAIL}", "one[1] v[4,10,3,3]"),
        (f"{HEAD} p, q = Split <axis = 1> (a) b = Mul (p, q) {TAIL}", "v[4,5,3,3]"),
        (f"{HEAD} b = Conv <group = 5, pads = [1,1,1,1]> (a, g) {TAIL}", "g[5,2,3,3] v[4,5,3,3]"),
        (f"{HEAD} m = Identity (a) b = Concat <axis = 1> (a, m) {TAIL}", "v[4,20,3,3]"),
        (f"{HEAD} b = Concat <axis = 1> (a, lr) {TAIL}", "v[4,13,3,3]"),
        (f"{HEAD} b = Concat <axis = 2> (a, a) {TAIL}", "v[4,10,3,3]"),
        (f"{HEAD} b = Concat <axis = -3> (a, a) {TAIL}", "v[4,20,3,3]"),
        (f"{HEAD} r = Relu (a) t = Sigmoid (a) b = Concat <axis = 1> (r, t) {TAIL}", "v[4,20,3,3]"),
        (f"{HEAD} sr = Relu (a)", ""),
        ("sr = Conv <pads = [1, 1, 1, 1]> (lr, w)", ""),
    ],
    ids=[
        "sigmoid", "sum", "split", "grouped", "concat-of-other", "concat-of-input",
        "concat-of-rows", "axis-from-the-end", "two-readers", "output", "output-itself",
    ],
)  # fmt: skip
def test_channels_that_others_read_keep_their_number(
    backend: Backend, body: str, weights: str
) -> None:
    network = parsed(body, 3, f"w[10,3,3,3] {weights}")
    assert pad_channels(network) is network
    assert_equal(backend, network, exactly)


def test_an_output_that_is_read_on_keeps_its_channels(backend: Backend) -> None:
    body = f"sr = Conv <pads = [1, 1, 1, 1]> (lr, w) b = Relu (sr) {TAIL}".replace(
        "sr = D", "x = D"
    )
    network = parsed(body, 3, "w[10,3,3,3] v[4,10,3,3]")
    assert_equal(backend, network, pad_channels)
    assert widths(pad_channels(network))["sr"] == 10


def test_one_input_that_may_not_grow_stops_a_concat_and_no_more(backend: Backend) -> None:
    body = f"""
        {HEAD} r = Relu (a) d = Conv (r, d1) e = Relu (d)
        f = Conv (e, f1) t = Sigmoid (f) b = Concat <axis = 1> (e, t) {TAIL}"""
    network = parsed(body, 3, "w[10,3,3,3] d1[12,10,1,1] f1[9,12,1,1] v[4,21,3,3]")
    after = assert_equal(backend, network, pad_channels)
    assert widths(after) == {"a": 16, "d": 12, "f": 9, "c": 4}


def test_nested_concats_know_where_their_channels_lie(backend: Backend) -> None:
    body = f"""
        {HEAD} r = PRelu (a, s) d = Conv (r, d1) e = PRelu (d, t) both = Concat <axis = 1> (r, e)
        f = Conv (both, f1) g = PRelu (f, s) b = Concat <axis = 1> (g, both, r) {TAIL}"""
    weights = "w[10,3,3,3] d1[13,10,1,1] f1[10,23,1,1] s[10,1,1] t[1,13,1,1] v[4,43,3,3]"
    after = assert_equal(backend, parsed(body, 3, weights), pad_channels)
    assert widths(after) == {"a": 16, "d": 16, "f": 16, "c": 4}
    assert weights_of(after)["c"].shape[1] == 16 + 32 + 16


def test_a_slope_behind_a_concat_follows_its_channels(backend: Backend) -> None:
    body = f"{HEAD} d = Conv (lr, d1) both = Concat <axis = 1> (a, d) b = PRelu (both, s) {TAIL}"
    network = parsed(body, 3, "w[10,3,3,3] d1[13,3,1,1] s[1,23,1,1] v[4,23,3,3]")
    assert widths(assert_equal(backend, network, pad_channels)) == {"a": 16, "d": 16, "c": 4}


def test_fewer_channels_than_the_alignment_are_left(backend: Backend) -> None:
    network = parsed(f"{HEAD} b = Relu (a) {TAIL}", 3, "w[7,3,3,3] v[4,7,3,3]")
    assert pad_channels(network) is network
    assert widths(pad_channels(network, multiple=5)) == {"a": 10, "c": 4}
    assert_equal(backend, network, partial(pad_channels, multiple=5))


@pytest.mark.parametrize("biased", ["w", "d1", "w d1", ""])
def test_shared_weights_grow_where_they_must(backend: Backend, biased: str) -> None:
    """Two convolutions share `d1`: the input of one is padded, that of the other cannot be."""
    bias = {name: f", {name}b" if name in biased.split() else "" for name in ("w", "d1")}
    body = f"""
        a = Conv (lr, w{bias["w"]}) r = Relu (a) d = Conv (r, d1{bias["d1"]}) e = Relu (d)
        t = Sigmoid (e) f = Conv (t, d1{bias["d1"]}) b = Relu (f) {TAIL}"""
    weights = "w[10,3,1,1] wb[10] d1[10,10,1,1] d1b[10] v[4,10,3,3]"
    after = assert_equal(backend, parsed(body, 3, weights), exactly)
    assert widths(after) == {"a": 16, "d": 10, "f": 16, "c": 4}


# ---- the other exact rewrites


def test_grouped_convolutions_that_share_weights(backend: Backend) -> None:
    body = f"""
        a = Conv <pads = [1, 1, 1, 1]> (lr, w) d = Conv <group = 2, pads = [1,1,1,1]> (a, g)
        e = Conv <group = 2, pads = [1,1,1,1]> (d, g, bias) f = Concat <axis = 1> (e, d)
        b = Conv <group = 4, pads = [1,1,1,1]> (f, g) {TAIL}"""
    network = parsed(body, 3, "w[8,3,3,3] g[8,4,3,3] bias[8] v[4,8,3,3]")
    after = assert_equal(backend, network, make_dense)
    assert {n: w.shape[1] for n, w in weights_of(after).items()} == {
        "a": 3, "d": 8, "e": 8, "b": 16, "c": 8,
    }  # fmt: skip


def test_depthwise_convolutions_become_diagonal(backend: Backend) -> None:
    body = f"a = Conv (lr, w) b = Conv <group = 8, pads = [1, 1, 1, 1]> (a, g) {TAIL}"
    network = parsed(body, 3, "w[8,3,1,1] g[8,1,3,3] v[4,8,3,3]")
    weight = weights_of(assert_equal(backend, network, make_dense))["b"]
    assert np.count_nonzero(weight) == 8 * 9


def test_an_activation_may_be_the_output(backend: Backend) -> None:
    network = parsed("a = Conv (lr, w) sr = PRelu (a, s)", 3, "w[5,3,1,1] s[5,1,1]")
    assert kinds(assert_equal(backend, network, prelu_as_relus))[-1] == "Sub"


def constants_as_nodes(network: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with Constant nodes instead of initializers, as some exporters write it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    nodes = [
        helper.make_node("Constant", [], [constant.name], value=constant)
        for constant in copy.graph.initializer
    ]
    nodes += list(copy.graph.node)
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(nodes)
    return copy


def test_constants_may_be_nodes(backend: Backend) -> None:
    body = f"a = Conv (lr, w, wb) r = PRelu (a, s) b = Conv <group = 2> (r, g) {TAIL}"
    network = parsed(body, 3, "w[10,3,1,1] wb[10] s[10,1,1] g[10,5,1,1] v[4,10,3,3]")
    after = assert_equal(backend, constants_as_nodes(network), exactly)
    assert widths(after) == {"a": 16, "b": 16, "c": 4}
    assert "Constant" not in kinds(after)
    assert_halved(to_half(constants_as_nodes(network)))


def test_weights_may_be_listed_as_inputs(backend: Backend) -> None:
    """Exporters listed them before IR version 4."""
    body = f"{HEAD} r = PRelu (a, s) b = Conv <group = 2> (r, g) {TAIL}"
    network = parsed(body, 3, "w[10,3,3,3] s[10,1,1] g[10,5,1,1] v[4,10,3,3]")
    network.ir_version = 3
    network.graph.input.extend(
        helper.make_tensor_value_info(c.name, TensorProto.FLOAT, c.dims)
        for c in network.graph.initializer
    )
    for rewrite in (*EXACT.values(), exactly):
        after = assert_equal(backend, network, rewrite)
        assert sole_input(after).name == "lr"
    assert_halved(for_tensorrt(network, "fp16").network)
