"""Save checkpoints atomically, load them without executing code, and rebuild their networks.

A checkpoint is a dictionary: `schema`, `name` and `config` (the network), `recipe`, `data`,
`history` (the trainings before this one), `precision`, `command`, `commit`, `step`, `moved`,
`vgg` (features of the loss), `teacher`, `joined`, `best`, `net`, `average`, `optimiser`, `rule`;
with a critic also `critic` and `critic_optimiser`. Older ones lack some of these. A file written by
`python -m train blend` has `blend` (see `train.ship.provenance`).
"""

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch

from train.errors import TrainError
from train.files import atomic_write, load_torch
from train.nets import NETS, Net, from_config

SCHEMA: Final = "vsr-checkpoint/1"
_KEYS: Final = {"schema", "name", "config", "recipe", "step", "net", "average"}


def save_checkpoint(path: Path, saved: dict[str, Any]) -> None:
    """Write a temporary file and rename it when complete; a failure keeps the existing file.

    Raises TrainError if writing fails, for instance on a full disk.
    """
    try:
        with atomic_write(path) as file:
            torch.save({"schema": SCHEMA, **saved}, file)
    except (OSError, RuntimeError) as exc:  # torch turns a full disk into a RuntimeError
        intact = "; the previous checkpoint is intact" if path.exists() else ""
        why = exc.strerror if isinstance(exc, OSError) else "is the disk full?"
        raise TrainError(f"cannot save {path}: {why}{intact}") from exc


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a file of `save_checkpoint`, without executing code in it.

    Raises TrainError for a missing, truncated, damaged or foreign file, and one containing code.
    """
    return parse_checkpoint(load_torch(path), path)


def parse_checkpoint(saved: Any, path: Path) -> dict[str, Any]:
    """Return `saved`, read from `path`, as a current checkpoint; raise TrainError if it is none."""
    if not isinstance(saved, dict) or not set(saved) >= _KEYS or saved["schema"] != SCHEMA:
        raise TrainError(f"{path} is not a checkpoint of this program (`import` reads others)")
    if "pcarn" in saved["config"]:  # an earlier version had this one setting for both
        pcarn = saved["config"].pop("pcarn")
        saved["config"] |= {"point_relu": not pcarn, "long_skip": pcarn}
    return saved


def best_path(checkpoint: Path) -> Path:
    """Return the path for a run's best-scoring weights: `net.pt` -> `net.best.pt`."""
    return checkpoint.with_name(f"{checkpoint.stem}.best{checkpoint.suffix}")


def stage_record(saved: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a checkpoint's training, for the history of later trainings."""
    config = json.loads(json.dumps(saved["config"]))  # tuples as lists
    scales = config.pop("scales")
    usual = json.loads(json.dumps(asdict(NETS[saved["name"]]))) | saved["recipe"].get("network", {})
    changes = {key: value for key, value in config.items() if value != usual.get(key)}
    network = {"network": saved["name"], "scales": scales, "settings": changes}
    done = {key: saved[key] for key in ("recipe", "step", "data", "precision", "command", "commit")}
    later: dict[str, Any] = {"moved": [], "teacher": {}, "joined": [], "blend": {}, "vgg": ""}
    return {**network, **done, **{key: saved.get(key, value) for key, value in later.items()}}


def rebuild_net(saved: dict[str, Any]) -> Net:
    """Build a network with a checkpoint's settings, without its weights."""
    if saved["name"] not in NETS:
        raise TrainError(f"the checkpoint is of an unknown network '{saved['name']}'")
    return from_config(replace(NETS[saved["name"]], **saved["config"]))


def load_averaged_net(checkpoint: Path) -> tuple[dict[str, Any], Net]:
    """Return a checkpoint and its training-form network with averaged weights, in eval mode."""
    saved = load_checkpoint(checkpoint)
    net = rebuild_net(saved)
    net.load_state_dict(saved["average"])
    return saved, net.eval()


def current_commit() -> str:
    """Return the checkout's commit, with `+` for uncommitted changes; empty outside a checkout."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
