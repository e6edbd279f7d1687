"""The default network of a relay: the best one that is fast enough, else the usual one."""

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from vsr.errors import BackendError, UsageError
from vsr.inference import models
from vsr.inference.backend import Backend, load_backend
from vsr.inference.default import DEFAULT
from vsr.live.ladder.controller import Ladder, LadderSettings
from vsr.live.ladder.pool import Pool
from vsr.live.ladder.rung_models import default_ladder, find_models, optional_count, rung_names
from vsr.live.ladder.rungs import Rungs
from vsr.live.ladder.speed_check import SpeedCheck
from vsr.live.ladder.warm_up import grey_planes
from vsr.live.settings import RelaySettings
from vsr.media.colour import Colour
from vsr.media.frame import Frame
from vsr.media.plane_format import YUV420
from vsr.plan import cost_cache
from vsr.plan.choice import faithful
from vsr.plan.cost import Cost
from vsr.plan.cost_cache import CostCache, network_key

SIZE, COLOUR = (64, 48), Colour()


@pytest.fixture(scope="module")
def backend() -> Backend:
    return load_backend("openvino", live=True)


class _WithoutBest:
    """A backend with too little memory for dcscn-stream."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def compile(self, graph: Any, *args: Any) -> Any:
        if graph.label.startswith("dcscn"):
            raise BackendError("no memory is left")
        return self._real.compile(graph, *args)


def _enlarged(rungs: Rungs, rung: int) -> str:
    picture = Frame(
        planes=grey_planes(*SIZE), index=0, pts=0, time_base=Fraction(1, 25), duration=1
    )  # fmt: skip
    return rungs.upscale(picture, rung).rung


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def _default_networks(interval: float, **settings: Any) -> Rungs:
    chosen = RelaySettings(backend="openvino", **settings)
    return Pool().rungs(chosen, SIZE, COLOUR, lambda: False, interval_s=interval)


@pytest.mark.usefixtures("_own_cache")
def test_the_best_network_is_taken_where_it_leaves_room(caplog: pytest.LogCaptureFixture) -> None:
    best, usual = (candidate.name for candidate in faithful(2))
    with caplog.at_level("INFO"):
        rungs = _default_networks(interval=100.0)
    assert rungs.names == [best, usual, "bicubic"]
    assert max(rungs.costs) < 100
    assert f"model {best}: the best network that is fast enough here: " in caplog.text
    ladder = Ladder(rungs.costs, LadderSettings(interval=100, max_latency=100), now=0.0)
    assert ladder.rung == 0
    assert _enlarged(rungs, 0) == best


@pytest.mark.usefixtures("_own_cache")
def test_a_network_that_is_too_slow_is_not_even_loaded(caplog: pytest.LogCaptureFixture) -> None:
    best, usual = (candidate.name for candidate in faithful(2))
    with caplog.at_level("INFO"):
        rungs = _default_networks(interval=1e-6)
    assert rungs.costs[0] == math.inf
    assert rungs.is_disabled(0)
    assert not any(map(rungs.is_disabled, (1, 2)))
    assert max(rungs.costs[1:]) < math.inf
    assert f"model {usual}: {best} takes about" in caplog.text


@pytest.mark.usefixtures("_own_cache")
def test_what_was_measured_before_decides(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cost_cache, "_is_busy", lambda: False)
    found = find_models(RelaySettings(), backend)
    best = SpeedCheck(found=found, optional_count=1, interval_s=0.04, size=SIZE)
    assert best.is_worth_loading(0, default_cost_s=0.009, backend=backend)  # estimate: 0.055
    with caplog.at_level("INFO"):
        assert not best.is_worth_loading(0, default_cost_s=0.02, backend=backend)
    assert (
        "ms per frame here (estimated from its multiply-adds; vsr plan measures it)" in caplog.text
    )
    key = network_key(found[0], backend, SIZE, YUV420)
    CostCache().get(key, lambda: Cost(29.0, 29.0))
    assert best.is_worth_loading(0, default_cost_s=0.02, backend=backend)
    assert not replace(best, interval_s=0.03).is_worth_loading(
        0, default_cost_s=0.001, backend=backend
    )
    assert best.is_fast_enough(0, 0.03)
    assert not best.is_fast_enough(0, 0.032)


@pytest.mark.usefixtures("_own_cache")
def test_what_was_measured_on_a_busy_machine_is_a_better_estimate_than_none(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cost_cache, "_is_busy", lambda: True)
    found = find_models(RelaySettings(), backend)
    best = SpeedCheck(found=found, optional_count=1, interval_s=0.04, size=SIZE)
    key = network_key(found[0], backend, SIZE, YUV420)
    CostCache().get(key, lambda: Cost(31.0, 31.0))
    assert best.is_worth_loading(0, default_cost_s=0.02, backend=backend)
    CostCache().get(key, lambda: Cost(90.0, 90.0))
    with caplog.at_level("INFO"):
        assert not best.is_worth_loading(0, default_cost_s=0.001, backend=backend)
    assert "about 90.0 ms per frame here (estimated: measured while" in caplog.text


def test_a_better_network_that_cannot_be_loaded_stops_nothing(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    device: Any = _WithoutBest(backend)
    found = find_models(RelaySettings(), device)
    best = SpeedCheck(found=found, optional_count=1, interval_s=100.0, size=SIZE)
    rungs = Rungs(found, device, SIZE, COLOUR, speed_check=best)
    assert rungs.is_disabled(0)
    assert rungs.failure is None
    assert _enlarged(rungs, 1) == found[1].name
    assert "cannot be used: no memory is left" in caplog.text


def test_a_ladder_has_the_default_scale_of_its_first_network(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if that is not the network's lowest scale."""
    usual = models.scales
    monkeypatch.setattr(models, "scales", lambda name: [1, *usual(name)])
    assert default_ladder("carn-m", None) == default_ladder("carn-m", 2)
    found = find_models(RelaySettings(model="carn-m"), backend)
    assert len(found) > 2
    assert {model.scale for model in found} == {2}


