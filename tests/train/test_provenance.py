"""Tests of `provenance.toml`: trainings of shipped files, from checkpoints and manual edits."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from train.errors import TrainError
from train.fit.checkpoint import load_checkpoint, stage_record
from train.fit.recipe import Recipe, recipe_record
from train.fit.trainer import Trainer
from train.ship.provenance import add_file, complete_record, read, write

DATA = {"folders": ["yang91"], "images": 91}


def _stage(step: int = 5, **changes: Any) -> dict[str, Any]:
    recipe = recipe_record(Recipe(steps=9, loss=((0, "l1"), (4, "l2")), network={"keep": 0.8}))
    made = {
        "network": "dcscn", "scales": [2], "recipe": recipe, "step": step, "data": DATA,
        "precision": "bf16-mixed", "command": f"python -m train fit dcscn --steps {step}",
    }  # fmt: skip
    return complete_record({**made, **changes})


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    first, second = _stage(settings={"features": [8, 6]}), _stage(moved=[[3, 20]], note='a "note"')
    write(tmp_path, {"x2.onnx": ("a" * 64, [first, second])})
    chain = read(tmp_path)["x2.onnx"]
    assert chain.sha256 == "a" * 64
    assert [stage for _, stage in chain.stages] == [first, second]


def test_a_recipe_is_written_as_far_as_it_differs_from_the_default(tmp_path: Path) -> None:
    write(tmp_path, {"x2.onnx": ("", [_stage()])})
    content = tomllib.loads((tmp_path / "provenance.toml").read_text("utf-8"))
    assert content["stages"]["dcscn-x2-ours"]["recipe"] == {
        "name": "ours", "steps": 9, "batch": 32, "patch": 32, "rate": 2e-3, "seed": 1,
        "loss": [[0, "l1"], [4, "l2"]], "network": {"keep": 0.8},
    }  # fmt: skip


def test_files_share_the_trainings_that_they_share(tmp_path: Path) -> None:
    base, more, other = _stage(1), _stage(2), _stage(3)
    write(tmp_path, {"x2.onnx": ("", [base, more]), "x3.onnx": ("", [base, other, more])})
    names = {file: [name for name, _ in chain.stages] for file, chain in read(tmp_path).items()}
    assert names == {
        "x2.onnx": ["dcscn-x2-ours", "dcscn-x2-ours-2"],
        "x3.onnx": ["dcscn-x2-ours", "dcscn-x2-ours-3", "dcscn-x2-ours-4"],
    }


def test_entering_a_file_leaves_the_others_and_what_was_noted_by_hand(tmp_path: Path) -> None:
    add_file(tmp_path, "x2.onnx", "a", [_stage(1)])
    path = tmp_path / "provenance.toml"
    text = path.read_text("utf-8").replace("step = 1", "step = 1\nnote = 'on a laptop'")
    path.write_text(text, "utf-8")
    add_file(tmp_path, "x3.onnx", "b", [_stage(1), _stage(2)])
    chains = read(tmp_path)
    assert {file: chain.sha256 for file, chain in chains.items()} == {
        "x2.onnx": "a",
        "x3.onnx": "b",
    }
    assert [s["note"] for _, s in chains["x3.onnx"].stages] == ["on a laptop", ""]
    assert chains["x2.onnx"].stages[0] == chains["x3.onnx"].stages[0]


def test_a_checkpoint_says_network_scales_and_settings(tmp_path: Path) -> None:
    recipe = Recipe(steps=9, network={"keep": 0.9})
    trainer = Trainer.new("dcscn", recipe, (3,), features=(8, 7, 6, 5, 5, 5, 4))
    trainer.step, trainer.data, trainer.precision = 4, DATA, "bf16-mixed"
    trainer.save(tmp_path / "net.pt")
    found = complete_record(stage_record(load_checkpoint(tmp_path / "net.pt")))
    assert (found["network"], found["scales"]) == ("dcscn", [3])
    assert found["settings"] == {"features": [8, 7, 6, 5, 5, 5, 4]}  # without the recipe's `keep`
    assert (found["step"], found["recipe"]["steps"], found["moved"]) == (4, 9, [])


def test_an_end_that_was_moved_is_said(tmp_path: Path) -> None:
    trainer = Trainer.new("c-dcscn", Recipe(steps=15))
    trainer.step = 6
    trainer.save(tmp_path / "net.pt")
    resumed = Trainer.resume(tmp_path / "net.pt", steps=11)
    resumed.step = 11
    resumed.save(tmp_path / "net.pt")
    assert Trainer.resume(tmp_path / "net.pt").changed_ends == [[6, 15]]
    assert stage_record(load_checkpoint(tmp_path / "net.pt"))["moved"] == [[6, 15]]


def test_an_older_record_is_completed_from_its_command() -> None:
    command = "python -m train fit dcscn --set features=[4,4] --data a b --scale 4 --steps 9"
    old = {"recipe": {"name": "ours", "steps": 9}, "step": 9, "data": DATA, "command": command}
    found = complete_record({**old, "precision": "32-true", "commit": ""})
    assert (found["network"], found["scales"]) == ("dcscn", [4])
    assert found["settings"] == {"features": [4, 4]}
    assert found["recipe"] == complete_record({**found})["recipe"]
    without = complete_record({**old, "command": "python -m train fit carn-m --data a"})
    assert without["scales"] == [2, 3, 4]


def test_a_record_that_names_no_network_is_refused() -> None:
    old = {"recipe": {"name": "ours"}, "step": 9, "data": DATA, "command": "make it"}
    with pytest.raises(TrainError, match="has no network: 'make it'"):
        complete_record(old)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("= 3", "is damaged"),
        ("schema = 'other'", r"does not have the schema vsr-provenance/1"),
        ("schema = 'vsr-provenance/1'", "is incomplete: KeyError"),
        (
            "schema = 'vsr-provenance/1'\nstages = {}\n[files.a]\nsha256 = ''\nstages = ['b']",
            "is incomplete: KeyError",
        ),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "provenance.toml").write_text(text)
    with pytest.raises(TrainError, match=why):
        read(tmp_path)


def test_a_folder_without_one_has_no_chains(tmp_path: Path) -> None:
    assert read(tmp_path) == {}
    write(tmp_path, {"x2.onnx": ("a", [])})
    assert read(tmp_path)["x2.onnx"].stages == ()
