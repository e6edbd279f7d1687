"""Saves tests of training the time that torch takes to trace the same network again."""

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from train.nets import Net
from train.ship import export
from train.ship.deploy import deploy


@pytest.fixture(scope="session", autouse=True)
def traced_once() -> Iterator[None]:
    """An export whose network was traced before takes that graph, with its own weights put in.

    Tracing takes seconds (sizes are symbolic there). What comes out is still compared with torch by
    the export itself, and tests of `to_onnx` alone call the real one.
    """
    traced: dict[str, onnx.ModelProto] = {}
    trace = export.to_onnx

    def to_onnx(net: Net, scale: int) -> onnx.ModelProto:
        weights = {k: v.detach().numpy() for k, v in deploy(net, scale).state_dict().items()}
        shapes = [(name, value.shape) for name, value in weights.items()]
        key = repr((type(net), net.config, scale, shapes))
        if key not in traced:
            found = trace(net, scale)
            if weights.keys() <= {tensor.name for tensor in found.graph.initializer}:
                traced[key] = found  # else equal weights were made one, as new networks have them
            return found
        model = onnx.ModelProto()
        model.CopyFrom(traced[key])
        for tensor in model.graph.initializer:
            if tensor.name in weights:
                values = np.ascontiguousarray(weights[tensor.name])
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "to_onnx", to_onnx)
        yield
