"""Define PCARN's second stage, for photo-realistic pictures: three discriminators and a VGG loss.

Ahn, Kang, Sohn, "Efficient Deep Neural Network for Photo-realistic Image Super-Resolution",
arXiv:1903.02240; its public code nmhkahn/PCARN-pytorch (pcarn/solver_gan.py, pcarn/utils.py,
pcarn/model/ecarn.py) defines details that the text omits. A step trains first the discriminators on
`discriminator_loss`, then the network on `generator_loss`, each with its own Adam at 1e-4. Both use
the same enlarged pictures, because the network does not change in between.

The discriminators return logits; the public code has a sigmoid and binary cross entropy. The loss
is the same, but in this form it neither overflows nor rounds to 0 in bfloat16.

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
class AdversarialSettings:
    """Settings of the adversarial stage, as in the public code except `before_relu`."""

    gamma_gan: float = 5e-3
    gamma_vgg: float = 1.0
    pools: tuple[int, ...] = (1, 2, 4)
    """Average pooling factors of the picture, one per discriminator."""
    slope: float = 0.01
    """Slope of LeakyReLU for negative values."""
    relu: str | None = None
    """VGG layer of the features: "5_4" is the paper's (VGG19); None: the deepest in the file."""
    before_relu: bool = False
    """Whether to take that layer before its ReLU. The paper has relu5_4; the public code cuts
    torchvision's VGG19 after layer 34, which is conv5_4 without ReLU."""
    normalise: bool = False
    """Whether to normalise RGB by ImageNet's mean and deviation, as in VGG's training. The public
    code passes 0..1; normalised features are larger, and so is their loss."""


PUBLIC: Final = AdversarialSettings()


# discriminators


_LAYERS: Final = (
    (3, 64, 1), (64, 64, 2), (64, 128, 1), (128, 128, 2), (128, 256, 1), (256, 256, 2),
    (256, 512, 1), (512, 512, 1), (512, 1, 1),
)  # fmt: skip
"""Input channels, output channels, stride; the kernel is 3x3 for stride 1, 4x4 for stride 2."""
_STRIDE: Final = 8  # total stride of all layers
_VGG_STRIDE: Final = 16  # total stride of the deepest features


class Discriminator(nn.Module):
    """Patch discriminator of nine convolutions: [N, 3, H, W] in 0..1 -> logits [N, 1, h, w].

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
    """Multi-scale discriminator: [N, 3, H, W] in 0..1 -> one map of logits per pooling factor."""

    def __init__(self, settings: AdversarialSettings = PUBLIC) -> None:
        super().__init__()
        self.each = nn.ModuleList(Discriminator(p, settings.slope) for p in settings.pools)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [one(x) for one in self.each]


def smallest_patch(settings: AdversarialSettings, batch: int) -> int:
    """Return the smallest patch side, in HR pixels, for every discriminator and any VGG."""
    # batch norm needs two values per channel, over patches and positions together
    return max(_VGG_STRIDE, max(settings.pools) * _STRIDE * (1 if batch > 1 else 2))


def check_patch(settings: AdversarialSettings, hr_patch: int, batch: int) -> None:
    """Raise TrainError if patches of `hr_patch` HR pixels are too small for the settings."""
    if hr_patch < (needed := smallest_patch(settings, batch)):
        raise TrainError(
            f"patches of {hr_patch} HR pixels are too small for adversarial training: "
            f"discriminators with pooling factors {settings.pools} need at least {needed}"
        )


# losses


def discriminator_loss(d: Discriminators, sr: Tensor, hr: Tensor) -> Tensor:
    """Return the sum of the discriminators' losses on real and on enlarged pictures, a scalar.

    `sr`, `hr`: [N, 3, H, W] in 0..1; no gradient flows into `sr`.
    """
    # separate calls, so that batch norm processes real and enlarged apart, as in the public code
    return _cross_entropy(d(hr), real=True) + _cross_entropy(d(sr.detach()), real=False)


def generator_loss(
    d: Discriminators, features: nn.Module, sr: Tensor, hr: Tensor, settings: AdversarialSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return (loss, parts), loss = gamma_gan * parts["gan"] + gamma_vgg * parts["vgg"]; scalars.

    gan: sum of the discriminators' cross entropies with `sr` labelled real; vgg: mean squared
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
        x = logits.float()  # a mean in bfloat16 would be imprecise
        label = torch.full_like(x, float(real))
        losses.append(functional.binary_cross_entropy_with_logits(x, label))
    return torch.stack(losses).sum()


@contextmanager
def _frozen(d: Discriminators) -> Iterator[None]:
    """Disable gradients of the discriminators' weights, which the generator's step does not use."""
    d.requires_grad_(False)
    try:
        yield
    finally:
        d.requires_grad_(True)
