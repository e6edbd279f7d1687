"""Tests of pruning: dead filters have no effect, the most useful are kept, and can regrow."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.networks import roughened
from train.errors import TrainError
from train.fit.prune import (
    dcscn_without_dead_filters,
    narrow_weights,
    usefulness,
    widen_weights,
    widths,
)
from train.measure.counting import multadds, parameters
from train.nets import Dcscn, build
from train.ship.deploy import deploy
from train.ship.export import Target, export_scale
from train.ship.imports import load_fitting_weights, load_into, read_weights
from train.ship.manifest import read_manifest

pytestmark = pytest.mark.usefixtures("one_thread")
FEW = (9, 8, 8, 7, 5, 4, 3)
WIDE = (32, 26, 22, 18, 14, 11, 8)


def _net(features: tuple[int, ...] = WIDE, scale: int = 2) -> Dcscn:
    net = roughened(build("c-dcscn", (scale,), features=features))
    assert isinstance(net, Dcscn)
    return net.eval()


def _differ(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def _copied(net: Dcscn) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def _spread(picture: Tensor) -> float:
    return float(picture.detach().std())


def _loaded(weights: dict[str, Tensor], features: tuple[int, ...]) -> Dcscn:
    net = _net(features)
    net.load_state_dict(weights)
    return net


def test_dead_filters_change_nothing_and_are_left_out_of_the_deploy_form() -> None:
    net, x = _net(FEW), torch.rand(2, 1, 13, 9)
    wide = _loaded(widen_weights(net.state_dict(), WIDE), WIDE)
    assert _spread(net(x, 2)) > 0.05
    assert _differ(wide(x, 2), net(x, 2)) < 1e-6
    cheap = deploy(wide, 2)
    assert _differ(cheap(x), wide(x, 2)) < 1e-5
    assert [unit[0].out_channels for unit in cheap.features] == list(FEW)  # type: ignore[union-attr]
    assert multadds(dcscn_without_dead_filters(wide), 2) == multadds(net, 2) < multadds(wide, 2)


@pytest.mark.parametrize("layer", [0, 3, 6])
@pytest.mark.parametrize("how", ["nothing reads it", "it is zero"])
def test_a_dead_filter_is_known_wherever_it_is(layer: int, how: str) -> None:
    net, x = _net(), torch.rand(1, 1, 9, 11)
    weights = _copied(net)
    unit, column = f"features.{layer}", sum(WIDE[:layer]) + 2
    if how == "it is zero":
        weights[f"{unit}.conv.weight"][2] = 0
        weights[f"{unit}.conv.bias"][2] = 0
    else:
        for name in ("a1.conv.weight", "b1.conv.weight"):
            weights[name][:, column] = 0
        if layer < 6:
            weights[f"features.{layer + 1}.conv.weight"][:, 2] = 0
    net.load_state_dict(weights)
    pruned = dcscn_without_dead_filters(net)
    assert pruned.config.features == tuple(n - (i == layer) for i, n in enumerate(WIDE))
    assert _differ(pruned(x, 2), net(x, 2)) < 1e-5


def test_a_filter_of_nothing_but_a_bias_lives() -> None:
    net, x = _net(), torch.rand(1, 1, 9, 11)
    weights = _copied(net)
    weights["features.1.conv.weight"][4] = 0
    weights["features.1.conv.bias"][4] = 0.5
    net.load_state_dict(weights)
    assert dcscn_without_dead_filters(net) is net
    assert _differ(deploy(net, 2)(x), net(x, 2)) < 1e-5


def test_a_layer_that_is_dead_altogether_keeps_one_filter() -> None:
    net, x = _net(), torch.rand(1, 1, 9, 11)
    weights = _copied(net)
    for part in ("weight", "bias"):
        weights[f"features.6.conv.{part}"].zero_()
    net.load_state_dict(weights)
    assert dcscn_without_dead_filters(net).config.features == (*WIDE[:-1], 1)
    assert _differ(deploy(net, 2)(x), net(x, 2)) < 1e-5


def test_the_filters_kept_are_those_that_matter() -> None:
    """Check that the filters with hardly any output are removed, and the picture hardly changes."""
    net, x = _net(), torch.rand(4, 1, 16, 16)
    weights = _copied(net)
    weights["features.2.conv.weight"][::2] *= 0.01  # filters with hardly any output
    weights["features.2.conv.bias"][::2] *= 0.01
    net.load_state_dict(weights)
    fewer = tuple(n // 2 if i == 2 else n for i, n in enumerate(WIDE))
    good = _loaded(narrow_weights(weights, fewer), fewer)
    kept = good.state_dict()["features.2.conv.weight"]
    assert torch.equal(kept, weights["features.2.conv.weight"][1::2])
    assert _differ(good(x, 2), net(x, 2)) < 0.1 * _spread(net(x, 2))


def test_use_does_not_change_when_a_factor_moves_from_a_filter_to_its_readers() -> None:
    weights = _copied(_net())
    before = usefulness(weights, 1)
    for name in ("features.1.conv.weight", "features.1.conv.bias"):
        weights[name][5] *= 8
    for name in ("a1.conv.weight", "b1.conv.weight"):
        weights[name][:, WIDE[0] + 5] /= 8
    weights["features.2.conv.weight"][:, 5] /= 8
    assert torch.allclose(usefulness(weights, 1), before)


def test_widths_that_do_not_fit_are_told(tmp_path: Path) -> None:
    weights = _net(FEW).state_dict()
    assert widths(weights) == FEW
    for call in (narrow_weights, widen_weights):
        with pytest.raises(ValueError, match="filters"):
            call(weights, FEW[:-1])
        with pytest.raises(ValueError, match="filters"):
            call(weights, (8, 9, *FEW[2:]))
    mixed = build("c-dcscn", (2,), features=(8, 9, *FEW[2:]))
    for load in (load_fitting_weights, load_into):
        with pytest.raises(TrainError, match=r"net.pt is of another network: .* filters"):
            load(mixed, weights, tmp_path / "net.pt")


@pytest.mark.parametrize("value", [3, torch.tensor(0.5), torch.rand(9)])
def test_weights_that_are_no_filters_are_told(tmp_path: Path, value: object) -> None:
    for features in (WIDE, FEW):
        weights: dict[str, Any] = {**_net((9, 9, 9, 9, 9, 9, 9)).state_dict()}
        weights["features.1.conv.weight"] = value
        for load in (load_fitting_weights, load_into):
            with pytest.raises(TrainError, match=r"net.pt is of another network: "):
                load(_net(features), weights, tmp_path / "net.pt")


def test_a_network_starts_with_the_useful_filters_of_a_wider_one(tmp_path: Path) -> None:
    wide, few = _net(), _net(FEW)
    assert load_fitting_weights(few, wide.state_dict(), tmp_path / "net.pt") == []
    for name, value in narrow_weights(wide.state_dict(), FEW).items():
        assert torch.equal(few.state_dict()[name], value)


def test_a_network_grown_from_a_narrow_one_begins_equal_and_trains_all_its_filters(
    tmp_path: Path,
) -> None:
    few, wide, x = _net(FEW), _net(), torch.rand(2, 1, 12, 12)
    assert load_fitting_weights(wide, few.state_dict(), tmp_path / "net.pt") == []
    assert _differ(wide(x, 2), few(x, 2)) < 1e-6
    optimiser = torch.optim.SGD(wide.parameters(), lr=1e-3)
    for _ in range(2):  # the new filters get gradients from the second step on
        optimiser.zero_grad()
        wide(x, 2).square().mean().backward()
        optimiser.step()
    for unit, n in zip(wide.units, FEW, strict=True):
        assert unit.conv.weight.grad is not None
        assert (unit.conv.weight.grad[n:].flatten(1).abs().amax(1) > 0).all()
    assert dcscn_without_dead_filters(wide) is wide


def test_narrow_onnx_is_written_counted_and_read_back(tmp_path: Path) -> None:
    wide = _loaded(widen_weights(_net(FEW).state_dict(), WIDE), WIDE)
    path = export_scale(wide, 2, Target(engines=tmp_path, model="c-dcscn"), [])
    entry = read_manifest(tmp_path)["models"]["c-dcscn"]["x2"]
    assert entry["features"] == list(FEW)
    assert entry["parameters"] == parameters(_net(FEW))
    assert "layers of x2 have 9, 8, 8, 7, 5, 4, 3 filters" in (tmp_path / "README.md").read_text()
    for features in (FEW, WIDE):
        twin, x = _net(features), torch.rand(1, 1, 9, 7)
        load_into(twin, read_weights(path, twin)[0], path)
        assert _differ(twin(x, 2), wide(x, 2)) < 1e-5


def test_settings_from_json_are_the_same_settings() -> None:
    assert build("dcscn", features=[9, 8, 7]).config == build("dcscn", features=(9, 8, 7)).config
