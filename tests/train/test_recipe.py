"""Tests of recipes: the papers' settings, schedules and phases, and refused files."""

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from train.errors import TrainError
from train.fit.gan import AdversarialSettings, smallest_patch
from train.fit.initialise import INITS
from train.fit.recipe import Recipe, find_recipe, recipe_from, recipe_record, recipes_of
from train.fit.trainer import Trainer
from train.nets import NETS

CARN = ["carn", "carn-nl", "carn-ng", "carn-baseline", "carn-m"]
PCARN = ["pcarn", "pcarn-m"]
PCARN_L1 = ["pcarn-l1", "pcarn-m-l1"]
DCSCN = ["dcscn", "c-dcscn"]


# the papers: one table each, with all settings of the training that the text gives. `OPEN` has the
# settings that it does not give. A setting in neither fails the tests.

PAPERS: dict[str, dict[str, Any]] = {
    "CARN": {  # arXiv:1803.08664, section 4.2
        "steps": 600_000,
        "batch": 64,
        "patch": 64,
        "hr_patch": False,  # LR patches
        "grid": 0,  # at any position
        "turns": "all",  # flips and rotations by 90 degrees
        "copies": (),
        "degradation": "bicubic",
        "boxes": 0.0,
        "scales": (),  # each batch has one of all scales
        "init": "carn",
        "start_small": False,
        "network": {},
        "optimiser": "adam",
        "betas": (0.9, 0.999),
        "weight_decay": 0.0,
        "weight_norm": 0.0,
        "rate": 1e-4,
        "schedule": "halve",
        "halve_every": 400_000,
        "ema": 0.0,
        "loss": ((0, "l1"),),
    },
    "PCARN, L1": {  # arXiv:1903.02240, section 4
        "steps": 600_000,
        "batch": 64,
        "patch": 48,
        "hr_patch": False,
        "grid": 0,
        "turns": "all",
        "copies": (),
        "degradation": "bicubic",
        "boxes": 0.0,
        "scales": (),
        "init": "default",
        "start_small": False,
        "network": {},
        "optimiser": "adam",
        "betas": (0.9, 0.999),
        "weight_decay": 0.0,
        "weight_norm": 0.0,
        "rate": 1e-4,
        "schedule": "halve",
        "halve_every": 400_000,
        "ema": 0.0,
        "loss": ((0, "l1"),),
    },
    "DCSCN": {  # arXiv:1707.05425, section 4.1
        "batch": 64,
        "patch": 32,
        "hr_patch": True,
        "grid": 16,
        "turns": "flips",
        "copies": (),
        "degradation": "bicubic",
        "boxes": 0.0,
        "scales": (),  # one scale per network
        "init": "he",
        "start_small": False,
        "network": {"keep": 0.8, "slope": 0.0},
        "optimiser": "adam",
        "betas": (0.9, 0.999),
        "weight_decay": 0.0,
        "weight_norm": pytest.approx(1e-4 / 255**2),  # 1e-4 for squared errors in 0..255
        "rate": 2e-3,
        "schedule": "plateau",
        "patience": 5,
        "stop_rate": 2e-5,
        "clip": 0.0,
        "ema": 0.0,
        "loss": ((0, "l2"),),
    },
    "CSRCNN": {  # IEEE TMM 2020, sections III and IV; steps and rate are not given
        "batch": 32,
        "patch": 32,
        "hr_patch": False,
        "copies": (0.9, 0.8, 0.7, 0.5),
        "degradation": "bicubic",
        "boxes": 0.0,
        "init": "he",
        "start_small": False,
        "network": {},
        "optimiser": "sgd",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "weight_norm": 0.0,
        "ema": 0.0,
    },
}
OPEN = {
    "CARN": {"clip"},  # 10 in the public code
    "PCARN, L1": {"clip"},  # the same
    "PCARN, adversarial": {"clip"},
    "DCSCN": {"steps"},  # the plateau rule ends the training
    # the paper gives the order of levels and losses (tested below), but not the steps
    "CSRCNN": {
        "steps", "rate", "schedule", "halve_every", "clip", "grid", "turns", "scales", "loss",
        "blend",
    },
}  # fmt: skip
for _paper in PAPERS:
    PAPERS[_paper] |= {"relu_fade": 0, "teacher": "", "warmup": 0}  # no paper has these
    PAPERS[_paper] |= {} if _paper == "CSRCNN" else {"blend": 0}
