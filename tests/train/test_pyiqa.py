"""Tests of the metrics by pyiqa (optional): weights by path, no downloads, no code run."""

import logging
import math
import pickle
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from tests.training import TINY, image_folder, noise
from train.__main__ import main
from train.data.images import read_rgb
from train.errors import TrainError
from train.fit.trainer import Trainer
from train.measure.metrics import luma
from train.measure.niqe import Niqe
from train.measure.perceptual import Lpips, Perceptual, load_perceptual
from train.measure.pyiqa_metrics import PyiqaMetrics

MA, NIMA = "NRQM_model.mat", "NIMA_VGG16_ava-dc4e8265.pth"


ALEXNET = ((3, 64, 11), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3))
"""Channels in, channels out and kernel of the convolutions."""


class _Layers(nn.Module):
    """The layers of pyiqa 0.1.16's LPIPS, with their names; its linear layers have two each."""

    def __init__(self) -> None:
        super().__init__()
        names = ("0", "3", "6", "8", "10")
        self.net = nn.Module()
        for k, (name, (inputs, outputs, side)) in enumerate(zip(names, ALEXNET, strict=True), 1):
            part = nn.Sequential()
            part.add_module(name, nn.Conv2d(inputs, outputs, side))
            self.net.add_module(f"slice{k}", part)
        lins = list[nn.Module]()
        for k, (_, outputs, _side) in enumerate(ALEXNET):
            lin = nn.Module()
            lin.model = nn.Sequential(nn.Dropout(), nn.Conv2d(outputs, 1, 1, bias=False))
            self.add_module(f"lin{k}", lin)
            lins.append(lin)
        self.lins = nn.ModuleList(lins)
        self.scaling_layer = nn.Module()
        for name in ("shift", "scale"):
            self.scaling_layer.register_buffer(name, torch.zeros(1, 3, 1, 1))


class _Lpips:
    """Fake of pyiqa's LPIPS: its layers, and twice the mean difference as the distance."""

    def __init__(self) -> None:
        self.net = _Layers()

    def __call__(self, one: Tensor, other: Tensor) -> Tensor:
        assert one.shape == other.shape and one.shape[:2] == (1, 3)
        return 2 * (one - other).abs().mean()


class _Pyiqa(types.ModuleType):
    """Fake of pyiqa 0.1.16: `create_metric` only, whose metrics take [1, 3, H, W] in 0..1."""

    def __init__(self) -> None:
        super().__init__("pyiqa")
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def create_metric(self, name: str, device: Any, **options: Any) -> Callable[[Tensor], Tensor]:
        print("Loading pretrained model")  # as pyiqa does, on stdout  # noqa: T201
        self.asked.append((name, options))
        if name == "lpips":
            self.lpips = _Lpips()
            return self.lpips  # type: ignore[return-value]
        if name == "niqe":
            return lambda y: y.mean() * 100

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
    metrics = PyiqaMetrics.load(_weights(tmp_path / "weights"), library, niqe)
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


# LPIPS and NIQE

LPIPS, NIQE = "lpips_alex_v0.1.npz", "niqe_modelparameters.mat"


