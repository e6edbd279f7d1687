"""Report on a training: log lines with remaining time, validation, TensorBoard."""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train.data.images import Pixels, pairs, to_input
from train.errors import TrainError
from train.fit.trainer import Trainer
from train.measure.evaluate import evaluate, torch_enlarge
from train.nets import Net, bicubic

log = logging.getLogger(__name__)


@dataclass
class Reporter:
    """Reporter of one training, every `every` steps; only process 0 reports."""

    every: int = 500
    validation: Path | None = None
    """Benchmark folder for scoring the averaged weights."""
    board: Path | None = None
    """TensorBoard folder for scalars and a picture (bicubic, ours, truth) per scale."""
    workers: int = 0
    """Number of patch worker processes; 0 cuts patches in the training process."""
    _losses: list[float] = field(default_factory=list)
    _interval_start: float = field(default_factory=time.monotonic)
    _writer: Any = None

    def add_loss(self, loss: float) -> None:
        """Add one step's loss."""
        self._losses.append(loss)

    def report(self, trainer: Trainer) -> float | None:
        """Log and score the trainer's current state, and write TensorBoard data.

        Returns the mean PSNR over the scales in dB, or None without a validation folder.
        """
        step, recipe = trainer.step, trainer.recipe
        pace = (time.monotonic() - self._interval_start) / len(self._losses)
        loss = float(np.mean(self._losses))
        scores = self._scores(trainer.average)
        scores_text = "".join(f"  x{scale} {psnr:.2f} dB" for scale, psnr in scores.items())
        left = _clock(pace * (recipe.steps - step))
        log.info(
            "%s step %d/%d  loss %.5f  %.3f s/step, %s left%s",
            trainer.name, step, recipe.steps, loss, pace, left, scores_text,
        )  # fmt: skip
        if self.board is not None:
            scalars = {"loss": loss, "rate": trainer.rate(), "seconds per step": pace}
            self._draw(trainer, scalars | {f"psnr/x{s}": psnr for s, psnr in scores.items()})
        self._losses, self._interval_start = [], time.monotonic()
        return float(np.mean([*scores.values()])) if scores else None

    def _scores(self, net: Net) -> dict[int, float]:
        if self.validation is None:
            return {}
        folder = self.validation
        return {
            scale: evaluate(torch_enlarge(net, scale), folder, scale, net.colour)["psnr"]
            for scale in net.scales
        }

    def _draw(self, trainer: Trainer, scalars: dict[str, float]) -> None:
        if self._writer is None:
            self._writer = _writer(self.board)
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, trainer.step)
        if self.validation is not None:
            net = trainer.average
            for scale in net.scales:
                picture = sample_picture(net, self.validation, scale)
                self._writer.add_image(f"x{scale}", picture, trainer.step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


def _writer(folder: Path | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as exc:
        raise TrainError("--board needs TensorBoard: pip install tensorboard") from exc
    try:
        return SummaryWriter(str(folder))
    except OSError as exc:
        raise TrainError(f"cannot write TensorBoard's files to {folder}: {exc.strerror}") from exc


def sample_picture(net: Net, folder: Path, scale: int) -> Pixels:
    """Return bicubic, ours and truth side by side for the first image: uint8 [H, 3 W, C]."""
    _, low, high = next(pairs(folder, scale))
    x = torch.from_numpy(np.ascontiguousarray(to_input(low, net.colour).transpose(2, 0, 1)))[None]
    device = next(net.parameters()).device
    with torch.inference_mode():
        views = [bicubic(x, scale), net(x.to(device), scale).cpu()]
    truth = to_input(high, net.colour)
    shown = [v[0].permute(1, 2, 0).numpy() for v in views] + [truth]
    return np.round(np.clip(np.concatenate(shown, axis=1), 0, 1) * 255).astype(np.uint8)


def _clock(seconds: float) -> str:
    minutes, hours = int(seconds // 60 % 60), int(seconds // 3600)
    return f"{hours}:{minutes:02}:{int(seconds % 60):02}"
