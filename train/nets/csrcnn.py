"""CSRCNN: cascaded networks for large factors, x2 -> x4 -> x8.

Zhang, Shao, Liang, Gao, Shen, "Large Factor Image Super-Resolution with Cascaded Convolutional
Neural Networks", IEEE Transactions on Multimedia 2020. Level k enlarges by two: dense BP-U blocks,
a transposed convolution, a refined block; its features feed the next level.

What the paper leaves open, and what was chosen here:
- BP-U: "two stride-2 down, concatenation, two stride-2 up with subtraction and summation", five 3x3
  layers: x -> down -> up, subtracted from x, -> down, concatenated with the first down (128
  channels) -> 3x3 -> up, added to x. With the dense 1x1 in front, the fourth block of a level has
  237,952 parameters: the 238K by which the rows of Table IV differ.
- Dense: block i of a level reads the level's input and all earlier blocks' outputs (64 i channels).
- Every 3x3 layer of a BP-U block is followed by a ReLU but the last; the transposed convolution
  between levels is 3x3 with stride 2 and a ReLU; residual blocks are conv, ReLU, conv, sum, ReLU.
- A level's picture is a 3x3 convolution of its refined features, added to the bicubic enlargement.
- Refined block as the text has it, 12 convolutions; Table IV's sums leave room for fewer (`info`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.nets.common import MeanShift, bicubic


@dataclass(frozen=True, kw_only=True)
class CsrcnnConfig:
    """Levels of the cascade."""

    channels: int = 64
    blocks: tuple[int, ...] = (6, 4, 2)
    """BP-U blocks of the x2, x4 and x8 level."""
    residuals: int = 4
    """Residual blocks of a refined block, and as many convolutions after them."""
    scales: tuple[int, ...] = (2, 4, 8)
    """Every level's picture can be asked for."""


class BackProjectionUnit(nn.Module):
    """BP-U block: what down- and up-sampling loses is projected back. Any H, W."""

    def __init__(self, source: int, n: int) -> None:
        super().__init__()
        self.dense = nn.Conv2d(source, n, 1)
        self.down1, self.down2 = (nn.Conv2d(n, n, 3, stride=2, padding=1) for _ in range(2))
        self.join = nn.Conv2d(2 * n, n, 3, padding=1)
        self.up1, self.up2 = (_up(n) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.dense(x))
        h, w = x.shape[-2:]
        low = torch.relu(self.down1(x))  # [N, 64, ceil(H/2), ceil(W/2)]
        lost = x - torch.relu(self.up1(low))[..., :h, :w]
        low = torch.cat((low, torch.relu(self.down2(lost))), 1)
        return x + self.up2(torch.relu(self.join(low)))[..., :h, :w]


def _up(n: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(n, n, 3, stride=2, padding=1, output_padding=1)


class _Residual(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(n, n, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


class Level(nn.Module):
    """Features -> features of twice the width and height."""

    def __init__(self, config: CsrcnnConfig, blocks: int) -> None:
        super().__init__()
        n, m = config.channels, config.residuals
        self.units = nn.ModuleList(BackProjectionUnit(n * (i + 1), n) for i in range(blocks))
        self.up = _up(n)
        layers: list[nn.Module] = [_Residual(n) for _ in range(m)]
        for _ in range(m):
            layers += [nn.Conv2d(n, n, 3, padding=1), nn.ReLU()]
        self.refine = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for unit in self.units:
            outputs.append(unit(torch.cat(outputs, 1)))
        return self.refine(torch.relu(self.up(outputs[-1])))


class Csrcnn(nn.Module):
    """The cascade on RGB [N, 3, H, W] in 0..1."""

    colour = "rgb"

    def __init__(self, config: CsrcnnConfig) -> None:
        super().__init__()
        if config.scales != tuple(2 ** (k + 1) for k in range(len(config.blocks))):
            raise ValueError(f"levels {config.blocks} do not give the scales {config.scales}")
        self.config, self.scales = config, config.scales
        n = config.channels
        self.sub_mean = MeanShift(-1)
        self.entry = nn.Conv2d(3, n, 3, padding=1)
        self.levels = nn.ModuleList(Level(config, count) for count in config.blocks)
        self.exits = nn.ModuleList(nn.Conv2d(n, 3, 3, padding=1) for _ in config.blocks)

    def start_small(self) -> None:
        """Make the exits tiny, so that training starts as bicubic enlargement."""
        for conv in self.exits:
            assert isinstance(conv, nn.Conv2d)
            nn.init.normal_(conv.weight, std=1e-3)

    def residual(self, x: Tensor, scale: int) -> Tensor:
        """What is added to the bicubic enlargement."""
        depth = self.scales.index(scale) + 1
        y = torch.relu(self.entry(self.sub_mean(x)))
        for level in self.levels[:depth]:
            y = level(y)
        return self.exits[depth - 1](y)

    def forward(self, x: Tensor, scale: int) -> Tensor:
        residual = self.residual(x, scale)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would blur the picture
            return residual.to(x.dtype) + bicubic(x, scale)
