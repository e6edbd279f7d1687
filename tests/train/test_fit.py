"""Tests of the training loop: steps, schedules, reports, and exact resuming after interruption."""

import logging
import math
import re
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from tests.training import TINY, assert_same, image_folder, patches_for, train
from train.data.patches import Patches
from train.errors import TrainError
from train.fit.gan import AdversarialSettings
from train.fit.loop import weight_norms
from train.fit.recipe import Recipe, find_recipe
from train.fit.reporter import Reporter
from train.fit.trainer import Plateau, Trainer
from train.fit.vgg import VggFeatures
from train.measure.evaluate import evaluate, torch_enlarge
from train.nets import Carn, Csrcnn, bicubic, build
from train.nets.carn import set_slope
from train.ship.export import Target, export

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, dict[str, Any]] = {
    "c-dcscn": {},
    "dcscn": {"features": (16, 12, 8), "a1": 8, "b1": 8, "b2": 8},
    "carn-m": {"channels": 16},
    "pcarn": {"channels": 8},
    "csrcnn": {"channels": 8, "blocks": (2, 1, 1), "residuals": 1, "convolutions": 1},
}
"""Network of each family -> settings that make the large ones small."""

GAN = replace(
    TINY,
    loss=((0, "gan"),),
    scales=((0, (4,)),),
    adversary={"pools": (1,), "gamma_gan": 0.1},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "hr")


@dataclass
class Losses(Reporter):
    """Reporter that records the loss of each step."""

    seen: list[float] = field(default_factory=list)

    def add_loss(self, loss: float) -> None:
        super().add_loss(loss)
        self.seen.append(loss)


def _losses(trainer: Trainer, patches: Patches, folder: Path) -> list[float]:
    reporter = Losses(every=1000)
    assert train(trainer, patches, folder / "net.pt", reporter)
    return reporter.seen


