"""Load a trained network as the teacher of another, which learns to reproduce its output.

Only outputs are compared (Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
arXiv:1503.02531): no features or weights of the teacher are used. HR pictures have detail that no
network can predict from LR; the teacher's pictures do not, so gradients have less noise.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.errors import TrainError
from train.files import load_torch
from train.fit.checkpoint import load_averaged_net
from train.measure.evaluate import evaluate
from train.measure.shipped import load_onnx
from train.nets import NETS, Net, build
from train.ship.imports import load_into, read_weights


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Frozen network, and its record for the student's checkpoint."""

    run: Callable[[Tensor, int], Tensor]
    """Function of LR [N, C, H, W] in 0..1 and a scale that returns [N, C, scale*H, scale*W]."""
    colour: str
    scales: tuple[int, ...]
    record: dict[str, Any]
    """Record with `file` (name only), `sha256`, `network` and `psnr`, {folder: {"x2": dB}}."""

    def enlarge(self, lr: Tensor, scale: int) -> Tensor:
        """Return the target picture for `lr`, without gradients."""
        with torch.no_grad():
            return self.run(lr, scale)

    def check(self, student: Net) -> None:
        """Raise TrainError if the student has another colour or a scale that the teacher lacks."""
        file = self.record["file"]
        if self.colour != student.colour:
            kinds = {"rgb": "RGB", "y": "luma"}
            raise TrainError(
                f"the teacher {file} processes {kinds[self.colour]}, "
                f"the network {kinds[student.colour]}: choose another --teacher"
            )
        if lacks := sorted(set(student.scales) - set(self.scales)):
            has = ", ".join(f"x{scale}" for scale in self.scales)
            raise TrainError(f"the teacher {file} lacks x{lacks[0]}, it has {has}: set --scale")

    def measure(self, folder: Path, scales: tuple[int, ...]) -> None:
        """Measure PSNR on a benchmark folder and store it in `record`."""

        def run(x: Any, scale: int) -> Any:
            return self.enlarge(torch.from_numpy(x), scale).numpy()

        self.record["psnr"] = {
            folder.name: {
                f"x{s}": evaluate(lambda x, s=s: run(x, s), folder, s, self.colour)["psnr"]  # type: ignore[misc]
                for s in scales
            }
        }


def load_teacher(path: Path) -> Teacher:
    """Load a teacher from our checkpoint, a public one (`.pth`) or an ONNX file.

    Raises TrainError if the file is missing, damaged, contains code or contains no known network.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as exc:
        raise TrainError(f"cannot read the teacher {path}: {exc.strerror} (see --teacher)") from exc
    record = {"file": path.name, "sha256": digest}
    if path.suffix == ".onnx":
        return _from_onnx(path, record)
    name, net = _from_weights(path)
    net.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    record["network"] = name
    return Teacher(run=_network_runner(net), colour=net.colour, scales=net.scales, record=record)


def _network_runner(net: Net) -> Callable[[Tensor, int], Tensor]:
    def run(lr: Tensor, scale: int) -> Tensor:
        net.to(lr.device)
        result: Tensor = net(lr.contiguous(memory_format=torch.channels_last), scale)
        return result

    return run


def _from_onnx(path: Path, record: dict[str, Any]) -> Teacher:
    method = load_onnx(path, "openvino")
    record["network"] = method.network or path.stem

    def run(lr: Tensor, scale: int) -> Tensor:
        x = np.ascontiguousarray(lr.float().cpu().numpy())
        return torch.from_numpy(method.enlarge(x)).to(lr.device)

    return Teacher(run=run, colour=method.colour, scales=(method.scale,), record=record)


def _from_weights(path: Path) -> tuple[str, Net]:
    """Return a checkpoint's name and network; a public one has no name, so try all networks."""
    saved = load_torch(path)
    if isinstance(saved, dict) and "average" in saved:
        known, net = load_averaged_net(path)
        return known["name"], net
    for name in NETS:
        net = build(name)
        try:
            weights, _ = read_weights(path, net)
            load_into(net, weights, path)
        except TrainError:
            continue
        return name, net
    raise TrainError(f"the teacher {path} contains no weights of a known network")
