"""Hold the state of a training at one step: network, averaged copy, optimisers, history.

A checkpoint stores this state; train/fit/loop.py advances it.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from train.errors import TrainError
from train.fit.checkpoint import (
    best_path,
    current_commit,
    load_checkpoint,
    rebuild_net,
    save_checkpoint,
)
from train.fit.gan import AdversarialSettings, Discriminators
from train.fit.initialise import initialise
from train.fit.muon import Muon
from train.fit.recipe import Recipe, recipe_from, recipe_record
from train.fit.sharp import Critic, Sharpness
from train.fit.teacher import Teacher
from train.fit.vgg import VggFeatures, VggLayers
from train.measure.perceptual import Lpips
from train.nets import Carn, Csrcnn, Net, build, settings
from train.nets.carn import cancel_long_skip

log = logging.getLogger(__name__)
PIXEL_LOSSES: Final = frozenset({"l1", "l2", "alternate"})


@dataclass
class Plateau:
    """Rule that halves the rate after epochs without improvement; unused in other schedules."""

    rate: float
    best: float = float("inf")
    waited: int = 0
    total: float = 0.0
    steps: int = 0

    def end_epoch(self, loss: float, patience: int) -> None:
        """Update the rule with the mean training loss of an epoch."""
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(self.best, loss)
        if self.waited >= patience:
            self.rate, self.waited = self.rate / 2, 0


@dataclass
class Trainer:
    """State of a training: a network, its averaged copy and its optimisers at one step."""

    name: str
    recipe: Recipe
    net: Net
    average: Net
    optimiser: torch.optim.Optimizer
    plateau: Plateau
    step: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    precision: str = "32-true"
    """Precision of the computation, as Fabric names it; weights are kept in float32."""
    compiled: bool = False
    """Whether to use torch.compile in this run; not stored in the checkpoint."""
    command: str = ""
    """Command line of this run, with paths reduced to file names."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Records of earlier trainings of these weights, oldest first."""
    changed_ends: list[list[int]] = field(default_factory=list)
    """[step, previous `steps`] for every resumption that changed the recipe's `steps`."""
    best: dict[str, Any] = field(default_factory=dict)
    """Highest validation `psnr` (mean over scales, dB), its `step`, and its folder's name `on`."""
    until: int = 0
    """Step before the recipe's end at which to stop; 0 for none."""
    critic: Discriminators | Critic | None = None
    critic_optimiser: torch.optim.Optimizer | None = None
    features: VggFeatures | VggLayers | None = None
    features_description: str = ""
    """Description of the features that the loss has used so far; empty without any."""
    lpips: Lpips | None = None
    teacher: Teacher | None = None
    teacher_record: dict[str, Any] = field(default_factory=dict)
    """Record of the teacher for the checkpoint; empty without one."""
    extra_weight_files: list[dict[str, str]] = field(default_factory=list)
    """`file` and `sha256` of further files that supplied missing initial weights."""

    @classmethod
    def new(
        cls, name: str, recipe: Recipe, scales: tuple[int, ...] | None = None, **changes: Any
    ) -> "Trainer":
        """Start a training with a newly initialised network; `changes` override its settings.

        Muon has no weight decay: with it, the recipe's is dropped with a warning.
        """
        if recipe.optimiser == "muon" and recipe.weight_decay:
            log.warning("ignoring weight_decay %g: Muon has none", recipe.weight_decay)
            recipe = replace(recipe, weight_decay=0.0)
        torch.manual_seed(recipe.seed)
        try:
            net = build(name, scales, **{**recipe.network, **changes})
        except (TypeError, ValueError) as exc:
            raise TrainError(f"cannot build network {name}: {exc}") from exc
        if recipe.blend and not isinstance(net, Csrcnn):
            raise TrainError(f"recipe '{recipe.name}' blends in levels (blend), which {name} lacks")
        initialise(net, recipe.init)
        if recipe.start_small and not isinstance(net, Carn):
            net.start_small()
        return cls._for_net(name, recipe, net)

    @classmethod
    def _for_net(cls, name: str, recipe: Recipe, net: Net) -> "Trainer":
        average = build(name, **settings(net))
        average.load_state_dict(net.state_dict())
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on CPU as NCHW
        optimiser = _optimiser(recipe, net)
        self = cls(name, recipe, net, average.eval(), optimiser, Plateau(recipe.rate))
        if recipe.uses_gan_loss():
            self.critic = Discriminators(AdversarialSettings(**recipe.adversary))
        elif recipe.uses_sharp_loss():
            slope = Sharpness.from_table(recipe.sharp).slope
            self.critic = Critic(1 if net.colour == "y" else 3, slope)
        if self.critic is not None:
            self.critic_optimiser = _optimiser(recipe, self.critic)
        return self

    @classmethod
    def resume(cls, path: Path, name: str | None = None, steps: int | None = None) -> "Trainer":
        """Load a checkpoint to continue its training; `steps` overrides the recipe's `steps`.

        Raises TrainError if the file is not a checkpoint, or not one of network `name`.
        """
        saved = load_checkpoint(path)
        if name not in (None, saved["name"]):
            raise TrainError(f"{path} is a checkpoint of {saved['name']}, not of {name}")
        recipe = recipe_from(saved["recipe"], saved["recipe"]["name"])
        recipe = replace(recipe, steps=steps or recipe.steps)
        self = cls._for_net(saved["name"], recipe, rebuild_net(saved))
        self.net.load_state_dict(saved["net"])
        self.average.load_state_dict(saved["average"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.plateau, self.step = Plateau(**saved["rule"]), saved["step"]
        self.data, self.history = saved["data"], saved["history"]
        self.command = saved.get("command", "")
        self.changed_ends, self.features_description = saved.get("moved", []), saved.get("vgg", "")
        if recipe.steps != saved["recipe"]["steps"]:
            self.changed_ends = [*self.changed_ends, [self.step, saved["recipe"]["steps"]]]
        self.precision, self.best = saved["precision"], saved.get("best", {})
        self.teacher_record = saved.get("teacher", {})
        self.extra_weight_files = saved.get("joined", [])
        if self.critic is not None and self.critic_optimiser is not None:
            self.critic.load_state_dict(saved["critic"])
            self.critic_optimiser.load_state_dict(saved["critic_optimiser"])
        return self

    def use_features(self, features: VggFeatures | VggLayers | None) -> None:
        """Set and log the features of the loss, if any; warn if they differ from earlier ones."""
        if features is None:
            return
        if self.features_description and self.features_description != features.description:
            log.warning(
                "VGG features of the loss have changed: was %s, now %s",
                self.features_description,
                features.description,
            )
        log.info("VGG features of the loss: %s", features.description)
        self.features, self.features_description = features, features.description

    def set_data_and_precision(self, data: dict[str, Any], precision: str) -> None:
        """Set data and precision of the next steps; warn if a resumed run had other ones."""
        if self.step and self.data != data:
            log.warning(
                "training data has changed: was %s, now %s",
                _describe_data(self.data),
                _describe_data(data),
            )
        if self.step and self.precision != precision:
            log.warning("precision has changed: was %s, now %s", self.precision, precision)
        self.data, self.precision = data, precision

    def adopt_initial_weights(self) -> None:
        """Use the weights loaded into `net` as the start, also for the averaged copy.

        With `relu_fade` they are CARN's, and the long skip is cancelled. Raises TrainError if the
        recipe has `relu_fade` and the network is not PCARN.
        """
        if self.recipe.relu_fade:
            if not (isinstance(self.net, Carn) and self.net.config.pcarn):
                raise TrainError("relu_fade requires a PCARN that starts from CARN's weights")
            cancel_long_skip(self.net)
        self.average.load_state_dict(self.net.state_dict())

    def set_teacher(self, teacher: Teacher) -> None:
        """Set the teacher; raise TrainError if it does not fit or differs from the earlier one."""
        teacher.check(self.net)
        if self.step and not self.teacher_record:
            raise TrainError("the checkpoint was trained without a teacher: use a new --checkpoint")
        if self.teacher_record and self.teacher_record["sha256"] != teacher.record["sha256"]:
            file, former = teacher.record["file"], self.teacher_record["file"]
            raise TrainError(
                f"the teacher {file} differs from {former}, the checkpoint's teacher: "
                "pass that file, or use a new --checkpoint"
            )
        self.teacher, self.teacher_record = teacher, self.teacher_record or teacher.record

    def record(self) -> dict[str, Any]:
        """Return the record of this training, for checkpoints and the model cards."""
        return {
            "recipe": recipe_record(self.recipe),
            "step": self.step,
            "data": self.data,
            "precision": self.precision,
            "command": self.command,
            "commit": current_commit(),
            "vgg": self.features_description,
            "moved": self.changed_ends,
            "teacher": self.teacher_record,
            "joined": self.extra_weight_files,
        }

    def save(self, path: Path) -> None:
        """Write the checkpoint; raise TrainError if writing fails."""
        saved = {
            **self.record(),
            "name": self.name,
            "config": settings(self.net),
            "history": self.history,
            "best": self.best,
            "rule": vars(self.plateau),
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        if self.critic is not None and self.critic_optimiser is not None:
            saved["critic"] = self.critic.state_dict()
            saved["critic_optimiser"] = self.critic_optimiser.state_dict()
        save_checkpoint(path, saved)

    def save_best(self, psnr: float, validation: Path, checkpoint: Path) -> Path | None:
        """Save as `<name>.best.pt` beside the checkpoint if no earlier score was as high.

        Returns that file, or None if the score is no better, if the ReLUs of `relu_fade` are not
        gone, or if the loss is perceptual: PSNR is no criterion then, because adversarial training
        lowers it.
        """
        if not all(kind in PIXEL_LOSSES for _, kind in self.recipe.loss):
            return None
        if self.step < self.recipe.relu_fade:  # the checkpoint has no slope, the network no ReLU
            return None
        known = self.best.get("psnr") if self.best.get("on") == validation.name else None
        if known is not None and psnr <= known:
            return None
        self.best = {"psnr": psnr, "step": self.step, "on": validation.name}
        path = best_path(checkpoint)
        self.save(path)
        self.save(checkpoint)  # again, as `best` has changed
        return path

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        plateau = self.recipe.schedule == "plateau"
        return self.plateau.rate if plateau else self.recipe.rate_at(self.step)

    def is_done(self) -> bool:
        """Return whether the recipe's end or the step `until` is reached."""
        ended = self.recipe.schedule == "plateau" and self.plateau.rate < self.recipe.stop_rate
        return ended or self.step >= min(self.until or self.recipe.steps, self.recipe.steps)


def _describe_data(data: dict[str, Any]) -> str:
    """Describe a data record in a few words; the digest distinguishes folders of equal names."""
    folders = ", ".join(data.get("folders", ())) or "no folder"
    return f"{data.get('images', 0)} images of {folders} ({data.get('sha256', '')[:8]})"


def _optimiser(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    parameters = [p for p in net.parameters() if p.requires_grad]
    if recipe.optimiser == "muon":
        return Muon(net, recipe.rate, recipe.betas)
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, recipe.rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    return torch.optim.Adam(parameters, recipe.rate, recipe.betas, 1e-8, recipe.weight_decay)
