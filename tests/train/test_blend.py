"""Tests of `blend`, which mixes a checkpoint with an earlier stage, and of its provenance."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from tests.training import TINY
from train.__main__ import main
from train.fit.checkpoint import load_checkpoint, stage_record
from train.fit.trainer import Trainer
from train.ship.manifest import SCHEMA, write_manifest
from train.ship.provenance import add_file, read
from train.ship.reproduce import Folders, commands

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = {"folders": ["photos"], "images": 3, "sha256": "d" * 64}


def _run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def _trained(
    path: Path, start: Path | None = None, seed: int = 1, name: str = "c-dcscn",
    scales: tuple[int, ...] = (2,),
) -> Path:  # fmt: skip
    """Save a checkpoint with random weights whose history ends with the training of `start`."""
    trainer = Trainer.new(name, replace(TINY, seed=seed), scales)
    trainer.step, trainer.data = 5, DATA
    if start is not None:
        saved = load_checkpoint(start)
        trainer.history = [*saved["history"], _stage(start)]
    generator = torch.Generator().manual_seed(seed)
    for weight in trainer.average.parameters():
        weight.data.normal_(generator=generator)
    trainer.save(path)
    return path


def _stage(path: Path) -> dict[str, Any]:
    return stage_record(load_checkpoint(path))


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    """Return three checkpoints; each training started from the previous one."""
    first = _trained(tmp_path / "1.pt")
    second = _trained(tmp_path / "2.pt", first, seed=2)
    return [first, second, _trained(tmp_path / "3.pt", second, seed=3)]


@pytest.mark.parametrize("back", [1, 2])
def test_every_weight_lies_between(tmp_path: Path, chain: list[Path], back: int) -> None:
    """Check that each weight is a * new + (1 - a) * old: Wang et al. 2018, equation 4."""
    former, output = chain[-1 - back], tmp_path / "out.pt"
    result = _run("blend", chain[-1], "--with", former, "--share", 0.75, "--output", output)
    assert (result.exit_code, result.stdout) == (0, f"{output}\n"), result.output
    new, old, made = (load_checkpoint(p)["average"] for p in (chain[-1], former, output))
    assert set(made) == set(new)
    for name, weight in made.items():
        torch.testing.assert_close(weight, 0.75 * new[name] + 0.25 * old[name])
    assert not torch.equal(made["last.weight"], new["last.weight"])
    assert _stage(output)["blend"] == {"share": 0.75, "stages_back": back}


def test_a_training_of_one_scale_is_blended_with_one_of_several(tmp_path: Path) -> None:
    former = _trained(tmp_path / "1.pt", name="carn-m", scales=(2, 3, 4))
    last = _trained(tmp_path / "2.pt", former, seed=2, name="carn-m", scales=(4,))
    output = tmp_path / "out.pt"
    result = _run("blend", last, "--with", former, "--share", 0.5, "--output", output)
    assert result.exit_code == 0, result.output
    new, old, made = (load_checkpoint(p)["average"] for p in (last, former, output))
    assert set(made) == set(new) < set(old)
    name = "upsample.up4.body.0.weight"
    torch.testing.assert_close(made[name], (new[name] + old[name]) / 2)


def test_what_it_did_not_come_from_is_refused(tmp_path: Path, chain: list[Path]) -> None:
    stranger, output = _trained(tmp_path / "other.pt", seed=4), tmp_path / "out.pt"
    for former in (stranger, chain[2]):
        result = _run("blend", chain[1], "--with", former, "--share", 0.5, "--output", output)
        assert (result.exit_code, output.exists()) == (1, False)
        assert f"the training of {chain[1]} did not start from {former}" in result.stderr
    assert _run("blend", chain[1], "--with", chain[0], "--share", 1, "--output", output).exit_code


def test_a_blend_is_blended_once(tmp_path: Path, chain: list[Path]) -> None:
    once, twice = tmp_path / "once.pt", tmp_path / "twice.pt"
    words = ("--with", chain[0], "--share", 0.5, "--output")
    assert _run("blend", chain[1], *words, once).exit_code == 0
    result = _run("blend", once, *words, twice)
    assert (result.exit_code, twice.exists()) == (1, False)
    assert "once.pt is already a blend" in result.stderr


def test_provenance_tells_it_and_reproduce_repeats_it(tmp_path: Path, chain: list[Path]) -> None:
    output = tmp_path / "out.pt"
    _run("blend", chain[2], "--with", chain[0], "--share", 0.75, "--output", output)
    engines, stages = tmp_path / "engines", [*load_checkpoint(output)["history"], _stage(output)]
    (engines / "c-dcscn").mkdir(parents=True)
    add_file(engines / "c-dcscn", "x2.onnx", "a", stages)
    entry = {"file": "c-dcscn/x2.onnx", "sha256": "a", "psnr": {}, "video": {}, "licence": "",
             "parameters": 1, "multadds_720p": 1, "training": {}}  # fmt: skip
    write_manifest(engines, {"schema": SCHEMA, "models": {"c-dcscn": {"x2": entry}}})
    told = [made["blend"] for _, made in read(engines / "c-dcscn")["x2.onnx"].stages]
    assert told == [{}, {}, {"share": 0.75, "stages_back": 2}]
    text = (engines / "c-dcscn/provenance.toml").read_text("utf-8")
    assert text.count("blend") == 1
    card = (engines / "README.md").read_text("utf-8")
    assert "has 0.75 of the weights of `c-dcscn-x2-ours-3` and 0.25 of those of 2 stage(s)" in card
    folders = Folders(data=Path("d"), weights=Path("w"), work=Path("o"), engines=engines)
    *fits, mixed, shipped = commands("c-dcscn", (), folders)
    first, _, last = (command.output for command in fits)
    assert mixed.words == (
        "blend", str(last), "--with", str(first), "--share", "0.75", "--output", str(mixed.output),
    )  # fmt: skip
    assert shipped.words[:2] == ("export", str(mixed.output))
