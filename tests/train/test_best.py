"""Tests that the best weights on the validation folder are saved beside the last weights."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training import TINY, image_folder, patches_for, train
from train.fit.checkpoint import load_checkpoint
from train.fit.reporter import Reporter
from train.fit.trainer import Trainer
from train.ship.export import Target, export

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "hr")


def _scoring(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Make the next reports return these PSNRs in order, independent of the network."""
    coming: Iterator[float] = iter(scores)
    monkeypatch.setattr("train.fit.reporter.evaluate", lambda *_: {"psnr": next(coming)})


def _run(trainer: Trainer, folder: Path, path: Path, validation: str = "set5") -> Any:
    reporter = Reporter(every=2, validation=folder.with_name(validation))
    train(trainer, patches_for(trainer, folder), path, reporter)
    return load_checkpoint(path)


def test_the_best_is_kept_beside_the_last(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _scoring(monkeypatch, 30.0, 32.0, 31.0)
    with caplog.at_level(logging.INFO, "train"):
        last = _run(Trainer.new("c-dcscn", TINY), folder, tmp_path / "net.pt")
    best = load_checkpoint(tmp_path / "net.best.pt")
    assert (best["step"], last["step"]) == (4, 6)
    assert best["best"] == last["best"] == {"psnr": 32.0, "step": 4, "on": "set5"}
    short = _run_to(4, folder, tmp_path / "short.pt")
    for name, value in short["average"].items():  # the weights of step 4
        assert torch.equal(best["average"][name], value)
    assert caplog.text.count("the best score so far: saved as net.best.pt") == 2


def _run_to(step: int, folder: Path, path: Path) -> Any:
    trainer = Trainer.new("c-dcscn", TINY)
    trainer.until = step
    train(trainer, patches_for(trainer, folder), path)
    return load_checkpoint(path)


def test_a_resumed_run_remembers_its_best(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, best = tmp_path / "net.pt", tmp_path / "net.best.pt"
    _scoring(monkeypatch, 30.0, 32.0, 31.0, 31.9, 32.1)
    _run(Trainer.new("c-dcscn", TINY), folder, path)
    _run(Trainer.resume(path, steps=8), folder, path)
    assert load_checkpoint(best)["step"] == 4
    _run(Trainer.resume(path, steps=10), folder, path)
    assert load_checkpoint(best)["step"] == 10


def test_scores_on_another_folder_are_not_compared(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _scoring(monkeypatch, 30.0, 32.0, 31.0, 25.0)
    _run(Trainer.new("c-dcscn", TINY), folder, tmp_path / "net.pt")
    last = _run(Trainer.resume(tmp_path / "net.pt", steps=8), folder, tmp_path / "net.pt", "bsd100")
    assert last["best"] == {"psnr": 25.0, "step": 8, "on": "bsd100"}


def test_a_checkpoint_of_before_goes_on(tmp_path: Path, folder: Path) -> None:
    """Resume a checkpoint without the key `best`, as older versions wrote it."""
    _run_to(2, folder, tmp_path / "net.pt")
    saved = torch.load(tmp_path / "net.pt", weights_only=True)
    del saved["best"]
    torch.save(saved, tmp_path / "net.pt")
    assert Trainer.resume(tmp_path / "net.pt").best == {}


def test_psnr_does_not_judge_adversarial_training(tmp_path: Path) -> None:
    recipe = replace(TINY, loss=((0, "l1"), (3, "gan")))
    trainer = Trainer.new("carn-m", recipe, channels=8)
    assert trainer.save_best(40.0, tmp_path, tmp_path / "net.pt") is None
    assert not list(tmp_path.iterdir())


def test_export_says_which_weights_it_takes(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _scoring(monkeypatch, 30.0, 32.0, 31.0)
    _run(Trainer.new("c-dcscn", TINY), folder, tmp_path / "net.pt")
    monkeypatch.setattr("train.ship.export.export_scale", lambda *_: tmp_path / "x2.onnx")
    target = Target(engines=tmp_path)
    with caplog.at_level(logging.INFO, "train"):
        export(tmp_path / "net.pt", target)
    assert "net.pt: weights of step 6" in caplog.text
    assert "step 4 scored higher, 32.000 dB on set5: export" in caplog.text
    assert f"{tmp_path / 'net.best.pt'} to ship it" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "train"):
        export(tmp_path / "net.best.pt", target)
    assert "net.best.pt: weights of step 4" in caplog.text
    assert "best score of the training: 32.000 dB on set5" in caplog.text
    assert "scored higher" not in caplog.text
