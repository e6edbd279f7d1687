"""Tests of `train.fit.grow_carn`, the start of a CARN from the weights of a CARN-M."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from tests.networks import roughened
from tests.training import scene
from train.errors import TrainError
from train.nets import Carn, Net, build
from train.nets.carn import Residual
from train.ship.imports import (
    load_fitting_weights,
    load_into,
    load_missing_weights,
    read_weights,
)

pytestmark = pytest.mark.usefixtures("one_thread")
ENGINES = Path(__file__).parents[2] / "engines"


def _carn(name: str) -> Carn:
    net = roughened(build(name, (2,)))
    assert isinstance(net, Carn)
    return net


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


def _picture(height: int, width: int) -> Tensor:
    return torch.from_numpy(scene(height, width, 5)).permute(2, 0, 1)[None].float() / 255


@torch.no_grad()
def test_a_residual_block_is_the_residual_e_block_with_a_line_for_its_second_relu() -> None:
    mobile, full = _carn("carn-m"), _carn("carn")
    assert load_fitting_weights(full, mobile.state_dict(), Path("carn-m.pt")) == []
    x, w = torch.rand(1, 64, 9, 12), mobile.state_dict()
    for block in ("b1", "b2", "b3"):
        first, second, point = (
            (w[f"{block}.b1.body.{k}.weight"], w[f"{block}.b1.body.{k}.bias"]) for k in (0, 2, 4)
        )
        inner = conv2d(x, *first, padding=1, groups=4).relu()  # CARN, Fig. 3b: 3x3, 3x3, 1x1
        line = 0.8 * conv2d(inner, *second, padding=1, groups=4)
        expected = (conv2d(line, *point) + x).relu()
        for name in ("b1", "b2", "b3"):  # CARN-M repeats one residual block three times
            residual = full.get_submodule(f"{block}.{name}")
            assert isinstance(residual, Residual)
            torch.testing.assert_close(residual(x), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_carn_from_the_file_of_carn_m_draws_nearly_its_picture() -> None:
    path, lr = ENGINES / "carn-m" / "x2.onnx", _picture(40, 56)
    mobile, full = build("carn-m", (2,)), build("carn", (2,))
    for net in (mobile, full):
        weights, _ = read_weights(path, net)
        assert load_fitting_weights(net, weights, path) == []
    theirs = mobile(lr, 2)
    bicubic = interpolate(lr, scale_factor=2, mode="bicubic", align_corners=False)
    assert _psnr(full(lr, 2), theirs) > _psnr(bicubic, theirs) + 6


def test_the_up_sampling_of_another_scale_comes_from_a_further_file(tmp_path: Path) -> None:
    full = build("carn", (3,))
    left = load_fitting_weights(full, _carn("carn").state_dict(), Path("carn.pt"))
    mobile = ENGINES / "carn-m" / "x3.onnx"
    assert left and load_missing_weights(full, left, mobile) == []
    own = full.state_dict()["upsample.up3.body.0.weight"]  # CARN-M has 4 groups of 16 filters
    assert own[:144, :16].ne(0).any() and not own[:144, 16:].any() and own[432:, 48:].ne(0).any()


def test_all_weights_of_such_a_carn_learn() -> None:
    full = _carn("carn")
    load_fitting_weights(full, _carn("carn-m").state_dict(), Path("carn-m.pt"))
    full(_picture(12, 16), 2).square().mean().backward()
    for name, parameter in full.named_parameters():
        if name.endswith("weight") and parameter.requires_grad:
            assert parameter.grad is not None
            assert parameter.grad.ne(0).float().mean() > 0.5, name


def test_weights_of_carn_and_for_carn_m_stay_as_they_are() -> None:
    for name in ("carn", "carn-m"):
        given, net = _carn(name), build(name, (2,))
        load_fitting_weights(net, given.state_dict(), Path("x.pt"))
        for key, value in given.state_dict().items():
            assert torch.equal(net.state_dict()[key], value), key


def test_a_part_of_carn_m_is_refused() -> None:
    weights = {k: v for k, v in _carn("carn-m").state_dict().items() if ".body.2." not in k}
    net: Net = build("carn", (2,))
    with pytest.raises(TrainError, match=r"^carn-m\.pt is of another network: "):
        load_fitting_weights(net, weights, Path("carn-m.pt"))


def test_carn_m_is_not_taken_for_carn_where_no_training_follows() -> None:
    with pytest.raises(TrainError, match="is of another network"):
        load_into(build("carn", (2,)), _carn("carn-m").state_dict(), Path("carn-m.pt"))
