"""Recipes: the papers' numbers, schedules and phases, and files that are no recipes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from train.errors import TrainError
from train.fit.initialise import INITS
from train.fit.recipe import Recipe, find_recipe, recipe_from, recipe_record, recipes_of
from train.fit.trainer import Trainer
from train.nets import NETS

CARN = ["carn", "carn-nl", "carn-ng", "carn-baseline", "carn-m"]
PCARN = ["pcarn", "pcarn-l1", "pcarn-m", "pcarn-m-l1"]
DCSCN = ["dcscn", "c-dcscn"]


# the papers


def test_every_network_has_the_papers_recipe_and_ours() -> None:
    assert set(NETS) == {*CARN, *PCARN, *DCSCN, "csrcnn"}
    for name in NETS:
        assert set(recipes_of(name)) >= {"paper", "ours"}, name


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_recipe_starts_a_network_that_has_its_scales(name: str) -> None:
    for recipe in recipes_of(name).values():
        assert recipe.init in INITS
        trainer = Trainer.new(name, recipe)
        for _, scales in recipe.scales:
            assert set(scales) <= set(trainer.net.scales), recipe.name


@pytest.mark.parametrize("name", CARN)
def test_carn_is_trained_as_its_paper_says(name: str) -> None:
    paper = find_recipe(name, "paper")
    assert (paper.patch, paper.hr_patch, paper.batch, paper.steps) == (64, False, 64, 600_000)
    assert (paper.optimiser, paper.betas, paper.weight_decay) == ("adam", (0.9, 0.999), 0)
    rates = [paper.rate_at(step) for step in (0, 399_999, 400_000, 599_999)]
    assert rates == [1e-4, 1e-4, 5e-5, 5e-5]
    assert {paper.loss_at(step) for step in range(0, 600_000, 9_999)} == {"l1"}
    assert (paper.init, paper.degradation, paper.ema) == ("carn", "bicubic", 0)
    assert paper.scales_at(5, (2, 3, 4)) == (2, 3, 4)  # one of all a batch


@pytest.mark.parametrize("name", PCARN)
def test_pcarn_is_trained_as_its_paper_says(name: str) -> None:
    paper, gan = find_recipe(name, "paper"), find_recipe(name, "gan")
    assert (paper.patch, paper.steps, paper.rate, paper.halve_every) == (48, 600_000, 1e-4, 400_000)
    assert (gan.patch, gan.steps, gan.rate) == (48, 200_000, 1e-4)
    assert {paper.loss_at(0), paper.loss_at(599_999)} == {"l1"}
    assert {gan.loss_at(0), gan.loss_at(199_999)} == {"gan"}
    assert (paper.adversarial(), gan.adversarial()) == (False, True)
    assert (paper.optimiser, paper.betas) == (gan.optimiser, gan.betas) == ("adam", (0.9, 0.999))


@pytest.mark.parametrize("name", DCSCN)
def test_dcscn_is_trained_as_its_paper_says(name: str) -> None:
    paper = find_recipe(name, "paper")
    assert [paper.lr_patch(scale) * scale for scale in (2, 4)] == [32, 32]
    assert (paper.grid, paper.turns) == (16, "flips")
    assert (paper.network, paper.init) == ({"keep": 0.8, "slope": 0.0}, "he")
    assert (paper.loss, paper.weight_norm) == (((0, "l2"),), 1e-4)
    assert (paper.optimiser, paper.weight_decay) == ("adam", 0)
    assert (paper.schedule, paper.rate, paper.patience, paper.stop_rate) == (
        "plateau", 2e-3, 5, 2e-5
    )  # fmt: skip


def test_csrcnn_is_trained_as_its_paper_says() -> None:
    paper = find_recipe("csrcnn", "paper")
    assert (paper.batch, paper.patch, paper.hr_patch, paper.init) == (32, 32, False, "he")
    assert (paper.optimiser, paper.momentum, paper.weight_decay) == ("sgd", 0.9, 1e-4)
    assert paper.copies == (0.9, 0.8, 0.7, 0.5)
    assert (paper.start_small, paper.degradation, paper.blend) == (False, "bicubic", 20_000)
    steps = range(0, paper.steps, 999)
    stages = list(dict.fromkeys(paper.scales_at(step, (2, 4, 8)) for step in steps))
    assert stages == [(2,), (2, 4), (2, 4, 8)]
    first = paper.loss[1][0]
    assert {paper.loss_at(step) for step in range(first)} == {"l1"}
    assert [paper.loss_at(first + k) for k in range(4)] == ["l2", "l1", "l2", "l1"]


def test_a_new_dcscn_of_the_paper_drops_a_fifth_and_starts_without_bias_or_slope() -> None:
    net = Trainer.new("c-dcscn", find_recipe("c-dcscn", "paper")).net
    slopes = [m.weight for m in net.modules() if isinstance(m, nn.PReLU)]
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(slopes) == 10
    assert not any(torch.any(slope) for slope in slopes)
    assert not any(torch.any(conv.bias) for conv in convolutions if conv.bias is not None)
    dropped = [m.p for m in net.modules() if isinstance(m, nn.Dropout)]
    assert dropped == pytest.approx([0.2] * 10)
    he = (2 / (convolutions[1].in_channels * 9)) ** 0.5
    assert float(convolutions[1].weight.detach().std()) == pytest.approx(he, rel=0.05)
    assert float(convolutions[-1].weight.detach().std()) > 0.1  # not made small


def test_a_new_carn_of_the_paper_is_uniform_within_one_over_root_of_its_channels() -> None:
    net = Trainer.new("carn-m", find_recipe("carn-m", "paper")).net
    for conv in net.modules():
        if isinstance(conv, nn.Conv2d) and conv.weight.requires_grad:
            bound = conv.in_channels**-0.5
            assert 0.95 * bound < float(conv.weight.detach().abs().max()) <= bound
            assert conv.bias is not None
            assert 0 < float(conv.bias.detach().abs().max()) <= bound


# schedules and phases


def test_a_cosine_warms_up_then_falls_to_a_hundredth() -> None:
    recipe = Recipe(steps=110, warmup=10, rate=1.0)
    rates = [recipe.rate_at(step) for step in (0, 9, 10, 60, 110, 500)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.505, 0.01, 0.01])


def test_a_rate_is_halved_every_so_many_steps_after_its_warm_up() -> None:
    recipe = Recipe(schedule="halve", halve_every=10, warmup=4, rate=1.0)
    rates = [recipe.rate_at(step) for step in (1, 4, 9, 10, 19, 20)]
    assert rates == [0.5, 1.0, 1.0, 0.5, 0.5, 0.25]


def test_phases_begin_at_their_first_step() -> None:
    recipe = Recipe(loss=((0, "l2"), (10, "l1"), (20, "alternate")), scales=((0, (2,)), (15, (4,))))
    assert [recipe.loss_at(step) for step in (0, 9, 10, 19, 20, 21)] == [
        "l2", "l2", "l1", "l1", "l2", "l1"
    ]  # fmt: skip
    assert [recipe.scales_at(step, (2, 4)) for step in (14, 15)] == [(2,), (4,)]


def test_a_level_that_joins_later_is_blended_in_linearly() -> None:
    recipe = Recipe(scales=((0, (2,)), (100, (2, 4)), (200, (8,))), blend=20)
    assert [recipe.share_at(step, 4) for step in (100, 109, 119, 150)] == [0.05, 0.5, 1.0, 1.0]
    assert [recipe.share_at(step, 8) for step in (200, 219, 220)] == [0.05, 1.0, 1.0]
    assert {recipe.share_at(step, 2) for step in range(0, 200, 7)} == {1.0}  # the first is there
    assert Recipe(scales=((0, (2,)), (5, (4,)))).share_at(5, 4) == 1.0  # at once
    paper = find_recipe("csrcnn", "paper")
    assert [paper.share_at(step, 4) for step in (104_999, 119_999)] == [0.25, 1.0]
    assert [paper.share_at(step, 8) for step in (204_999, 219_999)] == [0.25, 1.0]


def test_a_network_without_levels_cannot_blend_them() -> None:
    with pytest.raises(TrainError, match="recipe 'ours' blends levels in, and carn has none"):
        Trainer.new("carn", Recipe(blend=5), channels=8)


def test_another_length_moves_phases_and_halvings_along() -> None:
    paper = find_recipe("csrcnn", "paper")
    short = paper.resized(300)
    assert (short.steps, short.halve_every, short.blend) == (300, 60, 20)
    assert short.scales == ((0, (2,)), (100, (2, 4)), (200, (2, 4, 8)))
    assert short.loss == ((0, "l1"), (150, "alternate"))
    same = ("batch", "patch", "rate", "warmup", "copies")
    assert [getattr(short, key) for key in same] == [getattr(paper, key) for key in same]


def test_the_same_or_no_length_leaves_a_recipe_as_it_is() -> None:
    paper = find_recipe("carn", "paper")
    assert paper.resized(None) == paper.resized(600_000) == paper
    assert paper.resized(1).halve_every == 1  # never 0, which nothing divides by


# files


def test_a_recipe_survives_as_plain_data() -> None:
    for recipe in recipes_of("csrcnn").values():
        assert recipe_from(recipe_record(recipe), recipe.name) == recipe


def test_a_users_own_file_is_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('steps = 7\nrate = 1\nloss = [[0, "l2"]]\nnetwork = { keep = 0.9 }\n')
    expected = Recipe(name="mine", steps=7, rate=1, loss=((0, "l2"),), network={"keep": 0.9})
    assert find_recipe("c-dcscn", str(path)) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("stepps = 7", "recipe 'mine' has unknown keys: stepps"),
        ("[ours]\nsteps = 7", "unknown keys: ours"),
        ("steps = ", "mine.toml is not a recipe"),
        ("steps = '7'", "steps = '7' is of another type"),
        ("betas = 0.9", "betas = 0.9 is of another type"),
        ("turns = 'flip'", "turns = 'flip' is none of flips, all"),
        ("optimiser = 'adamw'", "optimiser = 'adamw' is none of adam, sgd"),
        ("degradation = 'x'", "degradation = 'x' is none of bicubic, stream"),
        ("schedule = 'halve'", "needs halve_every"),
        ("loss = [[0, 'l3']]", "loss 'l3' is none of"),
        ("loss = [[5, 'l1']]", "loss has no phase for step 0"),
        ("loss = ['l1', 'l2']", "loss is no list of"),
        ("scales = [[3, [2]]]", "scales has no phase for step 0"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(TrainError, match=complaint) as caught:
        find_recipe("c-dcscn", str(path))
    assert "\n" not in str(caught.value)
