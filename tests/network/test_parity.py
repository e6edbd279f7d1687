"""Tests that every rewritten network computes the same as its training form in torch.

The training form is the paper's, layer for layer, with the weights read back from `engines/`.
tests/test_engines.py limits the loss of int8 on benchmarks.
"""

from typing import Any

import onnx
import pytest

from train.measure.shipped import openvino_enlarge
from train.nets import Net, build
from train.ship.export import difference
from train.ship.imports import load_into, read_weights
from train.ship.naming import network_and_purpose
from vsr.inference import models
from vsr.network.onnx_inputs import flatten
from vsr.network.rewrite.cpu import for_cpu
from vsr.network.rewrite.gpu import for_tensorrt, make_dense

pytestmark = pytest.mark.usefixtures("one_thread")
SHIPPED = [(name, scale) for name in models.manifest() for scale in models.scales(name)]


def trained(name: str, scale: int) -> tuple[Net, onnx.ModelProto]:
    """Return the training form with the shipped weights, and the shipped network."""
    path = models.ENGINES / models.manifest()[name][f"x{scale}"]["file"]
    network = network_and_purpose(name)[0]
    net = build(network) if network == "csrcnn" else build(network, (scale,))  # all of a cascade
    weights, _ = read_weights(path, net)
    load_into(net, weights, path)
    return net.eval(), onnx.load_model(str(path))


@pytest.mark.parametrize(("name", "scale"), SHIPPED)
def test_every_rewritten_form_is_the_training_form(name: str, scale: int) -> None:
    net, shipped = trained(name, scale)
    flat = flatten(shipped)
    forms: dict[str, Any] = {
        "TensorRT": for_tensorrt(shipped, "fp32").network,
        "TensorRT, dense": for_tensorrt(make_dense(flat), "fp32").network,
        "CPU": for_cpu(flat),
    }
    for words, form in forms.items():
        worst = difference(net, scale, openvino_enlarge(form.SerializeToString()), 21, 26)
        assert worst < 1e-5, words


@pytest.mark.parametrize(("name", "scale"), SHIPPED)
def test_half_precision_is_near_the_training_form(name: str, scale: int) -> None:
    """Only weights are rounded; tests/network/test_rewrite_rounding.py rounds activations too."""
    net, shipped = trained(name, scale)
    form = for_tensorrt(shipped, "fp16").network
    run = openvino_enlarge(form.SerializeToString())

    def halved(x: Any) -> Any:
        return run(x.astype("float16")).astype("float32")

    assert difference(net, scale, halved, 21, 26) < 0.01
