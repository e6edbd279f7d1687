"""Tests of the `sharp` loss: its parts by hand, the critic's spectral norm, training, resuming."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.training import TINY, assert_same, image_folder, patches_for, train
from train.data.pictures import Pictures
from train.errors import TrainError
from train.fit.checkpoint import load_checkpoint
from train.fit.recipe import Recipe, recipe_from
from train.fit.rngs import patch_rngs
from train.fit.sharp import Critic, Sharpness, layer_loss, relativistic_loss, rgb
from train.fit.stability import block_change, instability
from train.fit.trainer import Trainer
from train.fit.vgg import VggLayers
from train.measure.perceptual import Lpips

LAYERS = (("1_2", 0.5), ("2_1", 2.0))
SHARP = replace(
    TINY,
    patch=20,
    rate=1e-3,
    warmup=0,
    schedule="shares",  # without `halve_at` the rate is independent of `steps`
    loss=((0, "sharp"),),
    sharp={"layers": LAYERS, "gan_from": 2, "lpips": 1.0},
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Use one thread: small work is faster and reproducible, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _same_every_time() -> None:
    torch.manual_seed(1)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the first four convolutions of VGG16 with random weights (He)."""
    rng = np.random.default_rng(1)
    arrays = {}
    for i, (source, target) in enumerate(((3, 64), (64, 64), (64, 128), (128, 128))):
        spread = math.sqrt(2 / (9 * source))
        arrays[f"conv{i}.weight"] = rng.normal(0, spread, (target, source, 3, 3)).astype("f4")
        arrays[f"conv{i}.bias"] = rng.normal(0, 0.1, target).astype("f4")
    path = tmp_path_factory.mktemp("vgg") / "vgg.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    """Return LPIPS with random weights and few filters."""
    rng = np.random.default_rng(2)
    weights, source = {}, 3
    for k, (filters, side) in enumerate(((8, 11), (8, 5), (8, 3), (8, 3), (8, 3))):
        spread = math.sqrt(2 / (source * side * side))
        weights[f"conv{k}.weight"] = rng.normal(0, spread, (filters, source, side, side))
        weights[f"conv{k}.bias"] = np.zeros(filters)
        weights[f"lin{k}.weight"] = rng.uniform(0, 1, (1, filters, 1, 1))
        source = filters
    return Lpips({name: value.astype("f4") for name, value in weights.items()})


# parts of the loss


def test_relativistic_loss_is_that_of_the_esrgan_paper() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, -1.0])

    def logistic(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    # D(real, fake) = s(C(real) - mean C(fake)); equation 1 with each expectation as a mean
    first = -(math.log(logistic(1 + 0.5)) + math.log(logistic(3 + 0.5))) / 2
    second = -(math.log(1 - logistic(0 - 2)) + math.log(1 - logistic(-1 - 2))) / 2
    assert float(relativistic_loss(real, fake)) == pytest.approx((first + second) / 2, rel=1e-6)
    assert float(relativistic_loss(fake, real)) > float(relativistic_loss(real, fake))


def test_vgg_layers_are_taken_before_their_relu_of_a_normalised_picture(vgg: Path) -> None:
    x = torch.rand(2, 3, 12, 16)
    found = VggLayers.load(vgg, ("1_2", "2_1"))(x)
    w = {key: torch.from_numpy(value) for key, value in np.load(vgg).items()}
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    y = ((x.permute(0, 2, 3, 1) - mean) / deviation).permute(0, 3, 1, 2)
    y = functional.conv2d(y, w["conv0.weight"], w["conv0.bias"], padding=1).relu()
    first = functional.conv2d(y, w["conv1.weight"], w["conv1.bias"], padding=1)
    y = functional.max_pool2d(first.relu(), 2)
    second = functional.conv2d(y, w["conv2.weight"], w["conv2.bias"], padding=1)
    assert len(found) == 2 and bool((found[0] < 0).any())
    torch.testing.assert_close(found[0], first)
    torch.testing.assert_close(found[1], second)


def test_a_missing_vgg_layer_is_named(vgg: Path) -> None:
    with pytest.raises(TrainError, match=r"lacks conv3_3: it has VGG16 up to conv2_2"):
        VggLayers.load(vgg, ("1_2", "3_3"))


def test_vgg19_is_refused(tmp_path: Path) -> None:
    """VGG19's third block has four convolutions; the loss is balanced for VGG16's three."""
    arrays: dict[str, object] = {}
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 256)
    for i, (source, target) in enumerate(pairwise(widths)):
        arrays[f"conv{i}.weight"] = np.zeros((target, source, 3, 3), "f4")
        arrays[f"conv{i}.bias"] = np.zeros(target, "f4")
    np.savez(tmp_path / "vgg19.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(TrainError, match=r"vgg19\.npz contains VGG19: .* needs VGG16"):
        VggLayers.load(tmp_path / "vgg19.npz", ("1_2", "3_3"))


def test_layer_loss_weighs_the_mean_absolute_errors() -> None:
    def layers(x: Tensor) -> list[Tensor]:
        return [x, 2 * x[..., ::2]]

    sr, hr = torch.full((1, 1, 2, 4), 0.5), torch.full((1, 1, 2, 4), 0.25)
    assert float(layer_loss(layers, [1.0, 3.0], sr, hr)) == pytest.approx(0.25 + 3 * 0.5)


def test_luma_is_repeated_and_rgb_kept() -> None:
    y, x = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    assert torch.equal(rgb(y), torch.cat((y, y, y), 1)) and torch.equal(rgb(x), x)


def test_lpips_of_a_batch_is_the_mean_and_has_gradients(lpips: Lpips) -> None:
    codes = np.random.default_rng(3).integers(0, 256, (2, 2, 40, 40, 3), np.uint8)
    ours, truth = (torch.from_numpy(c).permute(0, 3, 1, 2) / 255 for c in codes)
    ours.requires_grad_()
    distance = lpips.distance(ours, truth)
    each = [lpips(a, b) for a, b in zip(*codes, strict=True)]
    assert float(distance.detach()) == pytest.approx(np.mean(each), rel=1e-5)
    (gradient,) = torch.autograd.grad(distance, ours)
    assert float(gradient.abs().max()) > 0


# the critic


@pytest.mark.parametrize("channels", [1, 3])
def test_the_critic_is_five_convolutions_that_see_28_pixels(channels: int) -> None:
    critic = Critic(channels, 0.2).eval()
    convolutions = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [32, 48, 64, 64, 1]
    assert [m.negative_slope for m in critic.modules() if isinstance(m, nn.LeakyReLU)] == [0.2] * 4
    x = torch.rand(1, channels, 64, 64, requires_grad=True)
    logits = critic(x)
    assert logits.shape == (1, 1, 16, 16)
    (seen,) = torch.autograd.grad(logits[0, 0, 8, 8], x)
    rows, columns = (seen[0].abs().sum((0, d)).nonzero() for d in (1, 2))
    assert len(rows) == len(columns) == 28


def test_spectral_norm_bounds_every_convolution() -> None:
    critic = Critic(1, 0.2).train()
    with torch.no_grad():
        for name, parameter in critic.named_parameters():
            if name.endswith("weight.original"):
                parameter.mul_(30)
    for _ in range(60):  # one power iteration each
        critic(torch.rand(1, 1, 16, 16))
    for module in critic.modules():
        if isinstance(module, nn.Conv2d):
            largest = torch.linalg.svdvals(module.weight.flatten(1))[0]
            assert float(largest.detach()) == pytest.approx(1, abs=0.02)


# training


def _trainer(name: str, recipe: Recipe, vgg: Path, lpips: Lpips | None) -> Trainer:
    trainer = Trainer.new(name, recipe, (2,))
    return _given(trainer, vgg, lpips)


def _given(trainer: Trainer, vgg: Path, lpips: Lpips | None) -> Trainer:
    names = Sharpness.from_table(trainer.recipe.sharp).layer_names
    trainer.features, trainer.lpips = VggLayers.load(vgg, names), lpips
    return trainer


@pytest.mark.parametrize("name", ["c-dcscn", "pcarn-m-l1"])  # on luma, on RGB
def test_training_lowers_the_loss(tmp_path: Path, vgg: Path, lpips: Lpips, name: str) -> None:
    lossy = {**SHARP.sharp, "gan": 0.0}  # the adversarial part rises while the critic learns
    recipe = replace(SHARP, steps=16, rate=2e-3, sharp=lossy)
    trainer = _trainer(name, recipe, vgg, lpips)
    losses: list[float] = []

    class Noting:
        every, workers = 100, 0
        add_loss = staticmethod(losses.append)

        def report(self, _: Trainer) -> None:
            pass

    patches = patches_for(trainer, image_folder(tmp_path / "data"))
    train(trainer, patches, tmp_path / "x.pt", Noting())  # type: ignore[arg-type]
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])


def test_training_for_steadiness_holds_a_change_down(
    tmp_path: Path, vgg: Path, lpips: Lpips
) -> None:
    folder, found = image_folder(tmp_path / "data"), {}
    for weight in (0.0, 50.0):
        sharp = {**SHARP.sharp, "gan": 0.0, "steady": weight}
        recipe = replace(SHARP, steps=12, rate=2e-3, ema=0.0, sharp=sharp)
        trainer = _trainer("c-dcscn", recipe, vgg, lpips)
        patches = patches_for(trainer, folder)
        train(trainer, patches, tmp_path / f"{weight}.pt")
        lr = torch.stack([patches[k][0] for k in range(4)])
        change = block_change(lr, patch_rngs(2, 0, 4))
        with torch.no_grad():
            moved = instability(trainer.net(lr, 2), trainer.net(lr + change, 2), change)
        found[weight] = float(moved)
    assert found[50.0] < 0.9 * found[0.0]


def test_the_critic_begins_at_its_step(tmp_path: Path, vgg: Path, lpips: Lpips) -> None:
    folder = image_folder(tmp_path / "data")
    for steps, learns in ((2, False), (3, True)):
        trainer = _trainer("c-dcscn", replace(SHARP, steps=steps), vgg, lpips)
        assert isinstance(trainer.critic, Critic)
        before = [p.detach().clone() for p in trainer.critic.parameters()]
        train(trainer, patches_for(trainer, folder), tmp_path / f"{steps}.pt")
        moved = any(
            not torch.equal(a, b) for a, b in zip(before, trainer.critic.parameters(), strict=True)
        )
        assert moved == learns


def test_resuming_is_bit_exact_with_the_critic(tmp_path: Path, vgg: Path, lpips: Lpips) -> None:
    folder = image_folder(tmp_path / "data")
    once = _trainer("c-dcscn", SHARP, vgg, lpips)
    assert train(once, patches_for(once, folder), tmp_path / "once.pt")
    part = _trainer("c-dcscn", replace(SHARP, steps=4), vgg, lpips)
    train(part, patches_for(part, folder), tmp_path / "twice.pt")
    again = _given(Trainer.resume(tmp_path / "twice.pt", "c-dcscn", SHARP.steps), vgg, lpips)
    again.command = once.command
    train(again, patches_for(again, folder), tmp_path / "twice.pt")
    whole, resumed = (load_checkpoint(tmp_path / f"{name}.pt") for name in ("once", "twice"))
    for key in ("net", "average", "optimiser", "critic", "critic_optimiser"):
        assert_same(whole[key], resumed[key])


def test_what_the_loss_lacks_is_said(tmp_path: Path, vgg: Path) -> None:
    folder = image_folder(tmp_path / "data")
    trainer = _trainer("c-dcscn", SHARP, vgg, None)
    with pytest.raises(TrainError, match="--lpips FILE"):
        train(trainer, patches_for(trainer, folder), tmp_path / "x.pt")
    trainer.features = None
    with pytest.raises(TrainError, match="--vgg FILE"):
        train(trainer, patches_for(trainer, folder), tmp_path / "x.pt")


def test_patches_too_small_for_lpips_are_refused(tmp_path: Path, vgg: Path, lpips: Lpips) -> None:
    trainer = _trainer("c-dcscn", replace(SHARP, patch=16), vgg, lpips)
    patches = patches_for(trainer, image_folder(tmp_path / "data"))
    with pytest.raises(TrainError, match=r"32 HR pixels are too small for LPIPS, .* at least 34"):
        train(trainer, patches, tmp_path / "x.pt")


def test_recipes_that_cannot_be_are_refused() -> None:
    with pytest.raises(TrainError, match="unknown setting"):
        Trainer.new("c-dcscn", replace(SHARP, sharp={"sharper": 1}))
    with pytest.raises(TrainError, match="different critics"):
        recipe_from({"loss": [[0, "sharp"], [5, "gan"]]}, "both")


def test_the_rate_halves_at_shares_of_the_steps() -> None:
    recipe = Recipe(steps=100, rate=1.0, schedule="shares", halve_at=(0.6, 0.85))
    rates = [recipe.rate_at(step) for step in (0, 59, 60, 84, 85, 99)]
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_pictures_smaller_than_a_patch_are_left_out() -> None:
    sizes = (8, 20, 16)
    lr = {2: [np.full((n, 24, 3), n, np.uint8) for n in sizes]}
    hr = {2: [np.full((2 * n, 48, 3), n, np.uint8) for n in sizes]}
    kept = Pictures(lr, hr, {}).large_enough(replace(SHARP, patch=16))
    assert [len(p) for p in kept.lr[2]] == [20, 16]
    assert [len(p) for p in kept.hr[2]] == [40, 32]
