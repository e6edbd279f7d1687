"""Tests that rewrites for OpenVINO's CPU plugin do not change results, including edge cases."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest

from vsr.inference import models
from vsr.inference.backend import Backend
from vsr.network.onnx_inputs import flatten, sole_input
from vsr.network.onnx_tools import attribute
from vsr.network.rewrite.cpu import for_cpu

SHIPPED = [(name, scale) for name in models.manifest() for scale in models.scales(name)]
HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def network(body: str, channels: int = 16, out: str = "float[N,C,H,W] sr") -> onnx.ModelProto:
    """Return a network `lr` -> `sr`; `w_<a>x<b>` and `b_<a>` become weights of those shapes."""
    model = onnx.parser.parse_model(f"{HEAD} a (float[N,{channels},H,W] lr) => ({out}) {{{body}}}")
    rng = np.random.default_rng(3)
    made = {output for node in model.graph.node for output in node.output} | {"lr", ""}
    for name in {name for node in model.graph.node for name in node.input} - made:
        kind, _, shape = name.partition("_")
        sizes = [int(n) for n in shape.split("_")[0].split("x")]
        sizes += [1, 1] if kind == "w" and len(sizes) == 2 else []
        values = (0.3 * rng.standard_normal(sizes)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def both(backend: Backend, before: onnx.ModelProto) -> tuple[npt.NDArray[np.float32], ...]:
    """Return results before and after the rewrite, for a batch of 2 random pictures of odd size."""
    given = before.SerializeToString()
    after = for_cpu(flatten(before))
    onnx.checker.check_model(after)
    assert before.SerializeToString() == given  # the caller's network is unchanged
    channels = sole_input(before).type.tensor_type.shape.dim[1].dim_value
    x = np.random.default_rng(5).random((2, channels, 13, 17), np.float32)
    run = [backend.run(m.SerializeToString(), [x])[0] for m in (before, after)]
    return np.asarray(run[0]), np.asarray(run[1])


@pytest.mark.parametrize(("name", "scale"), SHIPPED)
def test_shipped_networks_stay_equal(backend: Backend, name: str, scale: int) -> None:
    path = Path(models.ENGINES / models.manifest()[name][f"x{scale}"]["file"])
    before, after = both(backend, onnx.load_model(str(path)))
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        # consecutive grouped convolutions, read as a whole and in parts
        """a = Conv <group = 2> (lr, w_16x8, b_16) r = Relu(a) c = Conv <group = 2> (r, w_16x8_2)
           d = Add(c, r) sr = Relu(d)""",
        # followed by other groups: joined and split again
        """a = Conv <group = 2> (lr, w_32x8) sr = Conv <group = 4> (a, w_32x8_3)""",
        # a narrow and a wide convolution of parts
        """a = Conv <group = 2> (lr, w_16x8) c = Conv (a, w_8x16) d = Conv (a, w_48x16)
           sr = Concat <axis = 1> (c, d)""",
        # a Concat that another node reads too, and a nested Concat
        """a = Conv (lr, w_8x16) c = Concat <axis = 1> (lr, a) d = Conv (c, w_8x24, b_8)
           e = Concat <axis = 1> (c, d) f = Conv (e, w_32x32) g = Relu(c) h = Conv (g, w_32x24)
           sr = Add(f, h)""",
        # an Add that broadcasts one channel to many, in a Concat
        """a = Conv (lr, w_1x16) c = Conv (lr, w_16x16) d = Add(a, c)
           e = Concat <axis = 1> (d, lr) sr = Conv (e, w_4x32, b_4)""",
        # a Concat of one input, also nested
        """a = Conv (lr, w_8x16) c = Concat <axis = 1> (a) sr = Conv (c, w_4x8, b_4)""",
        """a = Conv (lr, w_8x16) c = Concat <axis = 1> (a) d = Concat <axis = 1> (c)
           e = Conv (d, w_8x8, b_8) sr = Relu(e)""",
        # weights that are computed, so their values are unknown
        """a = Conv (lr, w_8x16) c = Conv (lr, w_8x16_2) d = Concat <axis = 1> (a, c)
           w = Identity (w_4x16) sr = Conv (d, w, b_4)""",
        """a = Conv (lr, w_8x16) c = Concat <axis = 1> (a) w = Relu (w_8x8)
           d = Conv (c, w) e = Concat <axis = 1> (c, d) sr = Conv (e, w_4x16)""",
        # two convolutions that share a bias
        """a = Conv (lr, w_16x16, b_16) c = Conv (a, w_16x16_2, b_16) sr = Relu(c)""",
        # depthwise convolutions are unchanged
        """sr = Conv <group = 16, pads = [1, 1, 1, 1]> (lr, w_16x1x3x3)""",
    ],
)
def test_hand_made_networks_stay_equal(backend: Backend, body: str) -> None:
    before, after = both(backend, network(body))
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_a_split_of_rows_is_none_of_channels(backend: Backend) -> None:
    """The picture has 16 rows, as many as the concatenated halves have channels."""
    before = network(
        """a = Conv (lr, w_4x16) c = Conv (lr, w_12x16)
           e, f = Split <axis = 2> (a, n_2) g, h = Split <axis = 2> (c, n_2)
           d = Concat <axis = 1> (e, g) sr = Conv (d, w_4x16_2)""",
    )
    sizes = next(c for c in before.graph.initializer if c.name == "n_2")
    sizes.CopyFrom(onnx.numpy_helper.from_array(np.array([8, 8]), "n_2"))
    x = np.random.default_rng(5).random((1, 16, 16, 5), np.float32)
    plain, rewritten = (
        np.asarray(backend.run(m.SerializeToString(), [x])[0]) for m in (before, for_cpu(before))
    )
    np.testing.assert_allclose(rewritten, plain, atol=1e-5)


def test_carn_m_loses_its_groups_and_dense_concats() -> None:
    path = models.ENGINES / models.manifest()["carn-m"]["x2"]["file"]
    after = for_cpu(flatten(onnx.load_model(str(path))))
    convolutions = [node for node in after.graph.node if node.op_type == "Conv"]
    assert {attribute(node, "group", 1) for node in convolutions} == {1}
    biases = [node.input[2] for node in convolutions if len(node.input) > 2]
    assert len(biases) == len(set(biases))


def test_fine_groups_keep_their_kernels() -> None:
    after = for_cpu(network("sr = Conv <group = 16, pads = [1, 1, 1, 1]> (lr, w_16x1x3x3)"))
    assert [attribute(node, "group") for node in after.graph.node] == [16]
