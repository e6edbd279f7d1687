"""Define the `sharp` loss, for networks whose pictures should look sharp on compressed video.

It is a weighted sum of: the mean absolute error; the distance between layers of VGG16 before
their ReLU (as in Wang et al., "ESRGAN", ECCV workshops 2018, section 3.3); LPIPS (Zhang et al.,
CVPR 2018); and a relativistic average GAN (Jolicoeur-Martineau, ICLR 2019; ESRGAN, equations 1
and 2) whose critic is small and spectrally normalised (Miyato et al., ICLR 2018). The training loop
adds the temporal stability loss (`train.fit.stability`), for which the network runs a second time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from train.errors import TrainError
from train.fit.vgg import VggLayers
from train.measure.perceptual import Lpips

_STRIDE = 4  # stride of AlexNet's first convolution, the sampling grid of LPIPS


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """Weights of the loss's parts, and settings of the critic."""

    pixels: float = 10.0
    """Weight of the mean absolute error."""
    layers: tuple[tuple[str, float], ...] = (("1_2", 0.1), ("2_2", 0.3), ("3_3", 1.0))
    """VGG16's convolutions and the weight of each one's mean absolute error."""
    layers_of: int = 0
    """Number of patches per batch for the VGG loss, the most expensive part; 0: all."""
    lpips: float = 0.0
    """Weight of LPIPS (AlexNet); with 0 no LPIPS weights are needed."""
    gan: float = 0.05
    """Weight of the adversarial part."""
    gan_from: int = 200
    """First step at which the critic is trained and the adversarial part is added."""
    steady: float = 0.0
    """Weight of the picture's sensitivity to small changes of a block (`train.fit.stability`)."""
    slope: float = 0.2
    """Slope of the critic's LeakyReLU for negative values."""

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> "Sharpness":
        """Make settings from a recipe's `sharp` table. Raises TrainError for an unknown setting."""
        try:
            return cls(**table)
        except TypeError as exc:
            raise TrainError(f"the recipe's `sharp` table has an unknown setting: {exc}") from exc

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Return the names of the compared VGG layers."""
        return tuple(name for name, _ in self.layers)


class Critic(nn.Module):
    """Critic of five spectrally normalised convolutions: [N, C, H, W] in 0..1 -> [N, 1, h, w].

    The outputs are logits; h = H // 4; each logit judges 28x28 pixels.
    """

    LAYERS = ((32, 3, 1), (48, 4, 2), (64, 4, 2), (64, 3, 1), (1, 3, 1))
    """Filters, kernel, stride."""

    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for filters, kernel, stride in self.LAYERS:
            layers.append(spectral_norm(nn.Conv2d(channels, filters, kernel, stride, padding=1)))
            layers.append(nn.LeakyReLU(slope))
            channels = filters
        self.body = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def check_patch(settings: Sharpness, hr_patch: int) -> None:
    """Raise TrainError if patches of `hr_patch` HR pixels are too small for LPIPS."""
    least = Lpips.SMALLEST + _STRIDE - 1
    if settings.lpips and hr_patch < least:
        raise TrainError(
            f"patches of {hr_patch} HR pixels are too small for LPIPS, which needs at least {least}"
        )


class SharpLoss:
    """Callable loss of a batch; each call also trains the critic."""

    def __init__(
        self,
        settings: Sharpness,
        layers: VggLayers,
        lpips: Lpips | None,
        critic: nn.Module,
        optimiser: torch.optim.Optimizer,
        fabric: Fabric,
    ) -> None:
        if settings.lpips and lpips is None:
            raise TrainError("this recipe's loss needs LPIPS weights: pass --lpips FILE")
        self.settings, self.fabric = settings, fabric
        self.layers = layers.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub lacks this form
        self.lpips = lpips.to(fabric.device) if lpips is not None else None
        self.raw_critic = critic.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.critic, self.optimiser = fabric.setup(self.raw_critic, optimiser)

    def __call__(self, sr: Tensor, hr: Tensor, step: int, rate: float) -> Tensor:
        """Return the scalar loss of `sr` against `hr`, both [N, C, H, W] in 0..1 with C 1 or 3."""
        s, n = self.settings, self.settings.layers_of or len(sr)
        loss = s.pixels * functional.l1_loss(sr, hr)
        with self.fabric.autocast():
            weights = [weight for _, weight in s.layers]
            loss = loss + layer_loss(self.layers, weights, rgb(sr[:n]), rgb(hr[:n]))
        if self.lpips is not None and s.lpips:
            # shift LPIPS' grid each step: it does not detect a pattern with the grid's period
            y, x = step % _STRIDE, step // _STRIDE % _STRIDE
            ours, truth = rgb(sr)[..., y:, x:], rgb(hr)[..., y:, x:]
            loss = loss + s.lpips * self.lpips.distance(ours, truth)
        if step >= s.gan_from:
            self._train_critic(sr, hr, rate)
            loss = loss + s.gan * self._adversarial(sr, hr)
        return loss

    def _train_critic(self, sr: Tensor, hr: Tensor, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(relativistic_loss(self.critic(hr), self.critic(sr.detach())))
        self.optimiser.step()

    def _adversarial(self, sr: Tensor, hr: Tensor) -> Tensor:
        self.raw_critic.requires_grad_(False)  # the critic's gradients are not used in this step
        with self.fabric.autocast():
            loss = relativistic_loss(self.raw_critic(sr), self.raw_critic(hr))
        self.raw_critic.requires_grad_(True)
        return loss


def relativistic_loss(higher: Tensor, other: Tensor) -> Tensor:
    """Return the relativistic average loss of logits: `higher` should exceed the mean of `other`.

    It is the mean of -log s(higher - mean(other)) and -log(1 - s(other - mean(higher))), s the
    logistic function. For the critic, `higher` is of HR pictures; for the network, of its own
    pictures (ESRGAN, equations 1 and 2, halved). A scalar.
    """
    higher, other = higher.float(), other.float()  # a mean in bfloat16 would be imprecise
    above = functional.softplus(other.mean() - higher).mean()
    below = functional.softplus(other - higher.mean()).mean()
    return (above + below) / 2


def rgb(x: Tensor) -> Tensor:
    """Repeat luma [N, 1, H, W] to three channels; keep RGB. Use channels-last format."""
    x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
    return x.contiguous(memory_format=torch.channels_last)


def layer_loss(
    layers: Callable[[Tensor], list[Tensor]], weights: list[float], sr: Tensor, hr: Tensor
) -> Tensor:
    """Return the weighted sum of the layers' mean absolute errors, a scalar."""
    with torch.no_grad():
        targets = layers(hr)
    parts = [
        weight * functional.l1_loss(ours.float(), truth.float())
        for weight, ours, truth in zip(weights, layers(sr), targets, strict=True)
    ]
    return torch.stack(parts).sum()
