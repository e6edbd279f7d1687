"""Tests of rt: trained branches merge into one convolution; the deploy form is a plain stack."""

from pathlib import Path

import onnx
import pytest
import torch
from torch.nn import functional

from tests.networks import roughened
from tests.train.conftest import Traces
from train.measure.counting import multadds, parameters
from train.nets import Rt, at_scale, build
from train.nets.rt import Layer, RtConfig
from train.ship.deploy import deploy
from train.ship.imports import load_into, read_weights

pytestmark = pytest.mark.usefixtures("one_thread")


def _rough(layer: Layer) -> Layer:
    for values in layer.parameters():
        torch.nn.init.normal_(values, std=0.3)
    return layer


@pytest.mark.parametrize(("source", "target"), [(1, 8), (8, 8), (8, 4)])
def test_a_layer_is_the_sum_of_its_branches(source: int, target: int) -> None:
    """Compare with RepVGG section 3.3, computed per branch, including the borders."""
    torch.manual_seed(1)
    layer = _rough(Layer(source, target, RtConfig()))
    x = torch.randn(2, source, 7, 5)
    inside = functional.conv2d(x, layer.squeeze[:, :, None, None])
    expected = functional.conv2d(x, layer.weight, layer.bias, padding=1)
    expected = expected + functional.conv2d(inside, layer.spread, padding=1)
    if source == target:
        expected = expected + layer.same[:, None, None] * x
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.merged()(x), expected, rtol=0, atol=1e-5)


def test_a_new_layer_is_its_3x3_branch_and_the_identity() -> None:
    layer, x = Layer(8, 8, RtConfig()), torch.randn(1, 8, 6, 6)
    expected = functional.conv2d(x, layer.weight, layer.bias, padding=1) + x
    torch.testing.assert_close(layer(x), expected)


def test_every_branch_is_trained() -> None:
    net = build("rt", width=16, depth=1)
    assert isinstance(net, Rt)
    for layer in net.stack:
        _rough(layer)
    net(torch.rand(1, 1, 9, 9), 2).square().mean().backward()
    for name, values in net.named_parameters():
        if values.numel():
            assert values.grad is not None, name
            assert values.grad.abs().max() > 0, name


def test_what_is_deployed_is_a_plain_stack(traces: Traces) -> None:
    net = roughened(build("rt", width=16, depth=3))
    model = traces.to_onnx(net, 2)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Conv") == 5 + 1  # plus the bicubic skip
    assert kinds.count("Relu") == 4
    assert set(kinds) <= {"Conv", "Relu", "Pad", "Add", "DepthToSpace", "Constant"}
    assert not any(node.op_type == "Concat" for node in model.graph.node)


def test_its_size_is_counted_as_it_is_deployed() -> None:
    """Expect 9 * width * (1 + depth * width + scale^2) multiplications per LR pixel."""
    net = build("rt", width=32, depth=8)
    weights = 9 * 32 * (1 + 8 * 32 + 4)
    assert multadds(net, 2) == weights * 1280 * 720 // 4
    assert parameters(at_scale(net, 2)) == weights + 9 * 32 + 4
    cheap = sum(p.numel() for n, p in deploy(net, 2).named_parameters() if n.startswith("layers"))
    assert cheap == weights + 9 * 32 + 4


def test_its_onnx_is_read_back_and_trained_on(tmp_path: Path, traces: Traces) -> None:
    net = roughened(build("rt", width=16, depth=2))
    path = tmp_path / "rt.onnx"
    onnx.save(traces.to_onnx(net, 2), str(path))
    again = build("rt", width=16, depth=2)
    weights, _ = read_weights(path, again)
    load_into(again, weights, path)
    x = torch.rand(1, 1, 12, 10)
    with torch.inference_mode():
        torch.testing.assert_close(again(x, 2), net(x, 2), rtol=0, atol=1e-5)


def test_it_has_one_scale() -> None:
    with pytest.raises(ValueError, match="rt supports one scale per network"):
        build("rt", (2, 3))
