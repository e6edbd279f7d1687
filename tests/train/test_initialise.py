"""Tests of initial weights by name: the papers' distributions, and unchanged parameters."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from train.errors import TrainError
from train.fit.initialise import INITS, initialise

SOURCE, TARGET, GROUPS, AREA = 32, 96, 4, 9
FAN_IN = SOURCE // GROUPS * AREA


def _conv() -> nn.Conv2d:
    return nn.Conv2d(SOURCE, TARGET, 3, padding=1, groups=GROUPS)


def _initialised(net: nn.Module, kind: str) -> None:
    torch.manual_seed(7)
    initialise(net, kind)


def _bias(conv: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias.detach()


UNIFORM = {
    "carn": 1 / math.sqrt(SOURCE),
    "default": math.sqrt(1 / FAN_IN),
    "default-0.1": 0.1 * math.sqrt(1 / FAN_IN),
    "msra-uniform": math.sqrt(6 / FAN_IN),
    "msra-uniform-0.1": 0.1 * math.sqrt(6 / FAN_IN),
    "torch": math.sqrt(1 / FAN_IN),
}
NORMAL = {
    "he": math.sqrt(2 / FAN_IN),
    "msra-normal": math.sqrt(2 / FAN_IN),
    "msra-normal-0.1": 0.1 * math.sqrt(2 / FAN_IN),
}


def test_every_name_is_tested_and_sorted() -> None:
    assert list(INITS) == sorted({*UNIFORM, *NORMAL})


@pytest.mark.parametrize("kind", UNIFORM)
def test_uniform_weights_fill_their_range_evenly(kind: str) -> None:
    conv, bound = _conv(), UNIFORM[kind]
    _initialised(conv, kind)
    weights = conv.weight.detach() / bound
    assert float(weights.abs().max()) <= 1 + 1e-6
    assert float(weights.abs().max()) > 0.99
    assert float(weights.std()) == pytest.approx(1 / math.sqrt(3), rel=0.03)
    assert float(weights.mean()) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("kind", NORMAL)
def test_normal_weights_have_hes_deviation(kind: str) -> None:
    conv, deviation = _conv(), NORMAL[kind]
    _initialised(conv, kind)
    weights = conv.weight.detach() / deviation
    assert float(weights.std()) == pytest.approx(1, rel=0.03)
    assert float(weights.mean()) == pytest.approx(0, abs=0.05)
    assert float(weights.abs().max()) > 3  # not truncated


@pytest.mark.parametrize("kind", INITS)
def test_biases_are_zero_but_carns_and_torchs(kind: str) -> None:
    conv = _conv()
    _initialised(conv, kind)
    if kind in ("carn", "torch"):
        biases = _bias(conv).abs() / UNIFORM[kind]
        assert float(biases.max()) == pytest.approx(1, abs=0.1) and float(biases.max()) <= 1
    else:
        assert not _bias(conv).any()


def test_torch_is_torchs_own_start_to_the_bit() -> None:
    torch.manual_seed(7)
    own = _conv()
    conv = _conv()
    _initialised(conv, "torch")
    assert torch.equal(conv.weight, own.weight) and torch.equal(_bias(conv), _bias(own))


def test_carn_counts_the_input_channels_of_a_transposed_convolution_too() -> None:
    conv = nn.ConvTranspose2d(64, 16, 3, stride=2)
    _initialised(conv, "carn")
    assert float(conv.weight.detach().abs().max()) == pytest.approx(1 / 8, rel=0.01)


def _frozen(conv: nn.Conv2d) -> nn.Conv2d:
    return conv.requires_grad_(False)


def _frozen_bias(conv: nn.Conv2d) -> nn.Conv2d:
    assert conv.bias is not None
    conv.bias.requires_grad_(False)
    return conv


@pytest.mark.parametrize("kind", INITS)
def test_only_trained_convolutions_are_touched(kind: str) -> None:
    makers: dict[str, Callable[[], nn.Module]] = {
        "frozen": lambda: _frozen(nn.Conv2d(3, 3, 1)),
        "slopes": lambda: nn.PReLU(4, init=0.2),
        "norm": lambda: nn.BatchNorm2d(4),
        "linear": lambda: nn.Linear(2, 2),
    }
    net = nn.ModuleDict({name: make() for name, make in makers.items()})
    net["conv"] = _conv()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    _initialised(net, kind)
    changed = {name for name, value in net.state_dict().items() if not value.equal(before[name])}
    assert changed == {"conv.weight", "conv.bias"}


@pytest.mark.parametrize("kind", INITS)
def test_a_frozen_bias_stays_and_a_missing_one_does_no_harm(kind: str) -> None:
    conv = _frozen_bias(_conv())
    before = _bias(conv).clone()
    _initialised(nn.Sequential(conv, nn.Conv2d(3, 3, 1, bias=False)), kind)
    assert torch.equal(_bias(conv), before)


@pytest.mark.parametrize("kind", INITS)
def test_the_seed_decides_and_weights_can_be_trained_after(kind: str) -> None:
    one, two = _conv(), _conv()
    _initialised(one, kind)
    _initialised(two, kind)
    assert torch.equal(one.weight, two.weight) and one.weight.is_leaf and one.weight.requires_grad


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(TrainError, match=r"^unknown initialisation 'xavier'; .*: carn, default,"):
        initialise(_conv(), "xavier")
