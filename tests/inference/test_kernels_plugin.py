"""Tests that residual-E blocks, and nothing else, become nodes of the TensorRT plugin.

The plugin itself needs TensorRT and a GPU; here the CPU runs the kernel of its node.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tests.host_kernels import CARN_M, Host, built, carn_m_block
from vsr.errors import BackendError
from vsr.inference.kernels import pack_residual_e, residual_e_launch
from vsr.inference.kernels.plugin import NAME, fuse_residual_e, register

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Yield the kernels as a library for the CPU."""
    with built(tmp_path_factory.mktemp("kernels")) as host:
        yield host


def test_the_plugin_needs_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.delitem(sys.modules, "tensorrt.plugin", raising=False)
    with pytest.raises(BackendError, match="not tensorrt-rtx") as caught:
        register(86)
    assert "\n" not in str(caught.value)


def plugin_nodes(network: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in network.graph.node if node.op_type == NAME]


def test_carn_m_has_nine_blocks_with_their_weights() -> None:
    network = onnx.load(CARN_M)
    fused, count = fuse_residual_e(network)
    nodes = plugin_nodes(fused)
    assert count == len(nodes) == 9
    assert (64, 16, 3, 3) not in {tuple(c.dims) for c in fused.graph.initializer}
    constants = {c.name: numpy_helper.to_array(c) for c in fused.graph.initializer}
    assert len({tuple(node.input[1:]) for node in nodes}) == 3  # shared within a cascading block
    weights, bias = pack_residual_e(*carn_m_block())
    np.testing.assert_array_equal(constants[nodes[0].input[1]], weights)
    np.testing.assert_array_equal(constants[nodes[0].input[2]], bias)
    assert constants[nodes[0].input[1]].dtype == np.float16
    read = {name for node in fused.graph.node for name in node.input}
    assert set(constants) <= read
    attributes = {a.name: helper.get_attribute_value(a) for a in nodes[0].attribute}
    assert attributes == {"plugin_namespace": b"vsr", "plugin_version": b"1", "aot": 1}
    assert network == onnx.load(CARN_M)


def test_the_rewritten_network_computes_the_same(host: Host) -> None:
    class Plugin(OpRun):
        op_domain = ""

        def _run(self, x: Array, weights: Array, bias: Array, **_: object) -> tuple[Array]:
            n, _channels, height, width = x.shape
            nhwc = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
            how, sizes = residual_e_launch(n, height, width), (height, width)
            y = host.run("residual_e", how, nhwc, weights, bias, *sizes, shape=nhwc.shape)
            return (np.ascontiguousarray(y.transpose(0, 3, 1, 2)),)

    Plugin.__name__ = NAME
    network = onnx.load(CARN_M)
    lr = np.random.default_rng(8).random((1, 3, 6, 9), np.float32)
    (expected,) = ReferenceEvaluator(network).run(None, {"lr": lr})
    (result,) = ReferenceEvaluator(fuse_residual_e(network)[0], new_ops=[Plugin]).run(
        None, {"lr": lr}
    )
    assert expected.std() > 0.1
    assert np.abs(result - expected).max() < 0.005  # about one 8-bit code


BLOCK = """<ir_version: 8, opset_import: ["" : 17]>
net (T[N, 64, H, W] x) => (T[N, 64, H, W] y)
<T[64, 16, 3, 3] w1, T[64] b1, T[64, 16, 3, 3] w2, T[64, 64, 1, 1] w3, T[64] b3> {
    c1 = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w1, b1)
    r1 = Relu (c1)
    c2 = Conv <group = 4, pads = [1, 1, 1, 1]> (r1, w2)
    r2 = Relu (c2)
    c3 = Conv (r2, w3, b3)
    s = Add (x, c3)
    y = Relu (s)
}"""


def small_network(text: str, kind: str = "float16") -> onnx.ModelProto:
    """Return the network of an ONNX text, such as `BLOCK`, with random weights."""
    network: onnx.ModelProto = parser.parse_model(text.replace("T[", f"{kind}["))
    random = np.random.default_rng(9)
    shapes = {
        "w1": (64, 16, 3, 3), "w2": (64, 16, 3, 3), "w3": (64, 64, 1, 1), "b1": (64,), "b3": (64,),
    }  # fmt: skip
    del network.graph.initializer[:]
    for name, shape in shapes.items():
        array = random.standard_normal(shape).astype(
            kind.replace("float", "f").replace("f16", "f2")
        )
        network.graph.initializer.append(numpy_helper.from_array(array, name))
    return network


def test_a_float16_network_gets_no_casts_and_a_missing_bias_is_zero() -> None:
    network = small_network(BLOCK)
    fused, count = fuse_residual_e(network)
    assert count == 1
    assert [node.op_type for node in fused.graph.node] == [NAME]
    constants = {c.name: numpy_helper.to_array(c) for c in fused.graph.initializer}
    assert (constants[fused.graph.node[0].input[2]][64:128] == 0).all()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("group = 4, pads = [1, 1, 1, 1]> (r1", "group = 4, pads = [2, 0, 2, 0]> (r1"),
        ("<group = 4, pads", "<strides = [2, 2], group = 4, pads"),
        ("<group = 4, pads", "<dilations = [2, 2], group = 4, pads"),
        ("s = Add (x, c3)", "s = Add (r1, c3)"),
        ("s = Add (x, c3)", "s = Add (c3, c3)"),
        ("y = Relu (s)", "t = Relu (s)  y = Add (t, r2)"),
        ("r1 = Relu (c1)", "r1 = Identity (c1)"),
        ("y = Relu (s)", "y = Identity (s)"),
    ],
)
def test_what_is_no_residual_e_block_stays_as_it_is(old: str, new: str) -> None:
    assert old in BLOCK
    network = small_network(BLOCK.replace(old, new))
    fused, count = fuse_residual_e(network)
    assert count == 0
    assert fused == network
