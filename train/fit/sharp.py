"""The `sharp` loss, for networks whose pictures should look sharp on compressed video.

A weighted sum of parts: the mean absolute error; the distance between layers of VGG16 before
their ReLU (as in Wang et al., "ESRGAN", ECCV workshops 2018, section 3.3); LPIPS (Zhang et al.,
CVPR 2018); and a relativistic average GAN (Jolicoeur-Martineau, ICLR 2019; ESRGAN, equations 1
and 2) whose critic is small and spectrally normalised (Miyato et al., ICLR 2018). The training loop
adds steadiness (`train.fit.steady`), for which the network runs once more.
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

_STRIDE = 4  # of AlexNet's first convolution, the coarsest grid that LPIPS sees


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """Weights of the loss's parts, and what the critic is like."""

    pixels: float = 10.0
    """Of the mean absolute error."""
    layers: tuple[tuple[str, float], ...] = (("1_2", 0.1), ("2_2", 0.3), ("3_3", 1.0))
    """VGG16's convolutions and the weight of each one's mean absolute error."""
    layers_of: int = 0
    """Patches of each batch that VGG sees, for it costs most; 0: all."""
    lpips: float = 0.0
    """Of LPIPS on AlexNet; 0 needs no weights of it."""
    gan: float = 0.05
    """Of the adversarial part."""
    gan_from: int = 200
    """Step from which the critic is trained and counts."""
    steady: float = 0.0
    """Of how far a small change of a block moves the picture (`train.fit.steady`)."""
    slope: float = 0.2
    """LeakyReLU's in the critic, for negative values."""

    @classmethod
    def of(cls, table: dict[str, Any]) -> "Sharpness":
        """A recipe's `sharp` table. Raises TrainError for a setting that does not exist."""
        try:
            return cls(**table)
        except TypeError as exc:
            raise TrainError(f"the recipe's `sharp` table has an unknown setting: {exc}") from exc

    @property
    def names(self) -> tuple[str, ...]:
        """The layers of VGG that are compared."""
        return tuple(name for name, _ in self.layers)


class Critic(nn.Module):
    """Five convolutions under spectral norm: [N, C, H, W] in 0..1 -> logits [N, 1, h, w].

    h = H // 4; each logit judges 28x28 pixels.
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
    """Raises TrainError when patches of `hr_patch` HR pixels are too small for LPIPS."""
    least = Lpips.SMALLEST + _STRIDE - 1
    if settings.lpips and hr_patch < least:
        raise TrainError(
            f"patches of {hr_patch} HR pixels are too small for LPIPS: {least} at least"
        )


class SharpLoss:
    """The loss of a batch; calling it trains the critic, too."""

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
            raise TrainError("this recipe's loss needs LPIPS weights: --lpips FILE")
        self.settings, self.fabric = settings, fabric
        self.layers = layers.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub lacks this form
        self.lpips = lpips.to(fabric.device) if lpips is not None else None
        self.bare = critic.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.critic, self.optimiser = fabric.setup(self.bare, optimiser)

    def __call__(self, sr: Tensor, hr: Tensor, step: int, rate: float) -> Tensor:
        """The loss, a scalar, of `sr` against `hr`: both [N, C, H, W] in 0..1, C 1 or 3."""
        s, n = self.settings, self.settings.layers_of or len(sr)
        loss = s.pixels * functional.l1_loss(sr, hr)
        with self.fabric.autocast():
            weights = [weight for _, weight in s.layers]
            loss = loss + layer_loss(self.layers, weights, rgb(sr[:n]), rgb(hr[:n]))
        if self.lpips is not None and s.lpips:
            # another place of its grid in every step: a pattern on the grid would go unseen
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
        self.fabric.backward(relativistic(self.critic(hr), self.critic(sr.detach())))
        self.optimiser.step()

    def _adversarial(self, sr: Tensor, hr: Tensor) -> Tensor:
        self.bare.requires_grad_(False)  # spares gradients that this step would throw away
        with self.fabric.autocast():
            loss = relativistic(self.bare(sr), self.bare(hr))
        self.bare.requires_grad_(True)
        return loss


def relativistic(realer: Tensor, other: Tensor) -> Tensor:
    """The relativistic average loss of logits: `realer` should lie above the mean of `other`.

    Mean of -log s(realer - mean(other)) and -log(1 - s(other - mean(realer))), s the logistic
    function: the critic's with `realer` of true pictures, the network's with its own (ESRGAN,
    equations 1 and 2, halved). A scalar.
    """
    realer, other = realer.float(), other.float()  # of bfloat16 a mean over many would be coarse
    above = functional.softplus(other.mean() - realer).mean()
    below = functional.softplus(other - realer.mean()).mean()
    return (above + below) / 2


def rgb(x: Tensor) -> Tensor:
    """Luma [N, 1, H, W] repeated to three channels; RGB as it is. Laid out channels last."""
    x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
    return x.contiguous(memory_format=torch.channels_last)


def layer_loss(
    layers: Callable[[Tensor], list[Tensor]], weights: list[float], sr: Tensor, hr: Tensor
) -> Tensor:
    """Weighted sum of the mean absolute errors of every layer; a scalar."""
    with torch.no_grad():
        targets = layers(hr)
    parts = [
        weight * functional.l1_loss(ours.float(), truth.float())
        for weight, ours, truth in zip(weights, layers(sr), targets, strict=True)
    ]
    return torch.stack(parts).sum()
