"""The networks in training form: the papers', layer for layer (shapes in the comments).

`NETS` maps a name to its settings; `build(name, scale)` makes the module. Module names follow
the public code of each paper, so that public checkpoints load. Input and output are float in
0..1: RGB [N, 3, H, W] for CARN, full-range luma [N, 1, H, W] for DCSCN.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from train.resize import bicubic_matrix


@dataclass(frozen=True, kw_only=True)
class DcscnConfig:
    """Filters of Yamanaka, Kuwashima, Kurita 2017 (arXiv:1707.05425), Table 1."""

    features: tuple[int, ...] = (96, 76, 65, 55, 47, 39, 32)
    a1: int = 64
    b1: int = 32
    b2: int = 32
    keep: float = 0.8
    """Dropout keep rate after every feature layer, 1.0 for none."""
    slope: float = 0.1
    """PReLU slope at the start (the paper starts at 0)."""


@dataclass(frozen=True, kw_only=True)
class CarnConfig:
    """CARN of Ahn, Kang, Sohn, ECCV 2018 (arXiv:1803.08664); CARN-M: mobile, groups 4."""

    channels: int = 64
    groups: int = 4
    scales: tuple[int, ...] = (2,)
    """Every scale has its own up-sampling unit; the body is shared (section 4.1)."""


class _Feature(nn.Module):
    """Convolution, PReLU, dropout: one unit of DCSCN."""

    def __init__(self, source: int, target: int, kernel: int, config: DcscnConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(source, target, kernel, padding=kernel // 2)
        self.act = nn.PReLU(target, init=config.slope)
        self.drop = nn.Dropout(1 - config.keep)
        nn.init.kaiming_normal_(self.conv.weight, a=config.slope)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.act(self.conv(x)))


class Dcscn(nn.Module):
    """Deep CNN with skip connection and network in network, on luma."""

    colour = "y"

    def __init__(self, config: DcscnConfig, scale: int) -> None:
        super().__init__()
        self.config, self.scale = config, scale
        sources = (1, *config.features[:-1])
        self.features = nn.ModuleList(
            _Feature(a, b, 3, config) for a, b in zip(sources, config.features, strict=True)
        )
        total = sum(config.features)
        self.a1 = _Feature(total, config.a1, 1, config)
        self.b1 = _Feature(total, config.b1, 1, config)
        self.b2 = _Feature(config.b1, config.b2, 3, config)
        self.last = nn.Conv2d(config.a1 + config.b2, scale**2, 1)  # L of Table 1
        nn.init.normal_(self.last.weight, std=1e-3)  # starts as bicubic
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.shuffle = nn.PixelShuffle(scale)

    @property
    def units(self) -> list[_Feature]:
        """The feature layers in order."""
        return [unit for unit in self.features if isinstance(unit, _Feature)]

    def forward(self, x: Tensor) -> Tensor:
        outputs, y = [], x
        for layer in self.features:
            y = layer(y)
            outputs.append(y)
        y = torch.cat(outputs, 1)  # [N, 410, H, W]
        y = torch.cat((self.a1(y), self.b2(self.b1(y))), 1)  # [N, 96, H, W]
        residual = self.shuffle(self.last(y))
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would blur the picture
            return residual.to(x.dtype) + bicubic(x, self.scale)


def bicubic(x: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement [N, C, H, W] -> [N, C, scale*H, scale*W] (Keys, a = -0.5)."""
    down, across = (torch.from_numpy(bicubic_matrix(n, n * scale)).to(x) for n in x.shape[-2:])
    return down @ x @ across.T


class MeanShift(nn.Module):
    """Subtract or add the DIV2K mean, as a 1x1 convolution that is never trained."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        mean = torch.tensor((0.4488, 0.4371, 0.4040))
        self.shifter = nn.Conv2d(3, 3, 1)
        self.shifter.weight.data = torch.eye(3).view(3, 3, 1, 1)
        self.shifter.bias.data = sign * mean  # type: ignore[union-attr]
        self.shifter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.shifter(x)


class _PointConv(nn.Module):
    """1x1 convolution and ReLU that follows every concatenation."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(source, target, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class ResidualE(nn.Module):
    """Efficient residual block (CARN Fig. 4b): two 3x3 group convolutions and a 1x1."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + x)


class CascadingBlock(nn.Module):
    """Local cascade; the three residual blocks share one set of weights (recursive)."""

    def __init__(self, config: CarnConfig) -> None:
        super().__init__()
        n = config.channels
        self.b1 = ResidualE(n, config.groups)
        self.c1, self.c2, self.c3 = (_PointConv(k * n, n) for k in (2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        cascade = o = x
        for point in (self.c1, self.c2, self.c3):
            cascade = torch.cat((cascade, self.b1(o)), 1)  # 128, 192, 256 channels
            o = point(cascade)
        return o


class _Upsample(nn.Module):
    """3x3 convolution, ReLU and pixel shuffle: once for x2 and x3, twice for x4."""

    def __init__(self, config: CarnConfig, scale: int) -> None:
        super().__init__()
        n, layers = config.channels, []
        for r in {2: (2,), 3: (3,), 4: (2, 2)}[scale]:
            layers += [
                nn.Conv2d(n, r * r * n, 3, padding=1, groups=config.groups),
                nn.ReLU(),
                nn.PixelShuffle(r),
            ]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class CarnM(nn.Module):
    """Cascading residual network, mobile form, on RGB."""

    colour = "rgb"

    def __init__(self, config: CarnConfig, scale: int) -> None:
        super().__init__()
        if scale not in config.scales:
            raise ValueError(f"no up-sampling unit for scale {scale}: {config.scales = }")
        self.config, self.scale = config, scale
        n = config.channels
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(+1)
        self.entry = nn.Conv2d(3, n, 3, padding=1)
        self.b1, self.b2, self.b3 = (CascadingBlock(config) for _ in range(3))
        self.c1, self.c2, self.c3 = (_PointConv(k * n, n) for k in (2, 3, 4))
        self.upsample = nn.ModuleDict({f"up{s}": _Upsample(config, s) for s in config.scales})
        self.exit = nn.Conv2d(n, 3, 3, padding=1)

    @property
    def upsampling(self) -> _Upsample:
        """The up-sampling unit of this scale."""
        unit = self.upsample[f"up{self.scale}"]
        assert isinstance(unit, _Upsample)
        return unit

    def forward(self, x: Tensor) -> Tensor:
        cascade = o = self.entry(self.sub_mean(x))  # [N, 64, H, W]
        pairs = ((self.b1, self.c1), (self.b2, self.c2), (self.b3, self.c3))
        for block, point in pairs:
            cascade = torch.cat((cascade, block(o)), 1)
            o = point(cascade)
        o = self.upsampling(o)  # [N, 64, s*H, s*W]
        with torch.autocast(x.device.type, enabled=False):  # whole pictures need float32
            return self.add_mean(self.exit(o.to(x.dtype)))


Net = Dcscn | CarnM

NETS: dict[str, DcscnConfig | CarnConfig] = {
    "dcscn": DcscnConfig(),
    "c-dcscn": DcscnConfig(features=(32, 26, 22, 18, 14, 11, 8), a1=24, b1=8, b2=8),
    "carn-m": CarnConfig(),
}


def build(name: str, scale: int, keep: float | None = None) -> Net:
    """The training form of network `name` for one scale; `keep` overrides DCSCN's dropout."""
    config = NETS[name]
    if isinstance(config, CarnConfig):
        return CarnM(replace(config, scales=(scale,)), scale)
    return Dcscn(config if keep is None else replace(config, keep=keep), scale)
