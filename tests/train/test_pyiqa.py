"""Tests of Ma, PI and NIMA by pyiqa (optional): weights by path, no downloads, no code run."""

import logging
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from tests.training import TINY, image_folder, noise
from train.__main__ import main
from train.errors import TrainError
from train.fit.trainer import Trainer
from train.measure.metrics import luma
from train.measure.perceptual import load_perceptual
from train.measure.pyiqa_metrics import PyiqaMetrics

MA, NIMA = "NRQM_model.mat", "NIMA_VGG16_ava-dc4e8265.pth"


class _Pyiqa(types.ModuleType):
    """Fake of pyiqa 0.1.16: `create_metric` only, whose metrics take [1, 3, H, W] in 0..1."""

    def __init__(self) -> None:
        super().__init__("pyiqa")
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def create_metric(self, name: str, device: Any, **options: Any) -> Callable[[Tensor], Tensor]:
        print("Loading pretrained model")  # as pyiqa does, on stdout  # noqa: T201
        self.asked.append((name, options))

        def metric(x: Tensor) -> Tensor:
            assert x.shape[:2] == (1, 3) and x.dtype == torch.float32
            assert float(x.min()) >= 0 and float(x.max()) <= 1
            return 10 * x.mean() if name == "nrqm" else x.max()

        return metric


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> _Pyiqa:
    library = _Pyiqa()
    monkeypatch.setitem(sys.modules, "pyiqa", library)
    return library


def _weights(folder: Path) -> Path:
    folder.mkdir()
    (folder / MA).write_bytes(b"MATLAB")
    torch.save({"params": {"weight": torch.zeros(2)}}, folder / NIMA)
    return folder


def test_metrics_are_made_of_the_files_in_the_folder(
    tmp_path: Path, library: _Pyiqa, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _weights(tmp_path / "weights")
    found = load_perceptual(folder).others
    assert found is not None
    assert dict(library.asked) == {
        "nrqm": {"pretrained_model_path": str(folder / MA), "color_space": "ycbcr"},
        "nima-vgg16-ava": {"pretrained_model_path": str(folder / NIMA)},
    }
    grey = np.full((8, 9, 3), 51, np.uint8)
    assert found(grey) == {"Ma": pytest.approx(2.0), "NIMA": pytest.approx(0.2)}
    assert capsys.readouterr().out == ""  # stdout is for tables


def test_pi_is_half_of_ten_less_ma_and_niqe_of_y(tmp_path: Path, library: _Pyiqa) -> None:
    """Check Blau et al. 2018, equation 1."""
    seen = []

    def niqe(y: Any) -> float:
        seen.append(y)
        return 4.0

    picture = noise(8, 9)
    metrics = PyiqaMetrics.load(_weights(tmp_path / "weights"), niqe)
    assert metrics is not None
    found = metrics(picture)
    assert found["PI"] == pytest.approx(((10 - found["Ma"]) + 4.0) / 2)
    assert np.array_equal(seen[0], luma(picture))


def test_scikit_videos_niqe_makes_no_pi(tmp_path: Path, library: _Pyiqa) -> None:
    folder = _weights(tmp_path / "weights")
    covariance = np.eye(36)
    covariance[13] = covariance[12]  # both scales of a diagonal are equal in its model
    np.savez(folder / "niqe_pris_params.npz", pop_mu=np.zeros(36), pop_cov=covariance)
    found = load_perceptual(folder)
    assert found.niqe is not None and found.others is not None
    assert "PI" not in found.others(noise(8, 9))


def test_without_pyiqa_its_columns_are_left_out_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with caplog.at_level(logging.WARNING):
        assert load_perceptual(_weights(tmp_path / "weights")).others is None
    assert "Ma, NIMA not measured: pip install pyiqa" in caplog.text


def test_weights_that_hold_code_never_reach_pyiqa(tmp_path: Path, library: _Pyiqa) -> None:
    folder = _weights(tmp_path / "weights")
    (folder / MA).unlink()

    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (folder / NIMA).write_bytes(pickle.dumps(Harm()))
    with pytest.raises(TrainError, match=NIMA):
        load_perceptual(folder)
    assert not library.asked
    assert not (tmp_path / "ran").exists()


def test_a_file_that_pyiqa_cannot_read_is_told_in_one_line(
    tmp_path: Path, library: _Pyiqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise KeyError("params")

    monkeypatch.setattr(library, "create_metric", refuse)
    with pytest.raises(TrainError, match="not pyiqa's file for nrqm"):
        load_perceptual(_weights(tmp_path / "weights"))


def test_timm_is_kept_from_downloading(
    tmp_path: Path, library: _Pyiqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyiqa's NIMA calls timm.create_model(..., pretrained=True)."""
    asked: list[bool] = []
    timm = types.ModuleType("timm")
    timm.create_model = original = lambda *_, pretrained: asked.append(pretrained)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    made = library.create_metric

    def create(name: str, **options: Any) -> Any:
        timm.create_model("vgg16", pretrained=True)
        return made(name, **options)

    monkeypatch.setattr(library, "create_metric", create)
    load_perceptual(_weights(tmp_path / "weights"))
    assert asked == [False, False]
    assert timm.create_model is original


def test_the_table_has_their_columns(tmp_path: Path, library: _Pyiqa) -> None:
    folder, images = _weights(tmp_path / "weights"), image_folder(tmp_path / "set")
    Trainer.new("c-dcscn", TINY).save(tmp_path / "net.pt")
    words = ["evaluate", "--model", tmp_path / "net.pt", "--data", images, "--weights", folder]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("| data | scale | method | PSNR | SSIM | Ma | NIMA |\n")
    assert f"with pyiqa ({MA}, {NIMA})." in result.stdout
