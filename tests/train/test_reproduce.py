"""Tests of `reproduce`: its commands match the recorded trainings, and each of them runs."""

import hashlib
import json
import logging
import re
import shlex
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.networks import ALL_NETWORKS
from tests.programs import find, needs
from tests.training import image_folder, panning_clip
from train.__main__ import main
from train.errors import TrainError
from train.fit.checkpoint import load_checkpoint, stage_record
from train.fit.recipe import Recipe, find_recipe, recipe_record
from train.ship.manifest import SCHEMA, read_manifest, write_manifest
from train.ship.provenance import add_file, chains_of, complete_record, read
from train.ship.reproduce import CLIPS_FOLDER, TRIAL_STEPS, Folders, commands

pytestmark = pytest.mark.usefixtures("one_thread")
ENGINES = Path(__file__).parents[2] / "engines"
MODELS: dict[str, Any] = json.loads((ENGINES / "manifest.json").read_text("utf-8"))["models"]
FOLDERS = Folders(data=Path("d"), weights=Path("w"), work=Path("o"), engines=ENGINES)


def _run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


# shipped networks


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the training folders of the shipped networks, with two small pictures each."""
    folder = tmp_path_factory.mktemp("data")
    chains = chains_of(ENGINES, MODELS).values()
    stages = [stage for chain in chains for _, stage in chain.stages]
    for name in {name for made in stages for name in made["data"]["folders"]}:
        image_folder(folder / name, (152, 160))
    (folder / CLIPS_FOLDER).mkdir()
    clip = panning_clip(folder / CLIPS_FOLDER / "panning.mp4", (152, 160), frames=12)
    for name in {name for made in stages for name in made["data"].get("clips", [])}:
        (folder / CLIPS_FOLDER / name).symlink_to(clip)
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("model", sorted(MODELS) if ALL_NETWORKS else ["c-dcscn-stream", "dcscn"])
def test_every_command_of_a_shipped_network_takes_its_first_steps(
    model: str, pictures: Path, work: Path, request: pytest.FixtureRequest
) -> None:
    weights = work / "weights"
    folders = Folders(data=pictures, weights=weights, work=work, engines=ENGINES, trial=True)
    asked = {
        Path(word)
        for command in commands(model, (), folders)
        for word in command.words
        if word.startswith(str(weights))
    }
    if asked:
        _link(asked, request.getfixturevalue("data").parent / "reference")
    for command in commands(model, (), folders):
        if command.words[0] == "export" or command.is_done():
            continue  # exports are slow and tested with other networks
        result = _run(*shlex.split(str(command))[3:])
        assert result.exit_code == 0, (str(command), result.output)
        assert command.is_done(), str(command)


def _link(asked: set[Path], reference: Path) -> None:
    """Link third-party weights to the paths in the commands; skip the test if any are missing."""
    known = {path.name: path for path in reference.rglob("*") if path.is_file()}
    if missing := sorted(path.name for path in asked if path.name not in known):
        pytest.skip(f"weights that a training began from are not here: {', '.join(missing)}")
    for path in asked:
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.symlink_to(known[path.name])


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_trial_differs_from_the_real_commands_in_length_and_size_alone(model: str) -> None:
    def gist(words: tuple[str, ...]) -> list[str]:
        found, own = [], iter(words)
        for word in own:
            if word in {"--batch", "--patch", "--threads", "--until", "--steps"}:
                next(own)
            else:
                found.append(word)
        return found

    real, trial = (commands(model, (), replace(FOLDERS, trial=t)) for t in (False, True))
    assert [gist(c.words) for c in real] == [gist(c.words) for c in trial]
    fits = [c for c in trial if c.words[0] == "fit"]
    assert fits
    assert {c.step for c in fits} <= {TRIAL_STEPS, TRIAL_STEPS // 2}
    assert [c.words[0] for c in real].count("export") == len(MODELS[model])


@pytest.mark.parametrize("model", sorted(MODELS))
def test_no_command_writes_over_what_another_needs(model: str) -> None:
    """Only `fit` may share its output with another command: it resumes the checkpoint."""
    made = commands(model, (), FOLDERS)
    others = [command.output for command in made if command.words[0] != "fit"]
    assert len(set(others)) == len(others)
    fits = [command for command in made if command.words[0] == "fit"]
    for one, other in pairwise(fits):
        if one.output == other.output:
            told = [re.sub(r"--steps.*", "", shlex.join(c.words)) for c in (one, other)]
            assert told[0] == told[1]


# one network with a given history


def _engines(folder: Path, stages: list[dict[str, Any]]) -> Path:
    """Create an `engines` folder with one network trained in these stages."""
    entry = {"file": "c-dcscn/x2.onnx", "sha256": "a", "psnr": {}, "video": {}, "licence": "",
             "parameters": 1, "multadds_720p": 1, "training": {}}  # fmt: skip
    (folder / "c-dcscn").mkdir(parents=True)
    add_file(folder / "c-dcscn", "x2.onnx", "a", stages)
    write_manifest(folder, {"schema": SCHEMA, "models": {"c-dcscn": {"x2": entry}}})
    return folder


def _record(recipe: Recipe, **changes: Any) -> dict[str, Any]:
    made = {
        "network": "c-dcscn", "scales": [2], "recipe": recipe_record(recipe), "step": recipe.steps,
        "data": {"folders": ["a", "b"], "images": 2}, "precision": "32-true", "command": "",
    }  # fmt: skip
    return complete_record({**made, **changes})


def test_a_recipe_of_today_is_called_by_its_name(tmp_path: Path) -> None:
    recipe = replace(find_recipe("c-dcscn", "ours").with_steps(50), rate=5e-4, seed=3)
    engines = _engines(tmp_path / "e", [_record(recipe, settings={"features": [4] * 7})])
    command, export = map(str, commands("c-dcscn", (2,), replace(FOLDERS, engines=engines)))
    assert command == (
        "python -m train fit c-dcscn --recipe ours --scale 2 --set 'features=[4,4,4,4,4,4,4]' "
        "--data d/a d/b --checkpoint o/c-dcscn/c-dcscn-x2-ours.pt --rate 0.0005 --seed 3 "
        "--precision 32-true --steps 50"
    )
    assert export == (
        "python -m train export o/c-dcscn/c-dcscn-x2-ours.pt --engines o/engines "
        "--model c-dcscn --scale 2"
    )


def test_a_recipe_that_has_changed_since_is_read_from_the_provenance(tmp_path: Path) -> None:
    recipe = replace(find_recipe("c-dcscn", "ours").with_steps(9), ema=0.5, loss=((0, "l2"),))
    engines = _engines(tmp_path / "e", [_record(recipe)])
    words = commands("c-dcscn", (), replace(FOLDERS, engines=engines))[0].words
    source = f"{engines}/c-dcscn/provenance.toml#c-dcscn-x2-ours"
    assert words[:4] == ("fit", "c-dcscn", "--recipe", source)
    assert find_recipe("c-dcscn", source) == recipe
    with pytest.raises(TrainError, match=r"provenance.toml has no stage 'other' with a recipe"):
        find_recipe("c-dcscn", source.replace("#c-dcscn-x2-ours", "#other"))


def test_files_of_weights_that_a_stage_read_are_given_again(tmp_path: Path) -> None:
    command = "python -m train fit c-dcscn --vgg vgg16.npz --teacher carn_m.pth --steps 9"
    record = _record(find_recipe("c-dcscn", "ours").with_steps(9), command=command)
    engines = _engines(tmp_path / "e", [record])
    words = shlex.join(commands("c-dcscn", (), replace(FOLDERS, engines=engines))[0].words)
    assert "--vgg w/vgg16.npz --teacher w/carn_m.pth" in words


def test_clips_that_a_stage_trained_on_are_given_again(tmp_path: Path) -> None:
    data = {"folders": ["a"], "images": 2, "clips": ["one.mp4", "two.mp4"]}
    stages = [
        _record(find_recipe("c-dcscn", "stream").with_steps(9), data=data, command=f"fit {word} p")
        for word in ("--data", "--packed")
    ]
    engines = _engines(tmp_path / "e", stages)
    fit, pack, packed, _ = (
        shlex.join(c.words) for c in commands("c-dcscn", (), replace(FOLDERS, engines=engines))
    )
    for words in (fit, pack):
        assert "--data d/a --clip d/clips/one.mp4 --clip d/clips/two.mp4" in words
    assert "--clip" not in packed


def test_weights_that_are_shipped_are_taken_from_there(tmp_path: Path) -> None:
    recipe = find_recipe("c-dcscn", "ours").with_steps(9)
    digest = hashlib.sha256(b"network").hexdigest()
    files = [{"file": "x3.onnx", "sha256": digest}, {"file": "x2.onnx", "sha256": "0" * 64}]
    engines = _engines(tmp_path / "e", [_record(recipe), _record(recipe, step=8, joined=files)])
    (engines / "carn-m").mkdir()
    for name in ("x2.onnx", "x3.onnx"):
        (engines / "carn-m" / name).write_bytes(b"network")
    words = shlex.join(commands("c-dcscn", (), replace(FOLDERS, engines=engines))[1].words)
    start = "--from o/c-dcscn/c-dcscn-x2-ours.pt"
    assert f"{start} --from {engines}/carn-m/x3.onnx --from w/x2.onnx" in words


def test_another_file_in_the_place_of_weights_is_refused(tmp_path: Path) -> None:
    command = "python -m train fit c-dcscn --teacher carn_m.pth --steps 9"
    digest = hashlib.sha256(b"theirs").hexdigest()
    teacher = {"file": "carn_m.pth", "network": "carn-m", "sha256": digest}
    record = _record(find_recipe("c-dcscn", "ours").with_steps(9), command=command, teacher=teacher)
    folders = replace(FOLDERS, engines=_engines(tmp_path / "e", [record]), weights=tmp_path)
    for content in (None, b"theirs"):
        if content:
            (tmp_path / "carn_m.pth").write_bytes(content)
        words = shlex.join(commands("c-dcscn", (), folders)[0].words)
        assert f"--teacher {tmp_path}/carn_m.pth" in words
    (tmp_path / "carn_m.pth").write_bytes(b"others'")
    with pytest.raises(TrainError, match=r"carn_m\.pth differs from the file of the training"):
        commands("c-dcscn", (), folders)


@needs(find("git"), "git")
def test_weights_that_were_shipped_once_are_taken_from_the_history(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True)

    first, second, unknown = (hashlib.sha256(c).hexdigest() for c in (b"one", b"two", b"three"))
    recipe, command = find_recipe("c-dcscn", "ours").with_steps(9), "fit --teacher x3.onnx"
    joined = [{"file": "x3.onnx", "sha256": digest} for digest in (first, second, unknown)]
    teacher = {"file": "x3.onnx", "network": "carn-m", "sha256": first}
    stage = _record(recipe, joined=joined, command=command, teacher=teacher)
    engines = _engines(tmp_path / "engines", [stage])
    git("init", "-q")
    (engines / "carn-m").mkdir()
    for content in (b"one", b"two"):
        (engines / "carn-m/x3.onnx").write_bytes(content)
        git("add", ".")
        git("commit", "-q", "-m", "Ship it")
    folders = replace(FOLDERS, engines=engines, work=tmp_path / "o", weights=tmp_path / "w")
    former, fit, _export = commands("c-dcscn", (), folders)
    taken = tmp_path / f"o/former/x3-{first[:12]}.onnx"
    sources = ["--teacher", taken, "--from", taken]
    sources += ["--from", engines / "carn-m/x3.onnx", "--from", tmp_path / "w/x3.onnx"]
    assert shlex.join(map(str, sources)) in shlex.join(fit.words)
    result = _run(*shlex.split(str(former))[3:])
    assert result.exit_code == 0, result.output
    assert taken.read_bytes() == b"one"
    options = ["--sha256", unknown, "--engines", engines, "--output", tmp_path / "none"]
    refused = _run("former", "x3.onnx", *options)
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
    assert "has no x3.onnx with SHA-256" in refused.stderr


def test_stages_that_trained_on_other_pictures_do_not_share_their_pack(tmp_path: Path) -> None:
    recipe, packed = find_recipe("c-dcscn", "ours").with_steps(9), "fit --packed p.npz"
    more = {"folders": ["a", "b", "frames"], "images": 3}
    stages = [
        _record(recipe, command=packed),
        _record(replace(recipe, rate=1e-4, seed=1), command=packed),
        _record(recipe, command=packed, data=more),
        _record(replace(recipe, degradation="stream"), command=packed),
    ]
    engines = _engines(tmp_path / "e", stages)
    made = commands("c-dcscn", (), replace(FOLDERS, engines=engines))
    packs = [str(command.output) for command in made if command.words[0] == "pack"]
    assert packs == [f"o/c-dcscn/ours-x2{n}.pictures" for n in ("", "-2", "-3")]
    read = [c.words[c.words.index("--packed") + 1] for c in made if c.words[0] == "fit"]
    assert read == [packs[0], packs[0], packs[1], packs[2]]


def test_what_is_missing_is_said_before_the_first_command(tmp_path: Path) -> None:
    command = "python -m train fit c-dcscn --vgg vgg16.npz --steps 9"
    record = _record(find_recipe("c-dcscn", "ours").with_steps(9), command=command)
    engines, data = _engines(tmp_path / "e", [record]), tmp_path / "d"
    (data / "a").mkdir(parents=True)
    options = ["--data", data, "--weights", data, "--work", tmp_path / "o", "--engines", engines]
    result = _run("reproduce", "c-dcscn", *options)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.endswith(f": {data}/b, {data}/vgg16.npz\n")
    assert not (tmp_path / "o").exists()


def test_a_training_whose_end_was_moved_is_repeated_and_exported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two stages; the second was planned for 9 steps until step 2, then for 4, and stopped at 3."""
    recipe = replace(find_recipe("c-dcscn", "ours"), batch=2, patch=8)
    first = _record(recipe.with_steps(2))
    second = _record(replace(recipe, steps=4, seed=2), step=3, moved=[[2, 9]])
    engines = _engines(tmp_path / "e", [first, second])
    (tmp_path / "d").mkdir()
    for name in ("a", "b"):
        image_folder(tmp_path / "d" / name)
    options = ["--data", tmp_path / "d", "--work", tmp_path / "o", "--engines", engines]
    planned = _run("reproduce", "c-dcscn", *options, "--dry-run").output.splitlines()
    ends = [line.split("--steps ")[1] for line in planned if " fit " in line]
    assert ends == ["2", "9 --until 2", "4 --until 3"]
    assert not (tmp_path / "o").exists()
    for line in planned:
        result = _run(*shlex.split(line)[3:])
        assert result.exit_code == 0, (line, result.output)
    made = tmp_path / "o/engines"
    assert (made / read_manifest(made)["models"]["c-dcscn"]["x2"]["file"]).exists()
    again = [stage for _, stage in read(made / "c-dcscn")["x2.onnx"].stages]
    for ours, theirs in zip(again, (first, second), strict=True):
        for key in ("network", "scales", "settings", "recipe", "step", "moved", "precision"):
            assert ours[key] == theirs[key], key
    caplog.clear()
    caplog.set_level(logging.INFO)
    assert _run("reproduce", "c-dcscn", *options).exit_code == 0
    said = [r.message.split(":")[0] for r in caplog.records if "reproduce" in r.name]
    assert said == ["skipped, the output exists"] * 4


