"""Tests of checkpoints: atomic writes, exact resuming, refusal of damaged or malicious files."""

import logging
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.training import TINY, assert_same, image_folder, patches_for, train
from train.errors import TrainError
from train.fit.checkpoint import load_checkpoint, stage_record
from train.fit.recipe import Recipe
from train.fit.trainer import Trainer
from train.nets import build
from train.nets.carn import Carn
from train.ship.imports import load_fitting_weights, read_weights

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = Path(__file__).parents[2] / "engines"
MINUTE: dict[str, Any] = {"features": (2, 2), "a1": 2, "b1": 2, "b2": 2}
"""Settings of a DCSCN whose checkpoint with optimiser state has at most 20 kB."""


def _refused(complaint: str, action: Callable[[], object]) -> None:
    with pytest.raises(TrainError, match=complaint) as caught:
        action()
    assert "\n" not in str(caught.value)


# saving and resuming


@pytest.mark.parametrize(
    ("name", "recipe", "changes"),
    [
        ("c-dcscn", replace(TINY, schedule="plateau"), {"keep": 0.9, "scales": (3,)}),
        ("carn", TINY, {"efficient": True, "groups": 4, "channels": 8, "scales": (2, 4)}),
        ("csrcnn", replace(TINY, patch=4, optimiser="sgd"), {"channels": 8, "blocks": (1, 1, 1)}),
    ],
    ids=["c-dcscn", "carn", "csrcnn"],
)
def test_a_checkpoint_rebuilds_itself_exactly(
    tmp_path: Path, name: str, recipe: Recipe, changes: dict[str, Any]
) -> None:
    trainer = Trainer.new(name, replace(recipe, steps=3), **changes)
    trainer.history, trainer.data = [{"step": 7}], {"images": 2}
    trainer.command, trainer.precision = "python -m train fit", "bf16-mixed"
    patches = patches_for(trainer, image_folder(tmp_path / "hr"))
    train(trainer, patches, tmp_path / "net.pt")
    twin = Trainer.resume(tmp_path / "net.pt")
    assert twin.net.config == trainer.net.config
    for key, value in changes.items():
        assert getattr(twin.net.config, key) == value
    assert (twin.name, twin.recipe, twin.step) == (name, trainer.recipe, 3)
    assert (twin.plateau, twin.history, twin.data) == (
        trainer.plateau,
        trainer.history,
        trainer.data,
    )
    assert_same(twin.net.state_dict(), trainer.net.state_dict())
    assert_same(twin.average.state_dict(), trainer.average.state_dict())
    assert_same(twin.optimiser.state_dict(), trainer.optimiser.state_dict())
    saved = load_checkpoint(tmp_path / "net.pt")
    assert (saved["command"], saved["precision"]) == ("python -m train fit", "bf16-mixed")
    assert not all(map(torch.equal, trainer.net.parameters(), trainer.average.parameters()))


def test_a_checkpoint_keeps_discriminators_and_their_optimiser(tmp_path: Path) -> None:
    recipe = replace(TINY, loss=((0, "gan"),), adversary={"pools": (1,)})
    trainer = Trainer.new("pcarn-m", recipe, (4,), channels=8)
    critic, optimiser = trainer.critic, trainer.critic_optimiser
    assert critic is not None
    assert optimiser is not None
    critic(torch.rand(2, 3, 32, 32))[0].sum().backward()
    optimiser.step()
    trainer.save(tmp_path / "net.pt")
    twin = Trainer.resume(tmp_path / "net.pt")
    assert twin.critic is not None
    assert twin.critic_optimiser is not None
    assert_same(twin.critic.state_dict(), critic.state_dict())
    assert_same(twin.critic_optimiser.state_dict(), optimiser.state_dict())
    assert optimiser.state_dict()["state"]


@pytest.mark.parametrize("name", ["carn-m", "pcarn-m"])
def test_a_checkpoint_of_when_pcarn_was_one_setting_still_loads(tmp_path: Path, name: str) -> None:
    trainer = Trainer.new(name, TINY, (2,), channels=8)
    trainer.save(tmp_path / "net.pt")
    saved = torch.load(tmp_path / "net.pt")
    for key in ("point_relu", "long_skip"):
        del saved["config"][key]
    torch.save({**saved, "config": saved["config"] | {"pcarn": name == "pcarn-m"}}, tmp_path / "a")
    assert Trainer.resume(tmp_path / "a").net.config == trainer.net.config
    _, history = read_weights(tmp_path / "a", build(name))
    assert history[0]["settings"] == {"channels": 8}


class _Features(nn.Module):
    description = "VGG19 relu5_4, values of 0..1"