def test_a_relay_that_names_a_ladder_gets_it() -> None:
    assert rung_names(RelaySettings(ladder=("bicubic",))) == (DEFAULT, "bicubic")
    assert optional_count(RelaySettings(ladder=("bicubic",))) == 0
    assert optional_count(RelaySettings(model="dcscn")) == 0
    assert optional_count(RelaySettings(scale=3)) == 4  # carn, carn-m, dcscn, rt above c-dcscn


@pytest.mark.parametrize("model", [None, "rt", "rt-sharp"])
def test_a_look_chooses_the_weights_and_lighter_networks_follow(model: str | None) -> None:
    settings = RelaySettings(model=model, look="sharp")
    assert rung_names(settings) == ("rt-sharp", *default_ladder("rt-sharp", 2)[1:])
    assert optional_count(settings) == 0
    assert rung_names(RelaySettings(look="faithful")) == rung_names(RelaySettings())
    assert rung_names(RelaySettings(look="sharp", ladder=("bicubic",))) == ("rt-sharp", "bicubic")


def test_the_ladder_of_a_faithful_network_has_no_sharp_ones() -> None:
    assert default_ladder("carn", 2) == ["carn", "carn-m", "dcscn-stream", "rt", "c-dcscn-stream"]


def test_below_the_sharp_networks_of_a_ladder_follow_the_faithful_ones_that_are_lighter() -> None:
    assert default_ladder("pcarn-m", 2) == ["pcarn-m", "rt-sharp", "c-dcscn-stream"]


@pytest.mark.parametrize(
    ("model", "ladder", "message"),
    [
        ("c-dcscn", ("carn-m",), "but carn-m does more work than c-dcscn$"),
        ("carn", ("dcscn", "carn-m"), "but carn-m does more work than dcscn$"),
        ("bicubic", ("carn",), "but carn does more work than bicubic$"),
        ("carn", ("bicubic", "mine.onnx"), "but mine.onnx does more work than bicubic$"),
        (None, ("carn-m",), r"than c-dcscn-stream \(the default: --model names another\)$"),
    ],
)
def test_a_ladder_that_gets_heavier_is_refused(
    model: str | None, ladder: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^--ladder names lighter networks, .*{message}"):
        rung_names(RelaySettings(model=model, ladder=ladder))


def test_a_ladder_that_gets_lighter_is_taken_as_it_is() -> None:
    lighter = ("carn-m", "mine.onnx", "dcscn", "dcscn-stream", "bicubic")
    assert rung_names(RelaySettings(model="carn", ladder=lighter)) == ("carn", *lighter)


def test_a_look_that_no_network_has_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"no network with a sharp look .* has scale 3"):
        rung_names(RelaySettings(look="sharp", scale=3))
    with pytest.raises(UsageError, match="'carn-m' has no weights with a sharp look"):
        rung_names(RelaySettings(model="carn-m", look="sharp"))
    with pytest.raises(UsageError, match="unknown look 'soft'"):
        rung_names(RelaySettings(look="soft"))