PAPERS["PCARN, adversarial"] = PAPERS["PCARN, L1"] | {  # other settings are the same
    "steps": 200_000,
    "loss": ((0, "gan"),),
    # the paper's VGG layer; the two weights are the public code's
    "adversary": {"gamma_gan": 5e-3, "gamma_vgg": 1.0, "relu": "5_4"},
}
TRAINED = [
    *((name, "paper", "CARN") for name in CARN),
    *((name, "paper", "PCARN, L1") for name in PCARN_L1),
    *((name, "gan", "PCARN, adversarial") for name in PCARN),
    *((name, "paper", "DCSCN") for name in DCSCN),
    ("csrcnn", "paper", "CSRCNN"),
]


@pytest.mark.parametrize(("name", "recipe", "paper"), TRAINED)
def test_a_network_is_trained_as_its_paper_says(name: str, recipe: str, paper: str) -> None:
    found = find_recipe(name, recipe)
    assert {key: getattr(found, key) for key in PAPERS[paper]} == PAPERS[paper]


def _idle(recipe: Recipe) -> set[str]:
    """Return the settings that have no effect with the other settings of a recipe."""
    found = {"name", "seed", "teacher_weight", "sharp"}
    found |= {"betas"} if recipe.optimiser == "sgd" else {"momentum"}
    found |= set() if recipe.schedule == "plateau" else {"patience", "stop_rate"}
    found |= set() if recipe.schedule == "halve" else {"halve_every"}
    found |= set() if recipe.schedule == "shares" else {"halve_at"}
    return found | (set() if recipe.uses_gan_loss() else {"adversary"})


@pytest.mark.parametrize(("name", "recipe", "paper"), TRAINED)
def test_a_papers_table_leaves_no_setting_out(name: str, recipe: str, paper: str) -> None:
    told, settings = set(PAPERS[paper]), {field.name for field in fields(Recipe)}
    assert settings - _idle(find_recipe(name, recipe)) - OPEN[paper] <= told
    assert not told & OPEN[paper]


def test_every_network_has_its_papers_recipe_and_ours() -> None:
    assert set(NETS) - {"rt"} == {name for name, _, _ in TRAINED}  # rt has no paper
    for name, recipe, _ in TRAINED:
        assert set(recipes_of(name)) >= {recipe, "ours"}, name


def test_pcarn_is_the_adversarial_network_and_pcarn_l1_the_other_in_every_recipe() -> None:
    for name in PCARN:
        assert all(r.uses_gan_loss() or r.uses_sharp_loss() for r in recipes_of(name).values())
    for name in PCARN_L1:
        assert not any(recipe.uses_gan_loss() for recipe in recipes_of(name).values())


def test_the_adversarial_stage_is_of_one_network_for_all_scales() -> None:
    for name in PCARN:
        for recipe in map(partial(find_recipe, name), ("gan", "ours")):
            trainer = Trainer.new(name, recipe, channels=8)
            assert trainer.net.scales == (2, 3, 4)
            assert recipe.scales_at(0, trainer.net.scales) == (2, 3, 4)
            assert recipe.lr_patch(2) * 2 >= smallest_patch(AdversarialSettings(), recipe.batch)


@pytest.mark.parametrize(
    ("network", "recipe", "source"),
    [
        ("pcarn-m", "gan", "an L1 training"),
        ("pcarn-m", "sharp", "an L1 training"),
        ("dcscn", "sharp", "a training of recipe `stream` or `sharp`"),
        ("pcarn-m", "sharp-stream", "a training of recipe `stream` or `sharp`"),
        ("carn-m", "stream", "a training on clean pictures"),
        ("pcarn-m-l1", "distil", "CARN"),
        ("pcarn-m-l1", "paper", ""),
        ("c-dcscn", "ours", ""),
    ],
)
def test_a_recipe_says_whose_weights_it_goes_on_with(
    network: str, recipe: str, source: str
) -> None:
    assert find_recipe(network, recipe).expected_start() == source


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_recipe_starts_a_network_that_has_its_scales(name: str) -> None:
    for recipe in recipes_of(name).values():
        assert recipe.init in INITS
        trainer = Trainer.new(name, recipe)
        for _, scales in recipe.scales:
            assert set(scales) <= set(trainer.net.scales), recipe.name


