"""Tests of precision, workers and compilation: chosen by hardware, user or checkpoint."""

import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from tests.training import TINY, image_folder, patches_for, train
from train.__main__ import main
from train.fit.checkpoint import load_checkpoint
from train.fit.machine import choose_precision, default_workers, fast_bfloat16, open_fabric
from train.fit.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def _hardware(monkeypatch: pytest.MonkeyPatch, cuda: str | None = None, **cpu: bool) -> None:
    """Fake CUDA with ("bf16") or without ("none") bfloat16, or no CUDA (None), and CPU features."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: cuda == "bf16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)


@pytest.mark.parametrize(
    ("cuda", "cpu", "precision"),
    [
        (None, {"avx512_bf16": True, "amx_bf16": True}, "bf16-mixed"),
        (None, {"avx512_bf16": True, "amx_bf16": False}, "32-true"),
        (None, {}, "32-true"),
        ("bf16", {}, "bf16-mixed"),
        ("none", {"amx_bf16": True}, "32-true"),
    ],
)
def test_bf16_mixed_is_the_default_where_the_hardware_is_faster_in_it(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, cpu: dict[str, bool], precision: str
) -> None:
    _hardware(monkeypatch, cuda, **cpu)
    assert choose_precision(None, None)[0] == precision
    assert bool(fast_bfloat16()) == (precision == "bf16-mixed")


def test_the_users_word_comes_first_then_the_precision_of_the_run_before() -> None:
    assert choose_precision("32-true", "bf16-mixed")[0] == "32-true"
    assert choose_precision(None, "bf16-mixed")[0] == "bf16-mixed"
    assert choose_precision(None, "32-true")[0] == "32-true"


@pytest.mark.parametrize(
    ("cores", "cuda", "processes", "workers"),
    [(2, None, 1, 0), (16, None, 1, 4), (64, None, 1, 8), (16, "bf16", 1, 8), (16, "bf16", 4, 3)],
)
def test_workers_follow_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, cuda: str | None, processes: int, workers: int
) -> None:
    _hardware(monkeypatch, cuda)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert default_workers() == workers


def test_float32_products_are_in_tf32_on_cuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    matmul, conv = (SimpleNamespace(fp32_precision="ieee") for _ in range(2))
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    monkeypatch.setattr(torch.backends, "cudnn", SimpleNamespace(conv=conv))
    opened: list[str] = []
    monkeypatch.setattr(
        "train.fit.machine.Fabric",
        lambda **words: opened.append(words["accelerator"]) or SimpleNamespace(launch=lambda: None),
    )
    for cuda, precision in ((None, "ieee"), ("bf16", "tf32")):
        _hardware(monkeypatch, cuda)
        open_fabric("32-true", (2,))
        assert (matmul.fp32_precision, conv.fp32_precision) == (precision, precision)
    assert opened == ["cpu", "cuda"]


def test_a_resumed_run_keeps_its_precision_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Resume an older 32-true run on a machine where bf16-mixed is now the default."""
    folder, path = image_folder(tmp_path / "hr"), tmp_path / "net.pt"
    trainer = Trainer.new("c-dcscn", TINY)
    train(trainer, patches_for(trainer, folder), path)
    assert load_checkpoint(path)["precision"] == "32-true"
    _hardware(monkeypatch, amx_bf16=True)
    words = ["fit", "c-dcscn", "--data", str(folder), "--checkpoint", str(path), "--steps", "8"]
    with caplog.at_level(logging.INFO, "train"):
        result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    saved = load_checkpoint(path)
    assert (saved["step"], saved["precision"]) == (8, "32-true")
    assert "precision: 32-true (as in the checkpoint)" in caplog.text


@pytest.mark.filterwarnings("ignore")  # torch's own warnings during compilation
def test_a_compiled_network_takes_the_same_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Capture graphs only (backend `eager`): compiling to machine code would take a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    folder = image_folder(tmp_path / "hr")
    ends: list[Tensor] = []
    for compiled in (False, True):
        trainer = Trainer.new("c-dcscn", TINY)
        trainer.compiled = compiled
        train(trainer, patches_for(trainer, folder), tmp_path / f"{compiled}.pt")
        ends.append(torch.cat([p.detach().flatten() for p in trainer.net.parameters()]))
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-6)
