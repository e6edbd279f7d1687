"""Tests that untrusted networks produce a picture or a one-line error."""

import itertools
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from bench.fuzz_networks import outcome_of, prepare_campaign
from bench.watchdog import run_all
from tests.fuzz.networks import CHANGES, hostile
from vsr.errors import ModelError
from vsr.inference import models
from vsr.inference.backend import Backend
from vsr.network.graph import bicubic_network


def test_40_damaged_or_hostile_networks() -> None:
    with prepare_campaign(1) as campaign:
        outcomes = list(run_all(campaign, range(40), outcome_of))
        data = campaign.corpus[0].read_bytes()
    assert [outcome for outcome in outcomes if outcome.is_finding] == []
    assert {outcome.end for outcome in outcomes} == {"done", "refused"}
    made = [hostile(data, 1, index) for index in range(50)]
    assert made == [hostile(data, 1, index) for index in range(50)]
    assert len(set(made)) > 40 > len(CHANGES)


def _of_one_size(network: onnx.ModelProto) -> None:
    dims = network.graph.input[0].type.tensor_type.shape.dim
    dims[2].dim_value, dims[3].dim_value = 2**20, 2**20


def _tiled(network: onnx.ModelProto) -> None:
    network.graph.node[-1].output[0] = "small"
    counts = helper.make_tensor("counts", TensorProto.INT64, [4], [1, 1, 2**16, 2**16])
    network.graph.initializer.append(counts)
    end = network.graph.output[0].name
    network.graph.node.append(helper.make_node("Tile", ["small", "counts"], [end]))


def _deep(network: onnx.ModelProto) -> None:
    end, network.graph.node[-1].output[0] = network.graph.output[0].name, "r0"
    names = [*(f"r{k}" for k in range(50_000)), end]
    for before, after in itertools.pairwise(names):
        network.graph.node.append(helper.make_node("Relu", [before], [after]))


def _external(network: onnx.ModelProto) -> None:
    weight = next(each for each in network.graph.initializer if each.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../../../../etc/passwd")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_of_one_size, "fixed to 1048576x1048576"), (_tiled, "from a picture of 48x48"),
        (_deep, "50[0-9]{3} layers"), (_external, "not a valid ONNX file"),
    ],
)  # fmt: skip
def test_networks_that_ask_for_too_much(
    tmp_path: Path, backend: Backend, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    network = bicubic_network(2)
    change(network)
    path = tmp_path / "own.onnx"
    path.write_bytes(network.SerializeToString())
    with pytest.raises(ModelError, match=words) as caught:
        models.find(str(path), None, backend)
    assert "\n" not in str(caught.value)
