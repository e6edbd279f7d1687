"""Tests of temporal stability: block changes against scipy's DCT, the ratio by hand."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from train.data.resize import bicubic_matrix
from train.fit.rngs import patch_rngs
from train.fit.stability import block_change, dct, instability


@pytest.fixture(autouse=True)
def _same_every_time() -> None:
    torch.manual_seed(1)


def test_a_change_is_one_coefficient_of_some_blocks() -> None:
    change = block_change(torch.zeros(3, 1, 40, 64), patch_rngs(1, 0, 3))
    assert change.shape == (3, 1, 40, 64)
    blocks = change.reshape(3, 5, 8, 8, 8).permute(0, 1, 3, 2, 4).reshape(-1, 8, 8).double()
    spectra = dctn(blocks.numpy(), axes=(1, 2), norm="ortho")
    there = np.abs(spectra) > 1e-5
    changed = there.any((1, 2))
    assert 0.15 < changed.mean() < 0.45
    assert (there[changed].sum((1, 2)) == 1).all()
    assert not there[:, 6:].any() and not there[:, :, 6:].any()
    size = np.sqrt(np.square(blocks.numpy()[changed]).mean((1, 2)))
    np.testing.assert_allclose(size, 2 / 255, rtol=1e-5)


def test_a_change_has_any_size_and_is_the_same_in_every_colour() -> None:
    assert block_change(torch.zeros(2, 3, 13, 21), patch_rngs(1, 0, 2)).shape == (
        2,
        1,
        13,
        21,
    )


def test_the_basis_is_orthonormal() -> None:
    torch.testing.assert_close(dct(8) @ dct(8).T, torch.eye(8))


def test_bicubic_has_the_unsteadiness_one_and_a_frozen_picture_none() -> None:
    lr = torch.rand(2, 1, 16, 24)
    change = block_change(lr, patch_rngs(1, 0, 2))
    down, across = (torch.from_numpy(bicubic_matrix(n, 2 * n)).float() for n in (16, 24))

    def bicubic(x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("ih,nchw,jw->ncij", down, x, across)

    moved = instability(bicubic(lr), bicubic(lr + change), change)
    assert float(moved) == pytest.approx(1, rel=1e-4)
    assert float(instability(bicubic(lr), bicubic(lr), change)) == 0
    twice = instability(2 * bicubic(lr), 2 * bicubic(lr + change), change)
    assert float(twice) == pytest.approx(2, rel=1e-4)
