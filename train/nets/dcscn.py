"""Define DCSCN and c-DCSCN as in Yamanaka, Kuwashima, Kurita 2017, arXiv:1707.05425."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.nets.common import bicubic


@dataclass(frozen=True, kw_only=True)
class DcscnConfig:
    """Filters of the paper's Table 1. L is 1x1: only that gives the complexity of section 4.3."""

    features: tuple[int, ...] = (96, 76, 65, 55, 47, 39, 32)
    a1: int = 64
    b1: int = 32
    b2: int = 32
    keep: float = 1.0
    """Dropout keep probability after every feature layer (0.8 in the paper), 1.0 for no dropout."""
    slope: float = 0.1
    """Initial PReLU slope (0 in the paper)."""
    scales: tuple[int, ...] = (2,)
    """Exactly one scale; the last layer has scale**2 filters."""

    def __post_init__(self) -> None:
        """Convert lists, as from JSON, to tuples."""
        object.__setattr__(self, "features", tuple(self.features))


class Feature(nn.Module):
    """Convolution, PReLU, dropout: one unit of DCSCN."""

    def __init__(self, source: int, target: int, kernel: int, config: DcscnConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(source, target, kernel, padding=kernel // 2)
        self.act = nn.PReLU(target, init=config.slope)
        self.drop = nn.Dropout(1 - config.keep)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.act(self.conv(x)))


class Dcscn(nn.Module):
    """Deep CNN with skip connection and network in network, on full-range luma [N, 1, H, W]."""

    colour = "y"

    def __init__(self, config: DcscnConfig) -> None:
        super().__init__()
        if len(config.scales) != 1:
            raise ValueError(f"DCSCN supports one scale per network, not {config.scales}")
        self.config, self.scales = config, config.scales
        sources = (1, *config.features[:-1])
        self.features = nn.ModuleList(
            Feature(a, b, 3, config) for a, b in zip(sources, config.features, strict=True)
        )
        total = sum(config.features)
        self.a1 = Feature(total, config.a1, 1, config)
        self.b1 = Feature(total, config.b1, 1, config)
        self.b2 = Feature(config.b1, config.b2, 3, config)
        self.last = nn.Conv2d(config.a1 + config.b2, config.scales[0] ** 2, 1)  # L of Table 1
        self.shuffle = nn.PixelShuffle(config.scales[0])

    @property
    def units(self) -> list[Feature]:
        """Return the feature layers in order."""
        return [unit for unit in self.features if isinstance(unit, Feature)]

    def start_small(self) -> None:
        """Give the last layer tiny weights, so that training starts near bicubic enlargement."""
        nn.init.normal_(self.last.weight, std=1e-3)

    def forward(self, x: Tensor, scale: int) -> Tensor:
        outputs, y = [], x
        for layer in self.features:
            y = layer(y)
            outputs.append(y)
        y = torch.cat(outputs, 1)  # [N, 410, H, W]
        y = torch.cat((self.a1(y), self.b2(self.b1(y))), 1)  # [N, 96, H, W]
        residual = self.shuffle(self.last(y))
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would blur the picture
            return residual.to(x.dtype) + bicubic(x, scale)
