"""The training loop: settings -> data -> network -> steps -> a checkpoint that rebuilds itself."""

import logging
import math
import time
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.data import PatchSet
from train.evaluate import evaluate, torch_enlarge
from train.nets import Net, build

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. Ours, not a paper's: L1, Adam on a cosine, averaged weights."""

    steps: int = 20_000
    batch: int = 32
    patch: int = 32
    """LR pixels."""
    rate: float = 2e-3
    """Peak learning rate; falls along a cosine to 1 % of it."""
    warmup: int = 100
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones evaluated and exported."""
    keep: float = 1.0
    """DCSCN's dropout keep rate; 1.0 (none) measures better at these step counts."""
    clip: float = 1.0
    """Gradient norm limit."""
    bfloat16: bool = False
    seed: int = 1

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a half cosine."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


RECIPES: dict[str, Recipe] = {
    "c-dcscn": Recipe(),
    "dcscn": Recipe(rate=1.5e-3),
    "carn-m": Recipe(batch=16, rate=1e-3),
}


@dataclass
class Trainer:
    """A network, its averaged copy and its optimiser at one step."""

    name: str
    scale: int
    recipe: Recipe
    net: Net
    average: Net
    optimiser: torch.optim.Adam
    step: int = 0

    @classmethod
    def new(cls, name: str, scale: int, recipe: Recipe) -> "Trainer":
        """A freshly initialised network."""
        torch.manual_seed(recipe.seed)
        net, average = (build(name, scale, keep=recipe.keep) for _ in range(2))
        average.load_state_dict(net.state_dict())
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on CPU as NCHW
        trained = [p for p in net.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=recipe.rate)
        return cls(name, scale, recipe, net, average.eval(), optimiser)

    @classmethod
    def resume(cls, path: Path, steps: int | None = None) -> "Trainer":
        """Continue a checkpoint; `steps` moves the end of its cosine."""
        saved = load_checkpoint(path)
        recipe = Recipe(**saved["recipe"])
        recipe = replace(recipe, steps=steps or recipe.steps)
        self = cls.new(saved["name"], saved["scale"], recipe)
        self.net.load_state_dict(saved["net"])
        self.average.load_state_dict(saved["average"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.step = saved["step"]
        return self

    def save(self, path: Path) -> None:
        """Write the checkpoint beside its place and rename it when whole."""
        temporary = path.with_suffix(".tmp")
        saved = {
            "name": self.name,
            "scale": self.scale,
            "recipe": asdict(self.recipe),
            "step": self.step,
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        torch.save(saved, temporary)
        temporary.replace(path)

    def train_step(self, lr: Tensor, hr: Tensor) -> float:
        """One optimiser step on a batch; returns its L1 loss."""
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate_at(self.step)
        self.net.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            out = self.net(lr.to(memory_format=torch.channels_last))
        loss = (out - hr).abs().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip)
        self.optimiser.step()
        self.step += 1
        self._update_average()
        return float(loss.item())

    @torch.no_grad()
    def _update_average(self) -> None:
        # a short horizon at first, so that the average forgets the random start
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for slow, fast in zip(self.average.parameters(), self.net.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary `Trainer.save` wrote; never executes code from the file.

    Raises BadZipFile for a damaged file, UnpicklingError for one that holds more than data.
    """
    with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{path} is damaged: wrong checksum of {damaged}")
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return saved


def fit(
    trainer: Trainer,
    data: PatchSet,
    checkpoint: Path,
    validation: Path | None = None,
    every: int = 500,
) -> None:
    """Train to the end of the recipe, saving and reporting every `every` steps.

    A step's patches and dropout depend on the seed and the step alone, so a resumed run sees the
    same ones.
    """
    recipe, since = trainer.recipe, time.monotonic()
    losses: list[float] = []
    while trainer.step < recipe.steps:
        rng = np.random.default_rng((recipe.seed, trainer.step))
        lr, hr = data.batch(rng, recipe.batch, recipe.patch)
        torch.manual_seed(int(rng.integers(2**32)))  # dropout
        losses.append(trainer.train_step(lr, hr))
        if trainer.step % every and trainer.step < recipe.steps:
            continue
        trainer.save(checkpoint)
        now = time.monotonic()
        log.info(
            "%s x%d step %d/%d  L1 %.5f  %.3f s/step%s",
            trainer.name, trainer.scale, trainer.step, recipe.steps,
            np.mean(losses), (now - since) / len(losses), _validated(trainer, validation),
        )  # fmt: skip
        losses, since = [], time.monotonic()


def _validated(trainer: Trainer, folder: Path | None) -> str:
    if folder is None:
        return ""
    enlarge = torch_enlarge(trainer.average)
    score = evaluate(enlarge, folder, trainer.scale, trainer.net.colour)
    return f"  {folder.name} {score['psnr']:.2f} dB"
