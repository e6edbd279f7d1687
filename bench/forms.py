"""Builds the ONNX networks that `bench.engines` times: training form, deploy form, dense layer."""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from train.nets import Net, build
from train.ship.export import channels
from train.ship.imports import load_into, read_weights
from train.ship.naming import network_and_purpose
from vsr.network.onnx_inputs import flatten
from vsr.network.rewrite.cpu import for_cpu

PEAK_CHANNELS: Final = 64


def peak_network(width: int, height: int) -> tuple[bytes, float]:
    """Return a dense 3x3 convolution of 64 channels and its number of operations."""
    n = PEAK_CHANNELS
    weight = np.random.default_rng(2).standard_normal((n, n, 3, 3)).astype(np.float32)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n, height, width])
        for name in ("x", "y")
    ]
    node = helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1] * 4)
    constants = [numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph([node], "peak", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString(), 2.0 * n * n * 9 * width * height


class _TrainingForm(torch.nn.Module):
    """The paper's network, layer for layer, at one scale."""

    def __init__(self, net: Net, scale: int) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.net(x, self.scale)
        return result


def training_onnx(net: Net, scale: int, width: int, height: int) -> bytes:
    """Return the training form as ONNX for one size, as bicubic is a matrix of that size."""
    example = torch.rand(1, channels(net), height, width)
    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _TrainingForm(net, scale).eval(),
            (example,),
            buffer,  # type: ignore[arg-type]  # its stub accepts only paths
            input_names=["lr"],
            output_names=["sr"],
            opset_version=18,
            dynamo=True,
        )
    return buffer.getvalue()


def trained(name: str, scale: int, path: Path) -> Net:
    """Return the training form of a shipped model with its weights."""
    net = build(network_and_purpose(name)[0], (scale,))
    weights, _ = read_weights(path, net)
    load_into(net, weights, path)
    return net.eval()


def deployed_onnx(path: Path) -> bytes:
    """Return a shipped network as `vsr` runs it on a CPU."""
    network = flatten(onnx.load_model(str(path)))
    return bytes(for_cpu(network).SerializeToString())
