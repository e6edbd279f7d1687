"""PCARN's second stage, for pictures that look real: three discriminators and a VGG loss.

Ahn, Kang, Sohn, "Efficient Deep Neural Network for Photo-realistic Image Super-Resolution",
arXiv:1903.02240; its public code nmhkahn/PCARN-pytorch (pcarn/solver_gan.py, pcarn/utils.py,
pcarn/model/ecarn.py) settles what the text leaves open. A step trains first the discriminators on
`discriminator_loss`, then the network on `generator_loss`, each with its own Adam at 1e-4; the same
enlarged pictures serve both, for the network does not change in between.

The discriminators end in logits where the public code has a sigmoid and binary cross entropy: the
same loss, but one that neither overflows nor rounds to 0 in bfloat16.

The features are those of a VGG (train/fit/vgg.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.errors import TrainError


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """Settings of the adversarial stage, as in the public code but for `before_relu`."""

    gamma_gan: float = 5e-3
    gamma_vgg: float = 1.0
    pools: tuple[int, ...] = (1, 2, 4)
    """One discriminator each, on the picture average-pooled by this much."""
    slope: float = 0.01
    """LeakyReLU's, for negative values."""
    relu: str | None = None
    """Features after which ReLU: "5_4" is the paper's (VGG19); None: the deepest in the file."""
    before_relu: bool = False
    """Take that layer before its ReLU. The paper writes relu5_4; the public code cuts torchvision's
    VGG19 after layer 34, which is conv5_4 without it."""
    normalise: bool = False
    """Normalise RGB by ImageNet's mean and deviation first, as VGG was trained. The public code
    feeds 0..1 as it is; normalised features are larger, and so is the weight of their loss."""


PUBLIC: Final = Adversary()


# discriminators


_LAYERS: Final = (
    (3, 64, 1), (64, 64, 2), (64, 128, 1), (128, 128, 2), (128, 256, 1), (256, 256, 2),
    (256, 512, 1), (512, 512, 1), (512, 1, 1),
)  # fmt: skip
"""Input channels, output channels, stride; 3x3 where it is 1, 4x4 where it is 2."""
_STRIDE: Final = 8  # of all layers together
_VGG_STRIDE: Final = 16  # of the deepest features


class Discriminator(nn.Module):
    """Nine convolutions on patches: [N, 3, H, W] in 0..1 -> logits [N, 1, h, w].

    h = H // pool // 8; each logit judges the 84x84 pixels (of the pooled picture) around it.
    """

    def __init__(self, pool: int, slope: float) -> None:
        super().__init__()
        self.pool = pool
        layers: list[nn.Module] = []
        for i, (source, target, stride) in enumerate(_LAYERS):
            layers.append(nn.Conv2d(source, target, 2 + stride, stride, padding=1))
            if 0 < i < len(_LAYERS) - 1:
                layers.append(nn.BatchNorm2d(target))
            if i < len(_LAYERS) - 1:
                layers.append(nn.LeakyReLU(slope))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(functional.avg_pool2d(x, self.pool) if self.pool > 1 else x)


class Discriminators(nn.Module):
    """The multi-scale discriminator: [N, 3, H, W] in 0..1 -> one map of logits a pooling."""

    def __init__(self, settings: Adversary = PUBLIC) -> None:
        super().__init__()
        self.each = nn.ModuleList(Discriminator(p, settings.slope) for p in settings.pools)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [one(x) for one in self.each]


def smallest_patch(settings: Adversary, batch: int) -> int:
    """HR pixels a patch must be wide and high for every discriminator and any VGG."""
    # batch norm needs two values a channel, over patches and places together
    return max(_VGG_STRIDE, max(settings.pools) * _STRIDE * (1 if batch > 1 else 2))


def check_patch(settings: Adversary, hr_patch: int, batch: int) -> None:
    """Raises TrainError when patches of `hr_patch` HR pixels are too small for the settings."""
    if hr_patch < (needed := smallest_patch(settings, batch)):
        raise TrainError(
            f"patches of {hr_patch} HR pixels are too small for adversarial training: "
            f"discriminators on {settings.pools} times smaller pictures need {needed}"
        )


# losses


def discriminator_loss(d: Discriminators, sr: Tensor, hr: Tensor) -> Tensor:
    """Sum over the discriminators of their error on real and on enlarged pictures; a scalar.

    `sr`, `hr`: [N, 3, H, W] in 0..1; no gradient flows into `sr`.
    """
    # one call each, so that batch norm sees real and enlarged apart, as in the public code
    return _cross_entropy(d(hr), real=True) + _cross_entropy(d(sr.detach()), real=False)


def generator_loss(
    d: Discriminators, features: nn.Module, sr: Tensor, hr: Tensor, settings: Adversary
) -> tuple[Tensor, dict[str, Tensor]]:
    """(loss, parts): gamma_gan * parts["gan"] + gamma_vgg * parts["vgg"]; all scalars.

    gan: sum of the discriminators' cross entropies of calling `sr` real; vgg: mean squared
    difference of the features. `sr`, `hr`: [N, 3, H, W] in 0..1; parts carry no gradient.
    """
    with _frozen(d):
        gan = _cross_entropy(d(sr), real=True)
    with torch.no_grad():
        target = features(hr)
    vgg = functional.mse_loss(features(sr).float(), target.float())
    loss = settings.gamma_gan * gan + settings.gamma_vgg * vgg
    return loss, {"gan": gan.detach(), "vgg": vgg.detach()}


def _cross_entropy(maps: list[Tensor], real: bool) -> Tensor:
    losses = []
    for logits in maps:
        x = logits.float()  # of bfloat16 a mean over many would be coarse
        label = torch.full_like(x, float(real))
        losses.append(functional.binary_cross_entropy_with_logits(x, label))
    return torch.stack(losses).sum()


@contextmanager
def _frozen(d: Discriminators) -> Iterator[None]:
    """Spares the gradients of the discriminators' weights, which this step would throw away."""
    d.requires_grad_(False)
    try:
        yield
    finally:
        d.requires_grad_(True)