def test_a_checkpoint_says_which_features_its_loss_took(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer.new("pcarn-m", replace(TINY, loss=((0, "gan"),)), (4,), channels=8)
    features, others = _Features(), _Features()
    others.description = "VGG16 conv4_3, before its ReLU, values of 0..1"
    with caplog.at_level(logging.INFO, "train"):
        trainer.use_features(features)  # type: ignore[arg-type]
        trainer.save(tmp_path / "net.pt")
        twin = Trainer.resume(tmp_path / "net.pt")
        assert (
            load_checkpoint(tmp_path / "net.pt")["vgg"]
            == twin.features_description
            == features.description
        )
        assert stage_record(load_checkpoint(tmp_path / "net.pt"))["vgg"] == features.description
        twin.use_features(features)  # type: ignore[arg-type]
        assert "changed" not in caplog.text
        twin.use_features(others)  # type: ignore[arg-type]
    assert caplog.messages[0] == f"VGG features of the loss: {features.description}"
    changed = f"changed: was {features.description}, now {others.description}"
    assert f"VGG features of the loss have {changed}" in caplog.messages
    assert caplog.messages[-1] == f"VGG features of the loss: {others.description}"


def test_other_data_or_precision_than_before_is_said_aloud(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = Trainer.new("c-dcscn", TINY, **MINUTE)
    first = {"folders": ["yang91"], "images": 91, "sha256": "0123456789"}
    second = {"folders": ["yang91", "photos"], "images": 175, "sha256": "abcdef0123"}
    trainer.set_data_and_precision(first, "32-true")  # a new training: no message
    trainer.step = 5
    trainer.set_data_and_precision(first, "32-true")
    assert caplog.messages == []
    trainer.set_data_and_precision(second, "bf16-mixed")
    assert caplog.messages == [
        "training data has changed: was 91 images of yang91 (01234567), "
        "now 175 images of yang91, photos (abcdef01)",
        "precision has changed: was 32-true, now bf16-mixed",
    ]
    assert (trainer.data, trainer.precision) == (second, "bf16-mixed")


def test_resuming_with_steps_moves_the_end_of_the_recipe_only(tmp_path: Path) -> None:
    recipe = replace(TINY, schedule="halve", halve_every=3, loss=((0, "l1"), (4, "l2")))
    Trainer.new("c-dcscn", recipe, **MINUTE).save(tmp_path / "net.pt")
    assert Trainer.resume(tmp_path / "net.pt", steps=50).recipe == replace(recipe, steps=50)
    assert Trainer.resume(tmp_path / "net.pt").recipe == recipe


def test_a_run_continued_to_more_steps_ends_as_one_that_had_them(tmp_path: Path) -> None:
    recipe = replace(TINY, schedule="halve", halve_every=3)  # rates independent of `steps`
    straight = Trainer.new("c-dcscn", recipe, **MINUTE)
    patches = patches_for(straight, image_folder(tmp_path / "hr"))
    train(straight, patches, tmp_path / "straight.pt")
    short = Trainer.new("c-dcscn", replace(recipe, steps=4), **MINUTE)
    train(short, patches, tmp_path / "net.pt")
    longer = Trainer.resume(tmp_path / "net.pt", steps=6)
    train(longer, patches, tmp_path / "net.pt")
    assert longer.step == 6
    assert_same(longer.net.state_dict(), straight.net.state_dict())


# failures while saving


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a tmpfs of 96 kB; skip the test if mounting is not allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_last_good_checkpoint(small_disk: Path) -> None:
    path = small_disk / "net.pt"
    trainer = Trainer.new("c-dcscn", TINY, **MINUTE)
    trainer.save(path)
    (small_disk / "hog").write_bytes(bytes(96 * 1024 - 2 * path.stat().st_size))
    trainer.step = 5
    _refused(
        r"cannot save .*net.pt: .*; the previous checkpoint is intact", lambda: trainer.save(path)
    )
    assert {p.name for p in small_disk.iterdir()} == {"net.pt", "hog"}  # no partial file
    assert Trainer.resume(path).step == 0
    (small_disk / "hog").unlink()
    trainer.save(path)
    assert Trainer.resume(path).step == 5


def test_a_checkpoint_in_a_folder_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    trainer = Trainer.new("c-dcscn", TINY, **MINUTE)
    _refused("cannot save .*: No such file", lambda: trainer.save(tmp_path / "missing/net.pt"))


# untrusted checkpoints


def _damaged(whole: bytes, how: str) -> bytes:
    middle = len(whole) // 2  # inside the weights
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    return {"empty": b"", "text": b"weights", "truncated": whole[:middle], "flipped": flipped}[how]


@pytest.mark.parametrize("how", ["empty", "text", "truncated", "flipped"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "net.pt"
    Trainer.new("c-dcscn", TINY).save(path)
    path.write_bytes(_damaged(path.read_bytes(), how))
    _refused("net.pt is damaged", lambda: Trainer.resume(path))
    _refused("net.pt", lambda: read_weights(path, build("c-dcscn")))


def test_a_damaged_byte_anywhere_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    trainer = Trainer.new("c-dcscn", TINY, **MINUTE)
    trainer.save(path)
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(1)
    for at in rng.integers(len(whole), size=150):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ rng.integers(1, 256)]) + whole[at + 1 :])
        try:
            resumed = Trainer.resume(path)
        except TrainError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert_same(resumed.net.state_dict(), trainer.net.state_dict())
            assert resumed.recipe == TINY
    assert refused > 50


class _Malicious:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_that_holds_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, made = tmp_path / "net.pt", tmp_path / "made"
    Trainer.new("c-dcscn", TINY, **MINUTE).save(path)
    torch.save({**torch.load(path), "history": _Malicious(made)}, path)
    _refused("net.pt is damaged, .*, or contains more than weights", lambda: Trainer.resume(path))
    _refused("net.pt is damaged, .* or contains ", lambda: read_weights(path, build("c-dcscn")))
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # unpickling does run the code


def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, made = tmp_path / "net.pt", tmp_path / "made"
    path.write_bytes(pickle.dumps(_Malicious(made)))
    _refused("net.pt is ", lambda: Trainer.resume(path))
    _refused("net.pt is ", lambda: read_weights(path, build("c-dcscn")))
    assert not made.exists()
    pickle.loads(path.read_bytes())
    assert made.exists()


def test_a_missing_checkpoint_or_a_folder_is_told_in_one_line(tmp_path: Path) -> None:
    _refused("cannot read .*net.pt: No such file", lambda: Trainer.resume(tmp_path / "net.pt"))
    _refused("cannot read .*: Is a directory", lambda: Trainer.resume(tmp_path))


def test_a_checkpoint_of_another_network_or_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    Trainer.new("c-dcscn", TINY, **MINUTE).save(path)
    _refused("is a checkpoint of c-dcscn, not of dcscn", lambda: Trainer.resume(path, "dcscn"))
    saved = torch.load(path)
    torch.save({**saved, "name": "unheard-of"}, path)
    _refused("unknown network 'unheard-of'", lambda: Trainer.resume(path))
    torch.save({**saved, "schema": "vsr-checkpoint/9"}, path)
    _refused("net.pt is not a checkpoint of this program", lambda: Trainer.resume(path))
    torch.save(saved["net"], path)
    _refused("net.pt is not a checkpoint of this program", lambda: Trainer.resume(path))
    torch.save([1, 2], path)
    _refused("net.pt is not a checkpoint of this program", lambda: Trainer.resume(path))


# initial weights from other files


def test_a_network_starts_from_the_averaged_weights_of_a_checkpoint(tmp_path: Path) -> None:
    trainer = Trainer.new("c-dcscn", TINY)
    train(trainer, patches_for(trainer, image_folder(tmp_path / "hr")), tmp_path / "net.pt")
    net = build("c-dcscn", (3,))
    weights, history = read_weights(tmp_path / "net.pt", net)
    left = load_fitting_weights(net, weights, tmp_path / "net.pt")
    assert left == ["last.bias", "last.weight"]  # 9 filters instead of 4
    body = {k: v for k, v in trainer.average.state_dict().items() if not k.startswith("last")}
    assert_same({k: net.state_dict()[k] for k in body}, body)
    assert [stage["step"] for stage in history] == [6]
    assert history[0]["recipe"]["patch"] == TINY.patch


def test_a_carn_of_another_scale_starts_with_the_body(tmp_path: Path) -> None:
    trainer = Trainer.new("carn-m", TINY, (2,), channels=16)
    trainer.save(tmp_path / "net.pt")
    net = build("carn-m", (2, 3), channels=16)
    left = load_fitting_weights(net, read_weights(tmp_path / "net.pt", net)[0], tmp_path / "net.pt")
    assert left == ["upsample.up3.body.0.bias", "upsample.up3.body.0.weight"]
    assert_same(
        net.state_dict()["b1.b1.body.0.weight"], trainer.net.state_dict()["b1.b1.body.0.weight"]
    )


@pytest.mark.parametrize("name", ["c-dcscn", "carn-m"])
def test_a_network_starts_from_its_exported_onnx(name: str) -> None:
    path = ENGINES / name / "x2.onnx"
    net = build(name, (2,))
    torch.manual_seed(0)
    for parameter in net.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    weights, history = read_weights(path, net)
    assert load_fitting_weights(net, weights, path) == []
    assert history, "the manifest tells how it was trained"
    if isinstance(net, Carn):
        assert torch.equal(net.sub_mean.shifter.weight, torch.eye(3).view(3, 3, 1, 1))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    dcscn = build("dcscn")
    other = ENGINES / "carn-m/x2.onnx"
    _refused("carn-m/x2.onnx is of another network", lambda: read_weights(other, dcscn))
    Trainer.new("carn-m", TINY, channels=8).save(tmp_path / "net.pt")
    weights, _ = read_weights(tmp_path / "net.pt", dcscn)
    before = {name: value.clone() for name, value in dcscn.state_dict().items()}
    _refused(
        "net.pt is of another network: 0 of .* weights fit",
        lambda: load_fitting_weights(dcscn, weights, tmp_path / "net.pt"),
    )
    assert_same(dcscn.state_dict(), before)


@pytest.mark.parametrize("name", ["net.onnx", "net.pt"])
def test_a_file_of_no_weights_to_start_from_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no weights")
    _refused(name, lambda: read_weights(tmp_path / name, build("c-dcscn")))
