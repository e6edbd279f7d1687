"""Define CARN, CARN-M, PCARN and their ablations as one class with settings.

Module names follow the public code (nmhkahn/CARN-pytorch), so that its checkpoints load;
`train.ship.imports` translates the names in PCARN's checkpoints.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.nets.common import MeanShift

_STEPS = {2: (2,), 3: (3,), 4: (2, 2)}
"""Factors of the pixel shuffles for each scale."""


@dataclass(frozen=True, kw_only=True)
class CarnConfig:
    """Settings of CARN (Ahn, Kang, Sohn, ECCV 2018, arXiv:1803.08664), PCARN (arXiv:1903.02240)."""

    channels: int = 64
    groups: int = 1
    """Number of groups in the 3x3 convolutions of residual-E blocks and up-sampling (Fig. 5)."""
    efficient: bool = False
    """Whether to use residual-E blocks: two 3x3 group convolutions and a 1x1 (Fig. 3b)."""
    recursive: bool = False
    """Whether the blocks of a cascading block share one set of weights (section 3.2)."""
    local_cascade: bool = True
    global_cascade: bool = True
    point_relu: bool = True
    """Whether a ReLU follows the 1x1 convolutions; PCARN has none."""
    long_skip: bool = False
    """Whether to add the entry's features to the last block's, as PCARN does: O = H^b + H^0."""
    scales: tuple[int, ...] = (2, 3, 4)
    """Supported scales: each has an up-sampling unit, and all share the body."""

    @property
    def pcarn(self) -> bool:
        """Return whether both of PCARN's changes to CARN are set."""
        return self.long_skip and not self.point_relu


class Point(nn.Module):
    """1x1 convolution after a concatenation, with or without a ReLU."""

    def __init__(self, source: int, config: CarnConfig) -> None:
        super().__init__()
        conv = nn.Conv2d(source, config.channels, 1)
        self.body = nn.Sequential(conv, nn.ReLU()) if config.point_relu else nn.Sequential(conv)
        self.slope = 1.0
        """Slope for negative values; less than 1 while `relu_fade` phases out CARN's ReLUs."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return x if self.slope == 1 else nn.functional.leaky_relu(x, self.slope)


class Residual(nn.Module):
    """Residual block of two 3x3 convolutions, or residual-E block of two grouped ones and a 1x1."""

    def __init__(self, config: CarnConfig) -> None:
        super().__init__()
        n, groups = config.channels, config.groups if config.efficient else 1
        layers = [
            nn.Conv2d(n, n, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(n, n, 3, padding=1, groups=groups),
        ]
        self.body = nn.Sequential(*layers)
        if config.efficient:
            self.body.extend((nn.ReLU(), nn.Conv2d(n, n, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + x)


class CascadingBlock(nn.Module):
    """Three residual blocks; each 1x1 convolution reads all previous outputs (Fig. 3c)."""

    def __init__(self, config: CarnConfig) -> None:
        super().__init__()
        n = config.channels
        self.recursive, self.cascade = config.recursive, config.local_cascade
        self.b1 = Residual(config)
        if not config.recursive:
            self.b2, self.b3 = Residual(config), Residual(config)
        if config.local_cascade:
            self.c1, self.c2, self.c3 = (Point(k * n, config) for k in (2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        blocks = (self.b1,) * 3 if self.recursive else (self.b1, self.b2, self.b3)
        if not self.cascade:
            return blocks[2](blocks[1](blocks[0](x)))
        return cascade(x, blocks, (self.c1, self.c2, self.c3))


def cascade(x: Tensor, blocks: tuple[nn.Module, ...], points: tuple[nn.Module, ...]) -> Tensor:
    """Alternate blocks and 1x1 convolutions: H^i = point([H^0, B^1, ..., B^i]) (eq. 3 and 4)."""
    everything = o = x
    for block, point in zip(blocks, points, strict=True):
        everything = torch.cat((everything, block(o)), 1)  # 128, 192, 256 channels
        o = point(everything)
    return o


def set_slope(net: nn.Module, slope: float) -> None:
    """Set the leaky ReLU slope after each 1x1 convolution behind a concatenation; 1 means none."""
    for module in net.modules():
        if isinstance(module, Point):
            module.slope = slope


@torch.no_grad()
def cancel_long_skip(net: "Carn") -> None:
    """Subtract H^0 in the last 1x1 convolution: H^b + H^0 becomes CARN's H^b, but without ReLU."""
    weight = net.c3.body[0].weight
    assert isinstance(weight, Tensor)
    weight[:, : len(weight), 0, 0] -= torch.eye(len(weight))


class Upsample(nn.Module):
    """Up-sampling by 3x3 convolution, ReLU and pixel shuffle: once for x2 and x3, twice for x4."""

    def __init__(self, config: CarnConfig, scale: int) -> None:
        super().__init__()
        n, groups = config.channels, config.groups
        layers: list[nn.Module] = []
        for r in _STEPS[scale]:
            conv = nn.Conv2d(n, r * r * n, 3, padding=1, groups=groups)
            layers += [conv, nn.ReLU(), nn.PixelShuffle(r)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Carn(nn.Module):
    """Cascading residual network on RGB [N, 3, H, W] in 0..1."""

    colour = "rgb"

    def __init__(self, config: CarnConfig) -> None:
        super().__init__()
        if not config.scales or not set(config.scales) <= set(_STEPS):
            raise ValueError(f"CARN supports the scales {tuple(_STEPS)}, not {config.scales}")
        self.config, self.scales = config, config.scales
        n = config.channels
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(+1)
        self.entry = nn.Conv2d(3, n, 3, padding=1)
        self.b1, self.b2, self.b3 = (CascadingBlock(config) for _ in range(3))
        if config.global_cascade:
            self.c1, self.c2, self.c3 = (Point(k * n, config) for k in (2, 3, 4))
        self.upsample = nn.ModuleDict({f"up{s}": Upsample(config, s) for s in config.scales})
        self.exit = nn.Conv2d(n, 3, 3, padding=1)

    def upsampling(self, scale: int) -> Upsample:
        """Return the up-sampling unit of a scale."""
        unit = self.upsample[f"up{scale}"]
        assert isinstance(unit, Upsample)
        return unit

    def body(self, x: Tensor) -> Tensor:
        """Compute the up-sampling unit's input, [N, 64, H, W], from the LR picture."""
        h0 = self.entry(self.sub_mean(x))
        blocks = (self.b1, self.b2, self.b3)
        if self.config.global_cascade:
            o = cascade(h0, blocks, (self.c1, self.c2, self.c3))
        else:
            o = self.b3(self.b2(self.b1(h0)))
        return o + h0 if self.config.long_skip else o

    def forward(self, x: Tensor, scale: int) -> Tensor:
        o = self.upsampling(scale)(self.body(x))  # [N, 64, s*H, s*W]
        with torch.autocast(x.device.type, enabled=False):  # whole pictures need float32
            return self.add_mean(self.exit(o.to(x.dtype)))