def _weights(net: nn.Module) -> Tensor:
    """Return a copy of all weights as one vector."""
    return torch.cat([p.detach().flatten().clone() for p in net.parameters()])


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> VggFeatures:
    """Return the first two convolutions of VGG with random weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("vgg") / "vgg.pth"
    layers = [nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)]
    torch.save(nn.ModuleDict({"features": nn.Sequential(*layers)}).state_dict(), path)
    return VggFeatures.load(path, AdversarialSettings())


# a step


@pytest.mark.parametrize("name", SMALL)
def test_a_few_steps_lower_the_loss_of_every_family(
    tmp_path: Path, folder: Path, name: str
) -> None:
    recipe = Recipe(steps=24, batch=4, patch=24, hr_patch=True, rate=2e-3, clip=1.0)
    trainer = Trainer.new(name, recipe, **SMALL[name])
    assert trainer.net.scales == {"carn-m": (2, 3, 4), "pcarn": (2, 3, 4), "csrcnn": (2, 4, 8)}.get(
        name, (2,)
    )
    losses = _losses(trainer, patches_for(trainer, folder), tmp_path)
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


def test_each_step_takes_the_loss_of_its_phase(tmp_path: Path, folder: Path) -> None:
    phases = ((0, "l2"), (1, "l1"), (2, "alternate"))
    trainer = Trainer.new("c-dcscn", replace(TINY, loss=phases, rate=1e-12, steps=5))
    patches = patches_for(trainer, folder)
    kinds = {"l1": nn.functional.l1_loss, "l2": nn.functional.mse_loss}
    expected = []
    for step, kind in enumerate(("l2", "l1", "l2", "l1", "l2")):
        (lr, hr, scale), (lr2, hr2, _) = patches[2 * step], patches[2 * step + 1]
        with torch.no_grad():
            sr = trainer.average(torch.stack((lr, lr2)), scale)
        expected.append(float(kinds[kind](sr, torch.stack((hr, hr2)))))
    assert _losses(trainer, patches, tmp_path) == pytest.approx(expected, rel=1e-4)


def test_a_step_of_a_level_that_joins_trains_the_blended_picture(
    tmp_path: Path, folder: Path
) -> None:
    phases = ((0, (2,)), (1, (4,)))
    recipe = replace(TINY, patch=4, scales=phases, blend=4, rate=1e-12, steps=6)
    trainer = Trainer.new("csrcnn", recipe, **SMALL["csrcnn"])
    patches = patches_for(trainer, folder)
    expected = []
    for step, share in enumerate((1.0, 0.25, 0.5, 0.75, 1.0, 1.0)):
        (lr, hr, scale), (lr2, hr2, _) = patches[2 * step], patches[2 * step + 1]
        low, high = torch.stack((lr, lr2)), torch.stack((hr, hr2))
        with torch.no_grad():
            sr = trainer.average(low, scale)
            if step:
                sr = share * sr + (1 - share) * bicubic(trainer.average(low, 2), 2)
        expected.append(float((sr - high).abs().mean()))
    assert _losses(trainer, patches, tmp_path) == pytest.approx(expected, rel=1e-4)


def test_features_of_csrcnn_stay_alive_in_every_level(tmp_path: Path, folder: Path) -> None:
    phases = ((0, (2,)), (15, (4,)), (30, (8,)))
    ours = replace(find_recipe("csrcnn", "ours"), steps=60, batch=2, patch=32, warmup=0)
    recipe = replace(ours, scales=phases, blend=5, rate=1e-3)
    trainer = Trainer.new("csrcnn", recipe, **{**SMALL["csrcnn"], "convolutions": 4})
    train(trainer, patches_for(trainer, folder), tmp_path / "net.pt")
    net, x = trainer.net, torch.rand(1, 3, 12, 12)
    assert isinstance(net, Csrcnn)
    with torch.inference_mode():
        y = net.entry(net.sub_mean(x))
        for k in range(3):
            up = net.level(k).enlarged(y)
            own = net.level(k).refined(net.level(k).refine(up))  # the block's contribution
            assert float(own.std((2, 3)).median()) > 1e-4, k
            y = up + own
            assert float(y.std((2, 3)).min()) > 0.01, k  # no channel is constant


def test_the_last_step_has_the_rate_of_the_recipe(tmp_path: Path, folder: Path) -> None:
    trainer = Trainer.new("c-dcscn", TINY)
    train(trainer, patches_for(trainer, folder), tmp_path / "net.pt")
    assert trainer.optimiser.param_groups[0]["lr"] == TINY.rate_at(5)
    assert trainer.rate() == TINY.rate_at(6)


def test_gradients_are_clipped_to_their_largest_norm(tmp_path: Path, folder: Path) -> None:
    recipe = replace(TINY, steps=1, warmup=0, optimiser="sgd", momentum=0, rate=1.0, clip=1e-3)
    trainer = Trainer.new("c-dcscn", recipe)
    before = _weights(trainer.net)
    train(trainer, patches_for(trainer, folder), tmp_path / "net.pt")
    assert float((_weights(trainer.net) - before).norm()) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize(
    ("ema", "decays"), [(0.999, (2 / 11, 3 / 12)), (0.1, (0.1, 0.1)), (0, (0, 0))]
)
def test_averaged_weights_follow_the_trained_ones(
    tmp_path: Path, folder: Path, ema: float, decays: tuple[float, float]
) -> None:
    trainer = Trainer.new("c-dcscn", replace(TINY, ema=ema))
    expected = _weights(trainer.net)
    assert torch.equal(_weights(trainer.average), expected)
    for step, decay in enumerate(decays, 1):
        trainer.recipe = replace(trainer.recipe, steps=step)
        train(trainer, patches_for(trainer, folder), tmp_path / "net.pt")
        assert not torch.equal(_weights(trainer.net), expected)
        expected = decay * expected + (1 - decay) * _weights(trainer.net)
        torch.testing.assert_close(_weights(trainer.average), expected)


def test_weight_norms_are_added_to_the_loss_at_their_weight(tmp_path: Path, folder: Path) -> None:
    plain, heavy = (
        Trainer.new("c-dcscn", replace(TINY, weight_norm=weight)) for weight in (0.0, 0.5)
    )
    kernels = [w.detach() for w in plain.net.parameters() if w.dim() == 4]
    assert len(kernels) == 11  # one per convolution, no biases or slopes
    norms = sum(math.sqrt(float((w.double() ** 2).sum())) for w in kernels)
    assert float(weight_norms(plain.net).detach()) == pytest.approx(norms, rel=1e-5)
    patches = patches_for(plain, folder)
    without, with_norms = (_losses(t, patches, tmp_path)[0] for t in (plain, heavy))
    assert with_norms - without == pytest.approx(0.5 * norms, rel=1e-4)


# the plateau rule


def test_the_rate_is_halved_after_epochs_without_a_new_low() -> None:
    rule, rates = Plateau(rate=1.0), []
    for loss in (5.0, 4.0, 4.0, 4.5, 3.9, 4.0, 3.9, 3.95, 3.8, 9.0):
        rule.end_epoch(loss, patience=3)
        rates.append(rule.rate)
    assert rates == [1.0] * 7 + [0.5] * 3
    assert (rule.best, rule.waited) == (3.8, 1)


def test_a_plateau_ends_below_its_stop_rate_and_stays_ended(tmp_path: Path, folder: Path) -> None:
    plateau = replace(
        TINY, steps=1000, patch=16, hr_patch=True, grid=32, schedule="plateau", warmup=0,
        patience=2, rate=1e-3, stop_rate=3e-4,
    )  # fmt: skip
    trainer = Trainer.new("c-dcscn", plateau)
    trainer.plateau.best = 0.0  # no epoch can improve on it
    patches = patches_for(trainer, folder)
    assert patches.epoch(2) == 8  # 2 x 2 positions in each of two pictures: 4 steps
    assert train(trainer, patches, tmp_path / "net.pt", Reporter(every=100))
    assert (trainer.step, trainer.plateau.rate) == (2 * 2 * 4, 2.5e-4)
    again = Trainer.resume(tmp_path / "net.pt")
    assert train(again, patches, tmp_path / "net.pt")
    assert_same(again.net.state_dict(), trainer.net.state_dict())
    assert again.step == trainer.step


def test_the_plateau_rule_sees_the_mean_loss_of_an_epoch(tmp_path: Path, folder: Path) -> None:
    recipe = replace(TINY, patch=16, hr_patch=True, grid=32, schedule="plateau", steps=6)
    trainer = Trainer.new("c-dcscn", recipe)
    losses = _losses(trainer, patches_for(trainer, folder), tmp_path)
    assert trainer.plateau.best == pytest.approx(sum(losses[:4]) / 4)
    assert trainer.plateau.total == pytest.approx(sum(losses[4:]))
    assert trainer.plateau.steps == 2


# the adversarial stage


def test_adversarial_steps_train_network_and_discriminators(
    tmp_path: Path, folder: Path, features: VggFeatures
) -> None:
    trainer = Trainer.new("pcarn-m", GAN, (4,), channels=8)
    trainer.features = features
    assert trainer.critic is not None
    before = _weights(trainer.net), _weights(trainer.critic), _weights(features)
    losses = _losses(trainer, patches_for(trainer, folder), tmp_path)
    assert all(math.isfinite(loss) for loss in losses)
    after = _weights(trainer.net), _weights(trainer.critic), _weights(features)
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [False, False, True]


def test_adversarial_training_without_features_or_with_small_patches_is_refused(
    tmp_path: Path, folder: Path, features: VggFeatures
) -> None:
    trainer = Trainer.new("pcarn-m", GAN, (4,), channels=8)
    patches = patches_for(trainer, folder)
    with pytest.raises(TrainError, match="needs VGG weights: pass --vgg FILE"):
        train(trainer, patches, tmp_path / "net.pt")
    small = Trainer.new("pcarn-m", replace(GAN, patch=3), (4,), channels=8)
    small.features = features
    with pytest.raises(TrainError, match="12 HR pixels are too small"):
        train(small, patches_for(small, folder), tmp_path / "net.pt")


# interruptions


@dataclass(frozen=True)
class Signalling(Patches):
    """Patches that raise signals in this process when the fourth batch is loaded."""

    signals: tuple[signal.Signals, ...] = ()

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor, int]:
        if k == 3 * self.recipe.batch:
            for number in self.signals:
                signal.raise_signal(number)
        return super().__getitem__(k)


def _signalling(patches: Patches, *signals: signal.Signals) -> Patches:
    return Signalling(patches.pictures, patches.recipe, patches.colour, patches.scales, signals)


PLATEAU = replace(TINY, patch=16, hr_patch=True, grid=32, schedule="plateau", patience=0)
CURRICULUM = replace(
    TINY, patch=4, scales=((0, (2,)), (2, (2, 4)), (4, (8,))), blend=2, optimiser="sgd", rate=1e-2,
    weight_decay=1e-2, loss=((0, "l1"), (2, "alternate")),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "recipe", "changes"),
    [
        ("c-dcscn", TINY, {}),
        ("c-dcscn", replace(TINY, network={"keep": 0.8}), {}),
        ("carn-m", replace(TINY, clip=1.0), SMALL["carn-m"]),
        ("c-dcscn", PLATEAU, {}),
        ("csrcnn", CURRICULUM, SMALL["csrcnn"]),
        ("pcarn-m", GAN, {"scales": (4,), "channels": 8}),
    ],
    ids=["plain", "with dropout", "of several scales", "on a plateau", "curriculum", "adversarial"],
)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    tmp_path: Path,
    folder: Path,
    features: VggFeatures,
    name: str,
    recipe: Recipe,
    changes: dict[str, Any],
) -> None:
    straight, cut = Trainer.new(name, recipe, **changes), Trainer.new(name, recipe, **changes)
    straight.features = cut.features = features
    patches = patches_for(straight, folder)
    assert train(straight, patches, tmp_path / "straight.pt", Reporter(every=5))

    reporter = Reporter(every=1000)
    assert not train(cut, _signalling(patches, signal.SIGTERM), tmp_path / "cut.pt", reporter)
    resumed = Trainer.resume(tmp_path / "cut.pt")
    assert resumed.step == 4
    resumed.features = features
    assert train(resumed, patches, tmp_path / "cut.pt")
    ours, theirs = (torch.load(tmp_path / f"{run}.pt") for run in ("cut", "straight"))
    assert_same(ours, theirs)
    assert not torch.equal(_weights(cut.net), _weights(resumed.net))  # it did train further


def test_a_second_signal_stops_at_once_and_the_last_save_goes_on(
    tmp_path: Path, folder: Path
) -> None:
    straight, cut = Trainer.new("c-dcscn", TINY), Trainer.new("c-dcscn", TINY)
    patches = patches_for(straight, folder)
    train(straight, patches, tmp_path / "straight.pt")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    twice = _signalling(patches, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(cut, twice, tmp_path / "cut.pt")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    resumed = Trainer.resume(tmp_path / "cut.pt")
    assert resumed.step == 2
    assert train(resumed, patches, tmp_path / "cut.pt")
    assert_same(resumed.net.state_dict(), straight.net.state_dict())
    assert_same(resumed.average.state_dict(), straight.average.state_dict())


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core
def test_worker_processes_cut_the_same_patches(tmp_path: Path, folder: Path) -> None:
    alone, helped = Trainer.new("c-dcscn", TINY), Trainer.new("c-dcscn", TINY)
    patches = patches_for(alone, folder)
    train(alone, patches, tmp_path / "alone.pt")
    train(helped, patches, tmp_path / "helped.pt", Reporter(workers=2))
    assert_same(helped.net.state_dict(), alone.net.state_dict())


# reports


def test_a_report_has_the_mean_loss_the_pace_and_the_time_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = Trainer.new("c-dcscn", replace(TINY, steps=2000))
    trainer.step = 200
    reporter = Reporter(_interval_start=time.monotonic() - 4)
    for loss in (1.0, 2.0):
        reporter.add_loss(loss)
    with caplog.at_level(logging.INFO, "train"):
        reporter.report(trainer)
        reporter.add_loss(5.0)
        reporter.report(trainer)
    first, second = (record.getMessage() for record in caplog.records)
    told = r"c-dcscn step 200/2000  loss 1\.50000  2\.00\d s/step, 1:00:\d\d left"
    assert re.fullmatch(told, first)
    assert "loss 5.00000" in second  # mean since the last report only
    assert "0:00:0" in second


def test_reports_score_the_averaged_weights_and_fill_a_tensorboard(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer.new("carn-m", replace(TINY, ema=0.9), (2, 4), channels=8)
    reporter = Reporter(every=3, validation=folder, board=tmp_path / "board")
    with caplog.at_level(logging.INFO, "train"):
        train(trainer, patches_for(trainer, folder), tmp_path / "net.pt", reporter)
    reporter.close()
    last = [r.getMessage() for r in caplog.records if r.name == "train.fit.reporter"][-1]
    told = {f"x{s}": float(psnr) for s, psnr in re.findall(r"  x(\d) (\d+\.\d\d) dB", last)}
    assert set(told) == {"x2", "x4"}
    score = evaluate(torch_enlarge(trainer.average, 4), folder, 4, "rgb")["psnr"]
    assert told["x4"] == pytest.approx(score, abs=0.006)

    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    tags = board.Tags()
    assert set(tags["scalars"]) == {"loss", "rate", "seconds per step", "psnr/x2", "psnr/x4"}
    assert set(tags["images"]) == {"x2", "x4"}
    assert [event.step for event in board.Scalars("loss")] == [3, 6]
    assert board.Scalars("psnr/x4")[-1].value == pytest.approx(told["x4"], abs=0.006)
    image = board.Images("x2")[-1]
    assert (image.width, image.height) == (3 * 64, 48)  # bicubic, ours, truth


def test_a_board_that_cannot_be_written_is_told_in_one_line(tmp_path: Path, folder: Path) -> None:
    trainer = Trainer.new("c-dcscn", TINY)
    reporter = Reporter(every=3, board=folder / "0.png")
    with pytest.raises(
        TrainError, match=r"cannot write TensorBoard's files to .*0.png: "
    ) as caught:
        train(trainer, patches_for(trainer, folder), tmp_path / "net.pt", reporter)
    assert "\n" not in str(caught.value)


def test_a_pcarn_that_starts_from_carn_has_its_relus_at_first_and_none_in_the_end(
    folder: Path, tmp_path: Path
) -> None:
    carn = build("carn-m", (2,), channels=16)
    assert isinstance(carn, Carn)
    recipe = replace(TINY, relu_fade=4)
    pcarn = Trainer.new("pcarn-m-l1", recipe, (2,), channels=16)
    pcarn.net.load_state_dict(carn.state_dict())
    pcarn.adopt_initial_weights()
    x = torch.rand(1, 3, 9, 11)
    assert isinstance(pcarn.net, Carn)
    set_slope(pcarn.net, 0.0)
    pcarn.net.c3.slope = 1.0  # CARN's ReLU cannot be kept before the long skip
    carn.c3.body = carn.c3.body[:1]
    with torch.no_grad():
        assert (pcarn.net(x, 2) - carn(x, 2)).abs().max() < 1e-5
    train(pcarn, patches_for(pcarn, folder), tmp_path / "pcarn.pt")
    plain = build("pcarn-m-l1", (2,), channels=16)
    plain.load_state_dict(pcarn.net.state_dict())
    with torch.no_grad():
        assert (pcarn.net(x, 2) - plain(x, 2)).abs().max() < 1e-6


def test_a_half_faded_pcarn_is_scored_with_its_relus_and_not_shipped(
    folder: Path, tmp_path: Path
) -> None:
    assert replace(TINY, steps=10, relu_fade=4).with_steps(5).relu_fade == 2
    recipe = replace(TINY, steps=4, relu_fade=4)
    trainer = Trainer.new("pcarn-m-l1", recipe, (2,), channels=8)
    trainer.until = 2
    train(trainer, patches_for(trainer, folder), tmp_path / "net.pt")
    assert isinstance(trainer.average, Carn)
    assert trainer.average.c1.slope == 0.25  # of the step that was made last
    assert trainer.save_best(40.0, tmp_path, tmp_path / "net.pt") is None
    with pytest.raises(TrainError, match="fade out until step 4: train further"):
        export(tmp_path / "net.pt", Target(engines=tmp_path / "engines"))
    trainer.until = 0
    train(trainer, patches_for(trainer, folder), tmp_path / "net.pt")
    assert trainer.save_best(40.0, tmp_path, tmp_path / "net.pt") is not None


def test_relus_fade_in_a_pcarn_alone() -> None:
    carn = Trainer.new("carn-m", replace(TINY, relu_fade=4), (2,), channels=16)
    with pytest.raises(TrainError, match="relu_fade requires a PCARN"):
        carn.adopt_initial_weights()
