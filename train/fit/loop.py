"""Run the training loop: take the recipe's steps, report, and save checkpoints.

Lightning Fabric handles devices, several processes (`torchrun`) and mixed precision. One process
and several compute the same steps, except for dropout and the discriminators' batch norm, which
work on each process's part of a batch.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM, getsignal, signal
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from train.data.patches import Patches, Steps
from train.errors import TrainError
from train.fit.boxes import random_boxes, with_boxes
from train.fit.gan import (
    AdversarialSettings,
    Discriminators,
    check_patch,
    discriminator_loss,
    generator_loss,
)
from train.fit.reporter import Reporter
from train.fit.rngs import patch_rngs
from train.fit.sharp import Critic, SharpLoss, Sharpness
from train.fit.sharp import check_patch as check_sharp_patch
from train.fit.stability import block_change, instability
from train.fit.trainer import Trainer
from train.fit.vgg import VggLayers
from train.nets.carn import set_slope

log = logging.getLogger(__name__)

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": nn.functional.l1_loss,
    "l2": nn.functional.mse_loss,
}


def fit(
    trainer: Trainer, patches: Patches, checkpoint: Path, reporter: Reporter, fabric: Fabric
) -> bool:
    """Train to the end of the recipe, saving and reporting every `reporter.every` steps.

    Returns False if SIGINT or SIGTERM stopped it early; the checkpoint then has the last step.
    """
    recipe, rank, world = trainer.recipe, fabric.global_rank, fabric.world_size
    if recipe.batch % world:
        raise TrainError(f"a batch of {recipe.batch} cannot be split over {world} processes")
    if trainer.is_done():  # the plateau schedule may end before the last step
        return True
    step = _TrainingStep(trainer, fabric)
    steps = Steps(trainer.step, recipe.steps, recipe.batch, rank, world)
    loader = DataLoader(
        patches,
        batch_sampler=steps,
        num_workers=reporter.workers,
        collate_fn=_stack,
        pin_memory=fabric.device.type == "cuda",
    )
    epoch = max(1, patches.epoch(min(patches.scales)) // recipe.batch)
    with _stop_signals() as stopped:
        for lr, hr, scale in loader:
            _seed(recipe.seed, trainer.step, rank)
            loss = step.run(fabric.to_device(lr), fabric.to_device(hr), scale)
            if recipe.schedule == "plateau":
                _count_epoch(trainer, loss, epoch, fabric)
            finished = _in_any_process(bool(stopped), fabric) or trainer.is_done()
            reporter.add_loss(loss)
            if trainer.step % reporter.every == 0 or finished:
                if rank == 0:
                    trainer.save(checkpoint)
                    psnr = reporter.report(trainer)
                    if psnr is not None and reporter.validation is not None:
                        _save_best(trainer, psnr, reporter.validation, checkpoint)
                fabric.barrier()
            if finished:
                break
    return trainer.is_done()


def _save_best(trainer: Trainer, psnr: float, validation: Path, checkpoint: Path) -> None:
    if path := trainer.save_best(psnr, validation, checkpoint):
        log.info(
            "%.3f dB on %s is the best score so far: saved as %s", psnr, validation.name, path.name
        )


def _in_any_process(here: bool, fabric: Fabric) -> bool:
    """Return whether `here` is true in any process; signals may arrive at different steps."""
    count: Any = fabric.all_reduce(torch.tensor(float(here), device=fabric.device), reduce_op="sum")
    return bool(count)


def _seed(*parts: int) -> None:
    """Seed torch, so that dropout depends only on `parts`: seed, step and process."""
    torch.manual_seed(int(np.random.default_rng(parts).integers(2**31)))


def _count_epoch(trainer: Trainer, loss: float, epoch: int, fabric: Fabric) -> None:
    rule = trainer.plateau
    rule.total, rule.steps = rule.total + loss, rule.steps + 1
    if trainer.step % epoch == 0:
        mean: Any = fabric.all_reduce(torch.tensor(rule.total / rule.steps, device=fabric.device))
        rule.total, rule.steps = 0.0, 0
        rule.end_epoch(float(mean), trainer.recipe.patience)


class _TrainingStep:
    """Optimiser step on one batch, on the devices that Fabric selected."""

    def __init__(self, trainer: Trainer, fabric: Fabric) -> None:
        self.trainer, self.fabric = trainer, fabric
        trainer.average.to(fabric.device)
        net: Any = torch.compile(trainer.net) if trainer.compiled else trainer.net
        self.net, self.optimiser = fabric.setup(net, trainer.optimiser)
        self.adversary = AdversarialSettings(**trainer.recipe.adversary)
        if trainer.critic is None or trainer.critic_optimiser is None:
            return
        if trainer.features is None:
            raise TrainError("this recipe's loss needs VGG weights: pass --vgg FILE")
        if isinstance(trainer.critic, Critic):
            assert isinstance(trainer.features, VggLayers)
            sharpness, scale = Sharpness.from_table(trainer.recipe.sharp), min(trainer.net.scales)
            check_sharp_patch(sharpness, trainer.recipe.lr_patch(scale) * scale)
            self.sharp = SharpLoss(
                sharpness, trainer.features, trainer.lpips,
                trainer.critic, trainer.critic_optimiser, fabric,
            )  # fmt: skip
            return
        recipe, scale = trainer.recipe, min(trainer.net.scales)
        share = recipe.batch // fabric.world_size
        check_patch(self.adversary, recipe.lr_patch(scale) * scale, share)
        self.critic, self.critic_optimiser = fabric.setup(trainer.critic, trainer.critic_optimiser)
        self.features = trainer.features.to(fabric.device)

    def run(self, lr: Tensor, hr: Tensor, scale: int) -> float:
        """Train on LR [N, C, p, p] and HR [N, C, s*p, s*p]; return the loss before the step."""
        trainer, recipe = self.trainer, self.trainer.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = trainer.rate()
        trainer.net.train()
        if recipe.relu_fade:
            for net in (trainer.net, trainer.average):
                set_slope(net, min(1.0, trainer.step / recipe.relu_fade))
        kind = recipe.loss_at(trainer.step)
        share = recipe.level_weight_at(trainer.step, scale)
        blended = (share,) if share < 1 else ()
        rngs = self._patch_rngs(len(lr))
        boxes = random_boxes(lr, recipe.boxes, rngs) if recipe.boxes else []
        # before boxes: a teacher draws bright lines beside them
        target = self._teacher_output(lr, scale)
        lr, hr = with_boxes(lr, boxes, 1), with_boxes(hr, boxes, scale)
        sr = self.net(lr.contiguous(memory_format=torch.channels_last), scale, *blended)
        loss = self._loss(kind, sr, hr)
        if kind == "sharp" and (steady := self.sharp.settings.steady):
            loss = loss + steady * self._instability(sr, lr, scale, rngs)
        if target is not None:
            distance = LOSSES.get(kind, LOSSES["l1"])(sr, with_boxes(target, boxes, scale))
            loss = recipe.teacher_weight * distance + (1 - recipe.teacher_weight) * loss
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

    def _loss(self, kind: str, sr: Tensor, hr: Tensor) -> Tensor:
        if kind == "sharp":
            return self.sharp(sr, hr, self.trainer.step, self.trainer.rate())
        return self._adversarial(sr, hr) if kind == "gan" else LOSSES[kind](sr, hr)

    def _patch_rngs(self, count: int) -> list[np.random.Generator]:
        fabric, trainer = self.fabric, self.trainer
        rank, world = fabric.global_rank, fabric.world_size
        return patch_rngs(trainer.recipe.seed, trainer.step, count, rank, world)

    def _instability(
        self, sr: Tensor, lr: Tensor, scale: int, rngs: list[np.random.Generator]
    ) -> Tensor:
        change = block_change(lr, rngs)
        changed = (lr + change).contiguous(memory_format=torch.channels_last)
        return instability(sr, self.net(changed, scale), change)

    def _teacher_output(self, lr: Tensor, scale: int) -> Tensor | None:
        """Return the teacher's picture, or None if there is no teacher."""
        if self.trainer.teacher is None:
            return None
        with self.fabric.autocast():
            return self.trainer.teacher.enlarge(lr, scale)

    def _adversarial(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Train the discriminators on this batch, then return the generator's loss."""
        trainer = self.trainer
        assert isinstance(trainer.critic, Discriminators)
        for group in self.critic_optimiser.param_groups:
            group["lr"] = trainer.rate()
        self.critic_optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(discriminator_loss(self.critic, sr.detach(), hr))
        self.critic_optimiser.step()
        loss, _ = generator_loss(trainer.critic, self.features, sr, hr, self.adversary)
        return loss

    @torch.no_grad()
    def _update_average(self) -> None:
        # a short time constant at first, so that the average forgets the initial weights
        trainer = self.trainer
        decay = min(trainer.recipe.ema, (1 + trainer.step) / (10 + trainer.step))
        for slow, fast in zip(trainer.average.parameters(), trainer.net.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)


def weight_norms(net: nn.Module) -> Tensor:
    """Return the sum of the L2 norms of all convolution weights (DCSCN's regulariser)."""
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    return torch.stack([m.weight.norm() for m in convolutions]).sum()


def _stack(samples: list[tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor, int]:
    lows, highs, scales = zip(*samples, strict=True)
    return torch.stack(lows), torch.stack(highs), scales[0]


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Yield a list to which SIGINT and SIGTERM are added, so that they do not interrupt a step."""
    received: list[int] = []
    before = {number: getsignal(number) for number in (SIGINT, SIGTERM)}

    def note(number: int, _frame: object) -> None:
        if received:  # a second signal stops immediately
            raise KeyboardInterrupt
        received.append(number)

    for number in before:
        signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal(number, handler)
