"""Tests of Muon: orthogonal steps per convolution group, with the step size of Adam."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training import TINY, assert_same, image_folder, patches_for, train
from train.fit.checkpoint import load_checkpoint
from train.fit.muon import Muon, orthogonal
from train.fit.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

RATE = 0.01


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 16, 16)])
def test_singular_values_become_one_and_singular_vectors_stay(shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    given = torch.randn(shape)
    found = orthogonal(given)
    assert found.shape == given.shape
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3 and values.max() < 1.3  # Jordan: 0.7 to 1.2; small ones less
    u, _, vh = torch.linalg.svd(given, full_matrices=False)
    within = u.mT @ found @ vh.mT  # diagonal in the singular vectors of `given`
    assert (within - torch.diag_embed(within.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4


def _stepped(conv: nn.Conv2d) -> torch.Tensor:
    """Return the change of a convolution's weights after one step with a random gradient."""
    before = conv.weight.detach().clone()
    torch.manual_seed(5)
    conv.weight.grad = torch.randn_like(conv.weight)
    Muon(conv, RATE, (0.9, 0.999)).step()
    return conv.weight.detach() - before


def test_a_step_is_as_long_as_adams_and_goes_down() -> None:
    conv = nn.Conv2d(32, 48, 3)
    change = _stepped(conv)
    # an RMS of 0.2 per weight if the singular values are 1, arXiv:2502.16982
    assert float(change.square().mean().sqrt()) == pytest.approx(0.2 * RATE, rel=0.25)
    assert conv.weight.grad is not None
    assert float((change * conv.weight.grad).sum()) < 0


def test_the_groups_of_a_convolution_are_matrices_of_their_own() -> None:
    grouped = nn.Conv2d(32, 64, 3, groups=4)
    change = _stepped(grouped)
    gradient = grouped.weight.grad
    assert gradient is not None
    for i in range(4):
        single = nn.Conv2d(8, 16, 3)
        single.weight.grad = gradient[16 * i : 16 * i + 16].clone()
        before = single.weight.detach().clone()
        Muon(single, RATE, (0.9, 0.999)).step()
        expected = single.weight.detach() - before
        assert torch.allclose(change[16 * i : 16 * i + 16], expected, atol=1e-6)


def test_biases_take_adams_steps() -> None:
    torch.manual_seed(1)
    ours = nn.Conv2d(4, 8, 1)
    theirs = nn.Conv2d(4, 8, 1)
    theirs.load_state_dict(ours.state_dict())
    assert ours.bias is not None and theirs.bias is not None
    optimisers = Muon(ours, RATE, (0.9, 0.99)), torch.optim.Adam([theirs.bias], RATE, (0.9, 0.99))
    for _ in range(4):
        ours.bias.grad = torch.randn(8)
        theirs.bias.grad = ours.bias.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)


def test_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "hr")
    recipe = replace(TINY, steps=4, optimiser="muon", schedule="halve", halve_every=100)
    whole = Trainer.new("carn-m", recipe, (2, 3), channels=16)
    train(whole, patches_for(whole, folder), tmp_path / "whole.pt")
    half = Trainer.new("carn-m", replace(recipe, steps=2), (2, 3), channels=16)
    train(half, patches_for(half, folder), tmp_path / "half.pt")
    rest = Trainer.resume(tmp_path / "half.pt", steps=4)
    assert rest.step == 2
    train(rest, patches_for(rest, folder), tmp_path / "half.pt")
    ends = [load_checkpoint(tmp_path / f"{name}.pt") for name in ("whole", "half")]
    for part in ("net", "average", "optimiser"):
        assert_same(*(end[part] for end in ends))