def test_a_stage_that_fails_ends_it_with_its_status(tmp_path: Path) -> None:
    engines = _engines(tmp_path / "e", [_record(find_recipe("c-dcscn", "ours"))])
    for name in ("a", "b"):
        (tmp_path / "none" / name).mkdir(parents=True)
    options = ["--data", tmp_path / "none", "--work", tmp_path / "o", "--engines", engines]
    result = _run("reproduce", "c-dcscn", *options)
    assert result.exit_code == 1  # the folders have no pictures
    assert re.search(
        "stopped: `python -m train fit c-dcscn.*` failed with exit code 1", result.stderr
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["carn-x"], "no model 'carn-x' in .*; it has: c-dcscn,"),
        (["c-dcscn-stream", "--scale", "8"], "c-dcscn-stream has no scale 8; it has: 2"),
    ],
)
def test_what_is_not_shipped_is_refused_in_one_line(words: list[str], why: str) -> None:
    result = _run("reproduce", *words, "--engines", ENGINES, "--dry-run")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert re.search(why, result.stderr)


def test_until_stops_early_and_keeps_the_recipes_end(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "hr")
    words = ["fit", "c-dcscn", "--data", folder, "--checkpoint", tmp_path / "net.pt",
             "--batch", 2, "--patch", 8, "--threads", 1, "--steps", 6]  # fmt: skip
    assert _run(*words, "--until", 3).exit_code == 0
    saved = load_checkpoint(tmp_path / "net.pt")
    assert (saved["step"], saved["recipe"]["steps"]) == (3, 6)
    assert _run(*words).exit_code == 0
    assert stage_record(load_checkpoint(tmp_path / "net.pt"))["step"] == 6
