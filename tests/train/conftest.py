"""Saves tests of training the time that torch takes to trace the same network again."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from train.nets import Net
from train.ship import export
from train.ship.deploy import deploy


class Traces:
    """Graphs of networks that were traced; every process of a test run finds them."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._trace = folder, export.to_onnx

    def anew(self, net: Net, scale: int) -> onnx.ModelProto:
        """`to_onnx` as it is; the graph is kept for others."""
        made, weights = self._trace(net, scale), _weights(net, scale)
        if weights.keys() <= {tensor.name for tensor in made.graph.initializer}:
            path = self._path(net, scale)  # else equal weights were made one, as new networks have
            beside = path.with_suffix(f".{os.getpid()}")
            beside.write_bytes(made.SerializeToString())
            beside.replace(path)
        return made

    def to_onnx(self, net: Net, scale: int) -> onnx.ModelProto:
        """The graph of an equal network with the weights of this one, else `anew`."""
        path = self._path(net, scale)
        if not path.exists():
            return self.anew(net, scale)
        model, weights = onnx.load(path), _weights(net, scale)
        for tensor in model.graph.initializer:
            if tensor.name in weights:
                values = np.ascontiguousarray(weights[tensor.name])
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model

    def _path(self, net: Net, scale: int) -> Path:
        shapes = [(name, value.shape) for name, value in _weights(net, scale).items()]
        config = asdict(net.config) | {"scales": (scale,)}  # its other scales are not in the graph
        key = repr((type(net), config, shapes))
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.onnx"


def _weights(net: Net, scale: int) -> dict[str, npt.NDArray[np.float32]]:
    return {k: v.detach().numpy() for k, v in deploy(net, scale).state_dict().items()}


@pytest.fixture(scope="session", autouse=True)
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """An export whose network was traced before takes that graph, with its own weights put in.

    Tracing takes seconds (sizes are symbolic there). What comes out is still compared with torch by
    the export itself, and tests of `to_onnx` alone call the real one.
    """
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent  # of all workers
    folder = folder / "traced"
    folder.mkdir(exist_ok=True)
    made = Traces(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "to_onnx", made.to_onnx)
        yield made
