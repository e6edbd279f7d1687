"""Tests of the command `python -m train fit`: signals, two processes, options, invalid values."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageOps

from tests.training import assert_same, image_folder, patches_for, train
from train.__main__ import main
from train.fit.checkpoint import load_checkpoint
from train.fit.recipe import find_recipe
from train.fit.trainer import Trainer
from train.nets import build
from train.ship.imports import read_weights

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
STEPS = 150
TORCHRUN = [sys.executable, "-W", "error", "-m", "torch.distributed.run", "--standalone"]
TORCHRUN += ["--nproc-per-node", "2", "-m"]
SMALL = [
    "--batch",
    "2",
    "--patch",
    "8",
    "--threads",
    "1",
    "--precision",
    "32-true",
    "--workers",
    "0",
]
NOWHERE = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data") / "hr")


FORKS = get_context("forkserver")
"""Fork server with the libraries for training, which take five seconds to import."""
FORKS.set_forkserver_preload(["train.commands"])


class Fit:
    """Runs the command in a separate process, with its stderr in a file."""

    def __init__(
        self, folder: Path, checkpoint: Path, *words: str, name: str = "c-dcscn", **ranks: str
    ) -> None:
        typed = ["fit", name, "--data", str(folder), "--checkpoint", str(checkpoint)]
        typed += ["--every", "20"]
        said = checkpoint.with_suffix(f".{time.monotonic_ns()}.txt")
        said.touch()
        self._said = said.open("r", encoding="utf-8")
        self._process: ForkServerProcess = FORKS.Process(
            target=_command, args=([*typed, *SMALL, *words], said, NOWHERE | ranks)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait_for(self, words: str) -> None:
        """Wait for a line of stderr that contains `words`."""
        while words not in (line := self._said.readline()):
            if not line:
                assert self._process.is_alive(), f"never said {words!r}"
                time.sleep(0.01)

    def finish(self, code: int = 0) -> str:
        """Wait for the process, assert its exit code and return the unread rest of its stderr."""
        self._process.join(300)
        with self._said:
            said = self._said.read()
        assert self._process.exitcode == code, said
        return said


def _command(words: list[str], said: Path, environment: dict[str, str]) -> None:
    """Run `python -m train` with the arguments `words`, with stderr appended to `said`."""
    os.environ.update(environment)
    os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), 2)
    warnings.simplefilter("error")
    main(words, prog_name="python -m train")


@pytest.fixture(scope="module")
def straight(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the checkpoint of an uninterrupted run."""
    path = tmp_path_factory.mktemp("straight") / "net.pt"
    Fit(folder, path, "--steps", str(STEPS)).finish()
    return load_checkpoint(path)


# interruptions


def test_a_run_that_is_stopped_and_killed_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, folder: Path, straight: dict[str, Any]
) -> None:
    path = tmp_path / "net.pt"
    run = Fit(folder, path, "--steps", str(STEPS))
    run.wait_for(f"step 60/{STEPS}")
    os.kill(run.pid, signal.SIGINT)
    said = run.finish(130)
    stopped = load_checkpoint(path)["step"]
    assert 60 < stopped < STEPS
    assert f"stopped at step {stopped}; run the same command to resume" in said
    assert "Traceback" not in said

    run = Fit(folder, path, "--steps", str(STEPS))
    run.wait_for(f"starting at step {stopped}")
    run.wait_for(f"/{STEPS}")  # the checkpoint is saved at each report
    os.kill(run.pid, signal.SIGKILL)
    run.finish(-signal.SIGKILL)
    killed = load_checkpoint(path)["step"]
    assert stopped < killed < STEPS

    assert f"starting at step {killed}" in Fit(folder, path, "--steps", str(STEPS)).finish()
    saved = load_checkpoint(path)
    assert saved["step"] == straight["step"] == STEPS
    for key in ("net", "average", "optimiser"):
        assert_same(saved[key], straight[key])


