"""Provides a cache of traced ONNX graphs, so that no network is traced twice."""

import copy
import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from train.nets import Net
from train.ship import export
from train.ship.deploy import deploy


class Traces:
    """Cache of traced graphs in a folder that all processes of a test run share."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._trace = folder, export.to_onnx

    def anew(self, net: Net, scale: int) -> onnx.ModelProto:
        """Trace `net` with the real `to_onnx`; save the graph if all weights are tensors in it."""
        made, weights = self._trace(net, scale), _weights(net, scale)
        names = _names(made, weights)
        if set(names.values()) == weights.keys():
            path = self._path(net, scale)  # otherwise the exporter merged equal weights
            kept = onnx.ModelProto()
            kept.CopyFrom(made)
            helper.set_model_props(kept, names)
            beside = path.with_suffix(f".{os.getpid()}")
            beside.write_bytes(kept.SerializeToString())
            beside.replace(path)
        return made

    def to_onnx(self, net: Net, scale: int) -> onnx.ModelProto:
        """Return the cached graph of this architecture with the weights of `net`, or trace it."""
        path = self._path(net, scale)
        if not path.exists():
            self.anew(_apart(net), scale)
        if not path.exists():  # pruned filters are back in the random copy
            return self.anew(net, scale)
        model, weights = onnx.load(path), _weights(net, scale)
        names = {prop.key: prop.value for prop in model.metadata_props}
        del model.metadata_props[:]
        for tensor in model.graph.initializer:
            if tensor.name in names:
                values = weights[names[tensor.name]].reshape(tuple(tensor.dims))
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
        return model

    def _path(self, net: Net, scale: int) -> Path:
        shapes = [(name, value.shape) for name, value in _weights(net, scale).items()]
        config = asdict(net.config) | {"scales": (scale,)}  # the graph has this scale only
        key = repr((type(net), config, shapes))
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.onnx"


def _apart(net: Net) -> Net:
    """Return a copy with random weights; those of a new network can be equal to each other."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        for weights in other.parameters():
            weights.copy_(torch.rand_like(weights))
    return other


def _names(model: onnx.ModelProto, weights: dict[str, npt.NDArray[np.float32]]) -> dict[str, str]:
    """Map the graph's tensors to weights, by name or, if they were reshaped, by their values."""
    names = {}
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).ravel()
        same = [k for k, v in weights.items() if np.array_equal(v.ravel(), values)]
        if tensor.name in weights or len(same) == 1:
            names[tensor.name] = tensor.name if tensor.name in weights else same[0]
    return names


def _weights(net: Net, scale: int) -> dict[str, npt.NDArray[np.float32]]:
    return {k: v.detach().numpy() for k, v in deploy(net, scale).state_dict().items()}


@pytest.fixture(scope="session", autouse=True)
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """Make exports reuse the traced graph of the same architecture with the current weights.

    Tracing takes seconds, because sizes are symbolic. The export still compares the result with
    torch. Tests of `to_onnx` itself call `Traces.anew`.
    """
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent  # shared by all workers
    folder = folder / "traced"
    folder.mkdir(exist_ok=True)
    made = Traces(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "to_onnx", made.to_onnx)
        yield made