def test_carns_rate_is_halved_once() -> None:
    paper = find_recipe("carn", "paper")
    rates = [paper.rate_at(step) for step in (0, 399_999, 400_000, 599_999)]
    assert rates == [1e-4, 1e-4, 5e-5, 5e-5]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_dcscns_patches_are_cut_from_the_hr_pictures(scale: int) -> None:
    for name in DCSCN:
        assert find_recipe(name, "paper").lr_patch(scale) == 32 // scale


def test_csrcnn_learns_level_by_level_then_with_both_losses_in_turn() -> None:
    paper = find_recipe("csrcnn", "paper")
    steps = range(0, paper.steps, 999)
    stages = list(dict.fromkeys(paper.scales_at(step, (2, 4, 8)) for step in steps))
    assert stages == [(2,), (2, 4), (2, 4, 8)]
    assert paper.blend > 0
    first = paper.loss[1][0]
    assert {paper.loss_at(step) for step in range(first)} == {"l1"}
    assert [paper.loss_at(first + k) for k in range(4)] == ["l2", "l1", "l2", "l1"]


@pytest.mark.parametrize("name", CARN)
def test_our_recipes_of_carn_start_as_torch_does(name: str) -> None:
    assert {r.init for key, r in recipes_of(name).items() if key != "paper"} == {"torch"}


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
    assert float(convolutions[-1].weight.detach().std()) > 0.1  # not scaled down


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
    assert [recipe.level_weight_at(step, 4) for step in (100, 109, 119, 150)] == [
        0.05,
        0.5,
        1.0,
        1.0,
    ]
    assert [recipe.level_weight_at(step, 8) for step in (200, 219, 220)] == [0.05, 1.0, 1.0]
    assert {recipe.level_weight_at(step, 2) for step in range(0, 200, 7)} == {
        1.0
    }  # the first level is never blended
    assert Recipe(scales=((0, (2,)), (5, (4,)))).level_weight_at(5, 4) == 1.0  # no `blend`
    paper = find_recipe("csrcnn", "paper")
    assert [paper.level_weight_at(step, 4) for step in (104_999, 119_999)] == [0.25, 1.0]
    assert [paper.level_weight_at(step, 8) for step in (204_999, 219_999)] == [0.25, 1.0]


def test_a_network_without_levels_cannot_blend_them() -> None:
    with pytest.raises(TrainError, match=r"recipe 'ours' blends in levels .*, which carn lacks"):
        Trainer.new("carn", Recipe(blend=5), channels=8)


def test_another_length_moves_phases_and_halvings_along() -> None:
    paper = find_recipe("csrcnn", "paper")
    short = paper.with_steps(300)
    assert (short.steps, short.halve_every, short.blend) == (300, 60, 20)
    assert short.scales == ((0, (2,)), (100, (2, 4)), (200, (2, 4, 8)))
    assert short.loss == ((0, "l1"), (150, "alternate"))
    same = ("batch", "patch", "rate", "warmup", "copies")
    assert [getattr(short, key) for key in same] == [getattr(paper, key) for key in same]


def test_the_same_or_no_length_leaves_a_recipe_as_it_is() -> None:
    paper = find_recipe("carn", "paper")
    assert paper.with_steps(None) == paper.with_steps(600_000) == paper
    assert paper.with_steps(1).halve_every == 1  # never 0, because it is a divisor


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
        ("steps = '7'", "steps = '7' has the wrong type"),
        ("betas = 0.9", "betas = 0.9 has the wrong type"),
        ("turns = 'flip'", "turns = 'flip' is not one of flips, all"),
        ("optimiser = 'adamw'", "optimiser = 'adamw' is not one of adam, sgd"),
        ("degradation = 'x'", "degradation = 'x' is not one of bicubic, stream, low-rate stream"),
        ("schedule = 'halve'", "needs halve_every"),
        ("boxes = 1.5", "boxes = 1.5 is not in 0..1"),
        ("teacher_weight = -0.1", "teacher_weight = -0.1 is not in 0..1"),
        ("loss = [[0, 'l3']]", "loss 'l3' is not one of"),
        ("loss = [[5, 'l1']]", "loss has no phase for step 0"),
        ("loss = ['l1', 'l2']", "loss is not a list of"),
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