# several processes


def test_two_processes_end_with_the_weights_of_one(tmp_path: Path, folder: Path) -> None:
    words = ["--set", "channels=8", "--rate", "1e-2", "--steps", "12"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    runs = [
        Fit(
            folder, tmp_path / "two.pt", *words, name="carn-m",
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in range(2)
    ]  # fmt: skip
    recipe = replace(find_recipe("carn-m", "ours").with_steps(12), batch=2, patch=8, rate=1e-2)
    one = Trainer.new("carn-m", recipe, channels=8)
    start = {name: value.clone() for name, value in one.net.state_dict().items()}
    train(one, patches_for(one, folder), tmp_path / "one.pt")
    said = "".join(run.finish() for run in runs)
    assert "Starting with 2 processes" in said
    assert said.count("step 12/12") == 1  # only one process reports
    two = load_checkpoint(tmp_path / "two.pt")
    assert two["step"] == one.step == 12
    for net, values in ((one.net, two["net"]), (one.average, two["average"])):
        for name, value in net.state_dict().items():
            torch.testing.assert_close(values[name], value, rtol=0, atol=1e-5)
    assert float((start["entry.weight"] - two["net"]["entry.weight"]).abs().max()) > 1e-3


def test_a_signal_to_one_process_stops_both_after_the_same_step(
    tmp_path: Path, folder: Path
) -> None:
    checkpoint = tmp_path / "net.pt"
    command = [*TORCHRUN, "train", "fit", "c-dcscn", "--data", str(folder), *SMALL]
    command += ["--checkpoint", str(checkpoint), "--every", "20", "--steps", "100000"]
    run = subprocess.Popen(
        command, env=os.environ | NOWHERE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert run.stderr is not None
    assert any("step 20/100000" in line for line in run.stderr)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text("ascii").split()
    assert len(children) == 2
    os.kill(int(children[-1]), signal.SIGINT)
    _, said = run.communicate(timeout=300)
    assert run.returncode == 1  # torchrun's exit code if workers exit with 130
    step = load_checkpoint(checkpoint)["step"]
    assert said.count(f"stopped at step {step}; run the same command to resume") == 1


# the command line


def _fit(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["fit", *map(str, words), "--threads", "1"])


def _typed(folder: Path, checkpoint: Path, *words: str | Path) -> tuple[str | Path, ...]:
    return "c-dcscn", "--data", folder, "--checkpoint", checkpoint, *SMALL[:4], *words


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (
            ["--recipe", "best"],
            1,
            "unknown recipe 'best' of c-dcscn; choose one of: ours, paper, sharp, stream",
        ),
        (["--recipe", "gone.toml"], 1, "cannot read the recipe gone.toml: No such file"),
        (["--init", "zero"], 1, "unknown initialisation 'zero'; choose one of: carn"),
        (["--set", "depth=3"], 1, "cannot build network c-dcscn: .*'depth'"),
        (["--set", "keep=high"], 2, "not KEY=VALUE"),
        (["--set", "keep=7"], 1, "cannot build network c-dcscn"),
        (
            ["--scale", "2", "--scale", "3"],
            1,
            "cannot build network c-dcscn: DCSCN supports one scale",
        ),
        (["--packed", __file__], 2, "give either --data or --packed"),
        (["--steps", "0"], 2, "'--steps'"),
        (["--every", "0"], 2, "'--every'"),
        (["--patch", "90"], 1, "no usable image in "),
        (["--precision", "float8"], 2, "'--precision'"),
        (["--from", __file__], 1, "test_fit_command.py is "),
        (["--data", "gone"], 2, "'gone' does not exist"),
    ],
)
def test_nonsense_is_told_in_one_line_and_leaves_no_checkpoint(
    tmp_path: Path, folder: Path, words: list[str], code: int, complaint: str
) -> None:
    result = _fit(*_typed(folder, tmp_path / "net.pt", *words))
    assert result.exit_code == code, result.output
    error = result.stderr.splitlines()[-1]
    assert re.match(f"Error: .*{complaint}", error), error
    assert code == 2 or len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_neither_data_nor_packed_is_a_usage_error(tmp_path: Path) -> None:
    result = _fit("c-dcscn", "--checkpoint", tmp_path / "net.pt")
    assert result.exit_code == 2
    assert "give either --data or --packed" in result.stderr


def test_a_checkpoint_of_another_network_or_below_a_file_is_refused(
    tmp_path: Path, folder: Path
) -> None:
    path = tmp_path / "net.pt"
    assert _fit(*_typed(folder, path, "--steps", "1")).exit_code == 0
    result = _fit("dcscn", "--data", folder, "--checkpoint", path)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {path} is a checkpoint of c-dcscn, not of dcscn\n"
    result = _fit(*_typed(folder, path / "below.pt"))
    assert result.exit_code == 1
    assert result.stderr == f"Error: cannot create the folder {path}: File exists\n"


def test_packed_pictures_train_to_the_same_weights(tmp_path: Path, folder: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("batch = 2\npatch = 8\nsteps = 4\nwarmup = 1\n")
    packed = tmp_path / "packed.pictures"
    words: list[str | Path] = ["c-dcscn", "--recipe", own]
    result = CliRunner().invoke(
        main, ["pack", *map(str, words), "--data", str(folder), "--output", str(packed)]
    )
    assert result.exit_code == 0, result.output
    for name, option, source in (("a", "--data", folder), ("b", "--packed", packed)):
        result = _fit(*words, option, source, "--checkpoint", tmp_path / "new/folder" / name)
        assert result.exit_code == 0, result.output
    a, b = (load_checkpoint(tmp_path / "new/folder" / name) for name in "ab")
    for key, value in a["net"].items():
        torch.testing.assert_close(b["net"][key], value, rtol=0, atol=1e-6)
    assert a["data"] == b["data"]
    assert a["data"]["images"] == 2


def test_cached_pictures_train_to_the_same_weights_and_are_made_once(
    tmp_path: Path, folder: Path
) -> None:
    cache, made = tmp_path / "cache", []
    for name, options in (("a", []), ("b", ["--cache", cache]), ("c", ["--cache", cache])):
        words = _typed(folder, tmp_path / f"{name}.pt", "--steps", "4", "--workers", "0", *options)
        assert _fit(*words).exit_code == 0
        made.append([path.stat().st_mtime_ns for path in cache.glob("*.pictures")])
    assert made[0] == [] and len(made[1]) == 1 and made[1] == made[2]
    a, *others = (load_checkpoint(tmp_path / f"{name}.pt") for name in "abc")
    for other in others:
        assert_same(other["net"], a["net"])
        assert other["data"] == a["data"]


def test_a_finished_run_stays_as_it_is_and_steps_make_it_longer(
    tmp_path: Path, folder: Path
) -> None:
    path = tmp_path / "net.pt"
    assert _fit(*_typed(folder, path, "--steps", "3")).exit_code == 0
    before = path.read_bytes()
    assert _fit(*_typed(folder, path, "--steps", "3")).exit_code == 0
    assert path.read_bytes() == before
    assert _fit(*_typed(folder, path, "--steps", "5", "--batch", "7")).exit_code == 0
    saved = load_checkpoint(path)
    assert (saved["step"], saved["recipe"]["steps"], saved["recipe"]["batch"]) == (5, 5, 2)


def test_going_on_with_other_pictures_or_precision_is_said_aloud(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, other = tmp_path / "net.pt", image_folder(tmp_path / "other", (50, 64))
    assert _fit(*_typed(folder, path, "--steps", "1", "--precision", "32-true")).exit_code == 0
    assert _fit(*_typed(folder, path, "--steps", "2")).exit_code == 0
    assert not [message for message in caplog.messages if "changed" in message]
    words = ("--steps", "3", "--precision", "bf16-mixed")
    assert _fit(*_typed(other, path, *words)).exit_code == 0
    said = [message for message in caplog.messages if "changed" in message]
    assert len(said) == 2
    assert re.match(r"training data has changed: was 2 images of hr \(\w{8}\), now 2", said[0])
    assert said[1] == "precision has changed: was 32-true, now bf16-mixed"


def test_other_pixels_under_the_same_names_are_said_aloud(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, twin = tmp_path / "net.pt", tmp_path / "hr"
    twin.mkdir()
    for file in folder.iterdir():
        with Image.open(file) as picture:
            ImageOps.invert(picture.convert("RGB")).save(twin / file.name)
    assert _fit(*_typed(folder, path, "--steps", "1")).exit_code == 0
    assert _fit(*_typed(twin, path, "--steps", "2")).exit_code == 0
    assert "training data has changed: was 2 images of hr" in caplog.text


def test_settings_that_a_resumed_run_does_not_take_are_said_aloud(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, same = tmp_path / "net.pt", ("--rate", "1e-3", "--seed", "5")
    assert _fit(*_typed(folder, path, "--steps", "1", *same)).exit_code == 0
    assert _fit(*_typed(folder, path, "--steps", "2", *same)).exit_code == 0
    assert "ignoring" not in caplog.text
    other = ("--rate", "2e-3", "--seed", "5", "--recipe", "paper", "--set", "keep=0.5")
    assert _fit(*_typed(folder, path, "--steps", "3", *other)).exit_code == 0
    assert [message for message in caplog.messages if "ignoring" in message] == [
        "ignoring recipe paper: the checkpoint uses ours",
        "ignoring rate 0.002: the checkpoint uses 0.001",
        "ignoring keep 0.5: the checkpoint uses 1.0",
    ]


def test_another_scale_or_start_than_the_checkpoints_is_said_aloud(
    tmp_path: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, path = _checkpoint_of_x2(folder, tmp_path), tmp_path / "net.pt"
    same = ("--from", start, "--scale", "2")
    other = ("--from", ROOT / "engines/c-dcscn/x4.onnx", "--scale", "4")
    for steps, words in (("1", same), ("2", same), ("3", other)):
        assert "ignoring" not in caplog.text
        typed = [str(word) for word in _typed(folder, path, "--steps", steps, *words)]
        monkeypatch.setattr(sys, "argv", ["fit", *typed])  # recorded as the run's command
        assert _fit(*typed).exit_code == 0
    assert [message for message in caplog.messages if "ignoring" in message] == [
        f"ignoring --from {other[1]}: the checkpoint has weights of its own",
        "ignoring scale [4]: the checkpoint uses [2]",
    ]


def test_weights_that_no_loss_uses_are_not_recorded(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, words = tmp_path / "net.pt", ("--vgg", folder / "0.png", "--lpips", folder / "0.png")
    assert _fit(*_typed(folder, path, "--steps", "1", *words)).exit_code == 0
    assert load_checkpoint(path)["vgg"] == ""
    assert [message for message in caplog.messages if "ignoring" in message] == [
        "ignoring --vgg: no loss of recipe 'ours' uses it",
        "ignoring --lpips: no loss of recipe 'ours' uses it",
    ]


def test_muon_says_that_it_has_no_weight_decay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer.new("csrcnn", replace(find_recipe("csrcnn", "paper"), optimiser="muon"))
    assert caplog.messages == ["ignoring weight_decay 0.0001: Muon has none"]
    assert trainer.recipe.weight_decay == 0


def test_a_run_takes_this_machines_workers_compilation_and_cache(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def run(trainer: Trainer, patches: Any, _path: Path, reporter: Any, _fabric: Any) -> bool:
        seen.update(file=patches.pictures.file, compiled=trainer.compiled, workers=reporter.workers)
        return True

    monkeypatch.setattr("train.commands.run_fit", run)
    monkeypatch.setattr("train.commands.default_workers", lambda: 3)
    monkeypatch.setattr("train.commands.worth_caching", lambda _: True)
    monkeypatch.setattr("train.commands.user_cache_path", lambda *_, **__: tmp_path / "cache")
    monkeypatch.setattr("train.commands.open_fabric", lambda *_: None)
    words = ("c-dcscn", "--data", folder, "--checkpoint", tmp_path / "a.pt", *SMALL[:8])
    assert _fit(*words).exit_code == 0
    assert seen["workers"] == 3
    assert not seen["compiled"]
    assert seen["file"].parent == tmp_path / "cache/pictures"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert _fit(*words).exit_code == 0
    assert seen["compiled"]


def test_an_adversarial_stage_without_weights_to_start_from_warns(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("--data", folder, "--checkpoint", tmp_path / "net.pt", "--set", "channels=8")
    assert _fit("pcarn-m-l1", *words, "--steps", "1", *SMALL[:4]).exit_code == 0
    assert "L1 training" not in caplog.text
    for name, start in (("a", ()), ("b", ("--from", tmp_path / "net.pt"))):
        caplog.clear()
        words = ("--data", folder, "--checkpoint", tmp_path / name, "--set", "channels=8")
        words = (*words, "--recipe", "gan", "--scale", "4", *SMALL[:4], *start)
        result = _fit("pcarn-m", *words)
        assert result.stderr == "Error: this recipe's loss needs VGG weights: pass --vgg FILE\n"
        assert ("expects initial weights of an L1 training: pass them" in caplog.text) == (
            name == "a"
        )


def test_settings_of_the_network_are_trained_and_saved(tmp_path: Path, folder: Path) -> None:
    path, changes = tmp_path / "net.pt", ["efficient=true", "groups=2", "channels=8"]
    words = [word for change in changes for word in ("--set", change)]
    result = _fit(
        "carn", "--data", folder, "--checkpoint", path, "--steps", "1", *SMALL[:4], *words,
        "--init", "default", "--rate", "1e-5", "--seed", "7", "--scale", "4",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    saved = load_checkpoint(path)
    config, recipe = saved["config"], saved["recipe"]
    assert (config["efficient"], config["groups"], config["channels"]) == (True, 2, 8)
    assert config["scales"] == (4,)
    assert saved["net"]["b1.b1.body.0.weight"].shape == (8, 4, 3, 3)
    assert (recipe["init"], recipe["rate"], recipe["seed"]) == ("default", 1e-5, 7)


def _checkpoint_of_x2(folder: Path, where: Path) -> Path:
    assert _fit(*_typed(folder, where / "x2.pt", "--steps", "2")).exit_code == 0
    return where / "x2.pt"


def _onnx_of_x2(_folder: Path, _where: Path) -> Path:
    return ROOT / "engines/c-dcscn/x2.onnx"


@pytest.mark.parametrize("made", [_checkpoint_of_x2, _onnx_of_x2], ids=["checkpoint", "onnx"])
def test_from_starts_another_scale_with_a_trained_body(
    tmp_path: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    made: Callable[[Path, Path], Path],
) -> None:
    source, path = made(folder, tmp_path), tmp_path / "x3.pt"
    words = ("--from", source, "--scale", "3", "--rate", "1e-12", "--steps", "1")
    with caplog.at_level(logging.INFO, "train"):
        result = _fit(*_typed(folder, path, *words))
    assert result.exit_code == 0, result.output
    assert "2 weights are newly initialised: last.bias, last.weight" in caplog.text
    saved = load_checkpoint(path)
    weights, history = read_weights(source, build("c-dcscn"))
    assert saved["history"] == history != []
    for name, value in weights.items():
        if not name.startswith("last"):
            for kind in ("net", "average"):
                torch.testing.assert_close(saved[kind][name], value, rtol=0, atol=1e-9)
    assert saved["net"]["last.weight"].shape[0] == 9
