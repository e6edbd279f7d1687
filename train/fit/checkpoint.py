"""Checkpoints: written whole or not at all, read without running code, able to rebuild themselves.

A checkpoint is a dictionary: `schema`, `name` and `config` (the network), `recipe`, `data`,
`history` (the trainings before this one), `precision`, `command`, `commit`, `step`, `moved`,
`vgg` (features of an adversarial loss), `net`, `average`, `optimiser`, `rule`; older ones lack
`moved` and `vgg`. What `python -m train blend` wrote has `blend` (see `train.ship.provenance`).
"""

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch

from train.errors import TrainError
from train.files import load_torch, written_whole
from train.nets import NETS, Net, from_config

SCHEMA: Final = "vsr-checkpoint/1"
_KEYS: Final = {"schema", "name", "config", "recipe", "step", "net", "average"}


def save_checkpoint(path: Path, saved: dict[str, Any]) -> None:
    """Write beside the place and rename when whole; what was there survives any failure.

    Raises TrainError when it cannot be written, on a full disk for instance.
    """
    try:
        with written_whole(path) as file:
            torch.save({"schema": SCHEMA, **saved}, file)
    except (OSError, RuntimeError) as exc:  # torch turns a full disk into a RuntimeError
        kept = "; the checkpoint before it is whole" if path.exists() else ""
        why = exc.strerror if isinstance(exc, OSError) else "is the disk full?"
        raise TrainError(f"cannot save {path}: {why}{kept}") from exc


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote; never executes code from the file.

    Raises TrainError for a missing, truncated, damaged or foreign file, and one that holds code.
    """
    return as_checkpoint(load_torch(path), path)


def as_checkpoint(saved: Any, path: Path) -> dict[str, Any]:
    """What was read from `path`, if it is a checkpoint of ours; else raises TrainError."""
    if not isinstance(saved, dict) or not set(saved) >= _KEYS or saved["schema"] != SCHEMA:
        raise TrainError(f"{path} is not a checkpoint of this program (`import` reads others)")
    if "pcarn" in saved["config"]:  # of an earlier version, where this was one setting
        pcarn = saved["config"].pop("pcarn")
        saved["config"] |= {"point_relu": not pcarn, "long_skip": pcarn}
    return saved


def best_file(checkpoint: Path) -> Path:
    """Where a run keeps the weights that scored best: `net.pt` -> `net.best.pt`."""
    return checkpoint.with_name(f"{checkpoint.stem}.best{checkpoint.suffix}")


def stage(saved: dict[str, Any]) -> dict[str, Any]:
    """What the training of a checkpoint did, for the history of what follows it."""
    config = json.loads(json.dumps(saved["config"]))  # tuples as lists
    scales = config.pop("scales")
    usual = json.loads(json.dumps(asdict(NETS[saved["name"]]))) | saved["recipe"].get("network", {})
    changes = {key: value for key, value in config.items() if value != usual.get(key)}
    network = {"network": saved["name"], "scales": scales, "settings": changes}
    done = {key: saved[key] for key in ("recipe", "step", "data", "precision", "command", "commit")}
    later: dict[str, Any] = {"moved": [], "teacher": {}, "joined": [], "blend": {}, "vgg": ""}
    return {**network, **done, **{key: saved.get(key, value) for key, value in later.items()}}


def rebuilt(saved: dict[str, Any]) -> Net:
    """The network of a checkpoint's settings, without its weights."""
    if saved["name"] not in NETS:
        raise TrainError(f"the checkpoint is of a network '{saved['name']}' that is not known here")
    return from_config(replace(NETS[saved["name"]], **saved["config"]))


def averaged_net(checkpoint: Path) -> tuple[dict[str, Any], Net]:
    """A checkpoint and its averaged weights in training form, ready for inference."""
    saved = load_checkpoint(checkpoint)
    net = rebuilt(saved)
    net.load_state_dict(saved["average"])
    return saved, net.eval()


def commit() -> str:
    """The checkout's commit, with a `+` for uncommitted changes; empty outside of one."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
