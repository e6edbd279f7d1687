"""The training loop: recipe -> data -> network -> steps -> a checkpoint that rebuilds itself.

Lightning Fabric places the network, splits batches over processes (`torchrun`) and computes in
mixed precision; the loop stays plain. One process and several take the same steps, but for dropout
and batch norm (the discriminators'), which see each process's share of a batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGINT, SIGTERM, getsignal, signal
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from train.checkpoint import commit, load_checkpoint, rebuilt, save_checkpoint
from train.data import Patches, Steps
from train.errors import TrainError
from train.gan import (
    Adversary,
    Discriminators,
    check_patch,
    discriminator_loss,
    generator_loss,
)
from train.initialise import initialise
from train.nets import Carn, Net, build, settings
from train.recipe import Recipe, recipe_from, recipe_record
from train.vgg import VggFeatures
from train.watch import Watch

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": nn.functional.l1_loss,
    "l2": nn.functional.mse_loss,
}


@dataclass
class Plateau:
    """The rule that halves the rate when epochs bring no gain; idle in other schedules."""

    rate: float
    best: float = float("inf")
    waited: int = 0
    total: float = 0.0
    steps: int = 0

    def epoch_ends(self, loss: float, patience: int) -> None:
        """Take the mean training loss of an epoch."""
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(self.best, loss)
        if self.waited >= patience:
            self.rate, self.waited = self.rate / 2, 0


@dataclass
class Trainer:
    """A network, its averaged copy and its optimisers at one step."""

    name: str
    recipe: Recipe
    net: Net
    average: Net
    optimiser: torch.optim.Optimizer
    rule: Plateau
    step: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    precision: str = "32-true"
    """Of the computation, as Fabric names it; weights are kept in float32."""
    command: str = ""
    """The command line that started it, paths cut to their last name."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Earlier trainings that these weights went through, oldest first."""
    critic: Discriminators | None = None
    critic_optimiser: torch.optim.Optimizer | None = None
    features: VggFeatures | None = None

    @classmethod
    def new(
        cls, name: str, recipe: Recipe, scales: tuple[int, ...] | None = None, **changes: Any
    ) -> "Trainer":
        """A freshly initialised network; `changes` are settings of it."""
        torch.manual_seed(recipe.seed)
        try:
            net = build(name, scales, **{**recipe.network, **changes})
        except (TypeError, ValueError) as exc:
            raise TrainError(f"{name} cannot be built so: {exc}") from exc
        initialise(net, recipe.init)
        if recipe.start_small and not isinstance(net, Carn):
            net.start_small()
        return cls._around(name, recipe, net)

    @classmethod
    def _around(cls, name: str, recipe: Recipe, net: Net) -> "Trainer":
        average = build(name, **settings(net))
        average.load_state_dict(net.state_dict())
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on CPU as NCHW
        trained = [p for p in net.parameters() if p.requires_grad]
        optimiser = _optimiser(recipe, trained)
        self = cls(name, recipe, net, average.eval(), optimiser, Plateau(recipe.rate))
        if recipe.adversarial():
            self.critic = Discriminators(Adversary(**recipe.adversary))
            self.critic_optimiser = _optimiser(recipe, list(self.critic.parameters()))
        return self

    @classmethod
    def resume(cls, path: Path, name: str | None = None, steps: int | None = None) -> "Trainer":
        """Continue a checkpoint; `steps` moves the end of its recipe.

        Raises TrainError where it is not a checkpoint, or not one of network `name`.
        """
        saved = load_checkpoint(path)
        if name not in (None, saved["name"]):
            raise TrainError(f"{path} is a checkpoint of {saved['name']}, not of {name}")
        recipe = recipe_from(saved["recipe"], saved["recipe"]["name"])
        recipe = replace(recipe, steps=steps or recipe.steps)
        self = cls._around(saved["name"], recipe, rebuilt(saved))
        self.net.load_state_dict(saved["net"])
        self.average.load_state_dict(saved["average"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.rule, self.step = Plateau(**saved["rule"]), saved["step"]
        self.data, self.history = saved["data"], saved["history"]
        if self.critic is not None and self.critic_optimiser is not None:
            self.critic.load_state_dict(saved["critic"])
            self.critic_optimiser.load_state_dict(saved["critic_optimiser"])
        return self

    def record(self) -> dict[str, Any]:
        """What was done, for this checkpoint, later ones and the model cards."""
        recipe = recipe_record(self.recipe)
        done = {"recipe": recipe, "step": self.step, "data": self.data}
        return {
            **done,
            "precision": self.precision,
            "command": self.command,
            "commit": commit(),
        }

    def save(self, path: Path) -> None:
        """Write the checkpoint; raises TrainError where the disk does not take it."""
        saved = {
            **self.record(),
            "name": self.name,
            "config": settings(self.net),
            "history": self.history,
            "rule": vars(self.rule),
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        if self.critic is not None and self.critic_optimiser is not None:
            saved["critic"] = self.critic.state_dict()
            saved["critic_optimiser"] = self.critic_optimiser.state_dict()
        save_checkpoint(path, saved)

    def rate(self) -> float:
        """Learning rate of the coming step."""
        plateau = self.recipe.schedule == "plateau"
        return self.rule.rate if plateau else self.recipe.rate_at(self.step)

    def done(self) -> bool:
        """Whether the recipe has come to its end."""
        ended = self.recipe.schedule == "plateau" and self.rule.rate < self.recipe.stop_rate
        return ended or self.step >= self.recipe.steps


def _optimiser(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, recipe.rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    return torch.optim.Adam(parameters, recipe.rate, recipe.betas, 1e-8, recipe.weight_decay)


def fit(trainer: Trainer, patches: Patches, checkpoint: Path, watch: Watch, fabric: Fabric) -> bool:
    """Train to the end of the recipe, saving and reporting every `watch.every` steps.

    Returns False when SIGINT or SIGTERM ended it early; the checkpoint then holds the last step.
    """
    recipe, rank, world = trainer.recipe, fabric.global_rank, fabric.world_size
    if recipe.batch % world:
        raise TrainError(f"a batch of {recipe.batch} cannot be split over {world} processes")
    if trainer.done():  # a plateau may end before the last step
        return True
    step = _Step(trainer, fabric)
    steps = Steps(trainer.step, recipe.steps, recipe.batch, rank, world)
    loader = DataLoader(patches, batch_sampler=steps, num_workers=watch.workers, collate_fn=_stack)
    epoch = max(1, patches.epoch(min(patches.known)) // recipe.batch)
    with _stop_signals() as stopped:
        for lr, hr, scale in loader:
            _seed(recipe.seed, trainer.step, rank)
            loss = step.take(fabric.to_device(lr), fabric.to_device(hr), scale)
            if recipe.schedule == "plateau":
                _count_epoch(trainer, loss, epoch, fabric)
            over = _anywhere(bool(stopped), fabric) or trainer.done()
            watch.note(loss)
            if trainer.step % watch.every == 0 or over:
                if rank == 0:
                    trainer.save(checkpoint)
                    watch.report(trainer)
                fabric.barrier()
            if over:
                break
    return trainer.done()


def _anywhere(here: bool, fabric: Fabric) -> bool:
    """Whether it is so in any process; a signal may reach them in different steps."""
    count: Any = fabric.all_reduce(torch.tensor(float(here), device=fabric.device), reduce_op="sum")
    return bool(count)


def _seed(*parts: int) -> None:
    """Make dropout depend on seed, step and process alone, whatever came before."""
    torch.manual_seed(int(np.random.default_rng(parts).integers(2**31)))


def _count_epoch(trainer: Trainer, loss: float, epoch: int, fabric: Fabric) -> None:
    rule = trainer.rule
    rule.total, rule.steps = rule.total + loss, rule.steps + 1
    if trainer.step % epoch == 0:
        mean: Any = fabric.all_reduce(torch.tensor(rule.total / rule.steps, device=fabric.device))
        rule.total, rule.steps = 0.0, 0
        rule.epoch_ends(float(mean), trainer.recipe.patience)


class _Step:
    """One optimiser step on a batch, on the devices that Fabric chose."""

    def __init__(self, trainer: Trainer, fabric: Fabric) -> None:
        self.trainer, self.fabric = trainer, fabric
        trainer.average.to(fabric.device)
        self.net, self.optimiser = fabric.setup(trainer.net, trainer.optimiser)
        self.adversary = Adversary(**trainer.recipe.adversary)
        if trainer.critic is None or trainer.critic_optimiser is None:
            return
        if trainer.features is None:
            raise TrainError("the adversarial stage needs VGG weights: --vgg FILE")
        recipe, scale = trainer.recipe, min(trainer.net.scales)
        share = recipe.batch // fabric.world_size
        check_patch(self.adversary, recipe.lr_patch(scale) * scale, share)
        self.critic, self.critic_optimiser = fabric.setup(trainer.critic, trainer.critic_optimiser)
        self.features = trainer.features.to(fabric.device)

    def take(self, lr: Tensor, hr: Tensor, scale: int) -> float:
        """LR [N, C, p, p], HR [N, C, s*p, s*p] -> the loss before the step."""
        trainer, recipe = self.trainer, self.trainer.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = trainer.rate()
        trainer.net.train()
        kind = recipe.loss_at(trainer.step)
        sr = self.net(lr.contiguous(memory_format=torch.channels_last), scale)
        loss = self._adversarial(sr, hr) if kind == "gan" else LOSSES[kind](sr, hr)
        if recipe.weight_norm:
            loss = loss + recipe.weight_norm * weight_norms(trainer.net)
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(trainer.net.parameters(), recipe.clip)
        self.optimiser.step()
        trainer.step += 1
        self._update_average()
        return float(loss.item())

    def _adversarial(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Train the discriminators on this batch, then return the generator's loss."""
        trainer = self.trainer
        assert trainer.critic is not None
        for group in self.critic_optimiser.param_groups:
            group["lr"] = trainer.rate()
        self.critic_optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(discriminator_loss(self.critic, sr.detach(), hr))
        self.critic_optimiser.step()
        loss, _ = generator_loss(trainer.critic, self.features, sr, hr, self.adversary)
        return loss

    @torch.no_grad()
    def _update_average(self) -> None:
        # a short horizon at first, so that the average forgets the random start
        trainer = self.trainer
        decay = min(trainer.recipe.ema, (1 + trainer.step) / (10 + trainer.step))
        for slow, fast in zip(trainer.average.parameters(), trainer.net.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)


def weight_norms(net: nn.Module) -> Tensor:
    """Sum of the L2 norms of all convolution weights (DCSCN's regulariser)."""
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    return torch.stack([m.weight.norm() for m in convolutions]).sum()


def _stack(samples: list[tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor, int]:
    lows, highs, scales = zip(*samples, strict=True)
    return torch.stack(lows), torch.stack(highs), scales[0]


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that fills when SIGINT or SIGTERM arrives, so that a step is never cut in two."""
    received: list[int] = []
    before = {number: getsignal(number) for number in (SIGINT, SIGTERM)}

    def note(number: int, _frame: object) -> None:
        if received:  # the second one stops at once
            raise KeyboardInterrupt
        received.append(number)

    for number in before:
        signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal(number, handler)