def _lpips_file(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    weights = dict[str, Any]()
    for k, (inputs, outputs, side) in enumerate(ALEXNET):
        weights[f"conv{k}.weight"] = rng.random((outputs, inputs, side, side), np.float32)
        weights[f"conv{k}.bias"] = rng.random(outputs, np.float32)
        weights[f"lin{k}.weight"] = rng.random((1, outputs, 1, 1), np.float32)
    np.savez(folder / LPIPS, **weights)
    return weights


def _niqe_file(folder: Path) -> None:
    rng = np.random.default_rng(2)
    model = {"mu_prisparam": rng.random((1, 36)), "cov_prisparam": np.diag(rng.random(36) + 1)}
    scipy.io.savemat(folder / NIQE, model)


def test_lpips_is_pyiqas_with_the_weights_of_our_file(tmp_path: Path, library: _Pyiqa) -> None:
    weights = _lpips_file(tmp_path)
    found = load_perceptual(tmp_path)
    assert library.asked == [("lpips", {"pretrained": False})]
    assert found.note == f"pyiqa ({LPIPS})"
    layers = library.lpips.net.state_dict()
    for k, layer in enumerate(("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")):
        for part in ("weight", "bias"):
            assert np.array_equal(layers[f"net.{layer}.{part}"], weights[f"conv{k}.{part}"])
        assert np.array_equal(layers[f"lin{k}.model.1.weight"], weights[f"lin{k}.weight"])
    black, grey = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 51, np.uint8)
    assert found.lpips is not None
    assert found.lpips(grey, black) == pytest.approx(0.4)
    assert math.isnan(found.lpips(grey[:30], black[:30]))  # AlexNet leaves nothing of it


def test_a_pyiqa_with_other_layers_is_refused(
    tmp_path: Path, library: _Pyiqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else random weights would measure."""
    _lpips_file(tmp_path)
    monkeypatch.setattr(_Lpips, "__init__", lambda self: setattr(self, "net", nn.Conv2d(3, 3, 1)))
    with pytest.raises(TrainError, match=r"pyiqa 0\.1\.16 is known to: its layer .* is not known"):
        load_perceptual(tmp_path)


def test_niqe_is_pyiqas_with_its_file_and_pi_follows(tmp_path: Path, library: _Pyiqa) -> None:
    _niqe_file(_weights(tmp_path / "weights"))
    found = load_perceptual(tmp_path / "weights")
    assert ("niqe", {"pretrained_model_path": str(tmp_path / "weights" / NIQE)}) in library.asked
    assert found.niqe is not None and found.others is not None
    assert found.niqe(np.full((96, 192), 102.0)) == pytest.approx(40)
    assert math.isnan(found.niqe(np.full((96, 191), 102.0)))  # one block has no covariance
    white = np.full((96, 192, 3), 255, np.uint8)
    assert found.others(white)["PI"] == pytest.approx((10 - 10 + 100 * 235 / 255) / 2)


def test_without_pyiqa_both_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    _lpips_file(tmp_path)
    _niqe_file(tmp_path)
    found = load_perceptual(tmp_path)
    assert isinstance(found.lpips, Lpips) and isinstance(found.niqe, Niqe)
    assert found.note == f"{LPIPS}, {NIQE} (the authors' model)"


def test_a_pyiqa_that_cannot_be_imported_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """torchvision beside another torch raises RuntimeError."""
    (tmp_path / "pyiqa.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pyiqa", raising=False)
    _lpips_file(tmp_path)
    assert isinstance(load_perceptual(tmp_path).lpips, Lpips)
    assert "pyiqa is not used: it cannot be imported: operator nms" in caplog.text


def test_the_real_pyiqa_measures_what_our_code_does(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyiqa")
    shutil.copy(data.parent / "reference/weights" / LPIPS, tmp_path)
    theirs = load_perceptual(tmp_path)
    assert theirs.note.startswith("pyiqa")
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    ours: Perceptual = load_perceptual(tmp_path)
    picture = read_rgb(data / "images/test/set5/img_001.png")
    noisy = picture ^ 7
    assert theirs.lpips is not None and ours.lpips is not None
    assert theirs.lpips(noisy, picture) == pytest.approx(ours.lpips(noisy, picture), abs=1e-5)


def test_the_table_has_their_columns(tmp_path: Path, library: _Pyiqa) -> None:
    folder, images = _weights(tmp_path / "weights"), image_folder(tmp_path / "set")
    Trainer.new("c-dcscn", TINY).save(tmp_path / "net.pt")
    words = ["evaluate", "--model", tmp_path / "net.pt", "--data", images, "--weights", folder]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("| data | scale | method | PSNR | SSIM | Ma | NIMA |\n")
    assert f"with pyiqa ({MA}, {NIMA})." in result.stdout
