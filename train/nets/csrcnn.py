"""Define CSRCNN, a cascaded network for large scales, x2 -> x4 -> x8.

Zhang, Shao, Liang, Gao, Shen, "Large Factor Image Super-Resolution with Cascaded Convolutional
Neural Networks", IEEE Transactions on Multimedia 2020. Each level enlarges by two: a group of
densely connected BP-U blocks, a transposed convolution, a refined block. Its features feed the next
level and, through the exit, produce the level's picture. The picture comes from the features alone:
no bicubic enlargement is added (section III-A).

Details that the text omits follow from the paper's parameter counts. Table VI has 1,549K, 3,059K
and 4,568K parameters for x2, x4 and x8, Table IV 2,583K for three BP-U blocks in each of two
levels. Among the possible numbers of 3x3 layers in the entry and the levels, and kernel sizes of
the transposed convolution, the entry and the exit, only this RGB arrangement gives all four sums:
two 3x3 layers in the entry, a 4x4 transposed convolution, two 3x3 layers per level besides the
refined block's twelve, one 1x1 exit.

Our own choices:
- The two extra layers close the two residual branches: x + close(group(x)), y + close(refine(y)).
- ReLU follows every layer of a BP-U block but the last, and the entry's first layer; none follows
  the transposed convolution, the closing layers and the sums, which carry the picture.
- A new level is blended in as pictures: share * its own + (1 - share) * the bicubic enlargement of
  the previous level's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.nets.common import MeanShift, bias_of, bicubic


@dataclass(frozen=True, kw_only=True)
class CsrcnnConfig:
    """Settings of CSRCNN."""

    channels: int = 64
    blocks: tuple[int, ...] = (4, 4, 4)
    """Number of BP-U blocks in the x2, x4 and x8 level; equal numbers: symmetric (Table IV)."""
    back_projection: bool = True
    """Whether blocks are BP-U; else T-U: the same U-net, with skips added in the decoder."""
    residuals: int = 4
    """Number of residual blocks in a refined block."""
    convolutions: int = 4
    """Number of convolutions with ReLU after a refined block's residual blocks."""
    scales: tuple[int, ...] = (2, 4, 8)
    """Supported scales, one per level."""

    def __post_init__(self) -> None:
        """Convert lists, as from JSON, to tuples."""
        object.__setattr__(self, "blocks", tuple(self.blocks))


class BackProjectionUnit(nn.Module):
    """BP-U block (eq. 1 to 5, Fig. 4), or T-U block: U-net down to H/4, W/4 for any H and W.

    F0 = 1x1 of the dense input, F1 = down(F0), F2 = down(F1), F3 = [W3 * F2, F2],
    F4 = up(W4 * F3) - F1, F5 = up(W5 * F4) + F0. The difference in F4 is the loss of down-
    and up-sampling; a T-U block adds F1 instead.
    """

    def __init__(self, source: int, n: int, back_projection: bool) -> None:
        super().__init__()
        self.sign = -1.0 if back_projection else 1.0
        self.dense = nn.Conv2d(source, n, 1)
        self.down1, self.down2 = (nn.Conv2d(n, n, 3, stride=2, padding=1) for _ in range(2))
        self.low = nn.Conv2d(n, n, 3, padding=1)
        self.up1, self.up2 = (
            nn.ConvTranspose2d(c, n, 3, stride=2, padding=1, output_padding=1) for c in (2 * n, n)
        )

    def forward(self, x: Tensor) -> Tensor:
        f0 = torch.relu(self.dense(x))
        f1 = torch.relu(self.down1(f0))  # [N, 64, ceil(H/2), ceil(W/2)]
        f2 = torch.relu(self.down2(f1))  # [N, 64, ceil(H/4), ceil(W/4)]
        f3 = torch.cat((torch.relu(self.low(f2)), f2), 1)
        f4 = _cut(torch.relu(self.up1(f3)), f1) + self.sign * f1
        return _cut(self.up2(f4), f0) + f0


def _cut(x: Tensor, like: Tensor) -> Tensor:
    """Crop enlarged features to the size of `like`, whose sides may be odd."""
    return x[..., : like.shape[-2], : like.shape[-1]]


class Residual(nn.Module):
    """Residual block: convolution, ReLU, convolution."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(n, n, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(x)))


class Level(nn.Module):
    """Level of the cascade: features [N, 64, H, W] -> features [N, 64, 2*H, 2*W]."""

    def __init__(self, config: CsrcnnConfig, blocks: int) -> None:
        super().__init__()
        n = config.channels
        self.units = nn.ModuleList(
            BackProjectionUnit(n * (i + 1), n, config.back_projection) for i in range(blocks)
        )
        self.close = nn.Conv2d(n, n, 3, padding=1)
        self.up = nn.ConvTranspose2d(n, n, 4, stride=2, padding=1)
        layers: list[nn.Module] = [Residual(n) for _ in range(config.residuals)]
        for _ in range(config.convolutions):
            layers += [nn.Conv2d(n, n, 3, padding=1), nn.ReLU()]
        self.refine = nn.Sequential(*layers)
        self.refined = nn.Conv2d(n, n, 3, padding=1)

    def enlarged(self, x: Tensor) -> Tensor:
        """Run the BP-U blocks and the transposed convolution: the input of the refined block."""
        outputs = [x]
        for unit in self.units:
            outputs.append(unit(torch.cat(outputs, 1)))
        return self.up(x + self.close(outputs[-1]))

    def forward(self, x: Tensor) -> Tensor:
        y = self.enlarged(x)
        return y + self.refined(self.refine(y))


class Csrcnn(nn.Module):
    """CSRCNN on RGB [N, 3, H, W] in 0..1."""

    colour = "rgb"

    def __init__(self, config: CsrcnnConfig) -> None:
        super().__init__()
        if config.scales != tuple(2 ** (k + 1) for k in range(len(config.blocks))):
            raise ValueError(f"levels {config.blocks} do not match the scales {config.scales}")
        self.config, self.scales = config, config.scales
        n = config.channels
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(+1)
        self.entry = nn.Sequential(
            nn.Conv2d(3, n, 3, padding=1), nn.ReLU(), nn.Conv2d(n, n, 3, padding=1)
        )
        self.levels = nn.ModuleList(Level(config, count) for count in config.blocks)
        self.exit = nn.Conv2d(n, 3, 1)

    def level(self, index: int) -> Level:
        """Return the level for scale 2**(index + 1)."""
        level = self.levels[index]
        assert isinstance(level, Level)
        return level

    @torch.no_grad()
    def start_small(self) -> None:
        """Initialise the network to bilinear enlargement, with residual branches that add zero.

        Channels 0..2 carry the picture from entry to exit, the others keep their random weights.
        Raises ValueError for fewer than six channels, as the picture needs two (+, -) per colour.
        """
        if self.config.channels < 6:
            raise ValueError("initialisation as bilinear enlargement needs at least 6 channels")
        first, second = self.entry[0], self.entry[2]
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.Conv2d)
        first.weight[:6] = second.weight[:3] = self.exit.weight[:] = 0
        for c in range(3):
            first.weight[c, c, 1, 1], first.weight[3 + c, c, 1, 1] = 1, -1
            second.weight[c, c, 1, 1], second.weight[c, 3 + c, 1, 1] = 1, -1
            self.exit.weight[c, c] = 1
        for conv in (first, second, self.exit):
            nn.init.zeros_(bias_of(conv))
        half = torch.tensor([0.25, 0.75, 0.75, 0.25])
        for k in range(len(self.levels)):
            level = self.level(k)
            nn.init.zeros_(level.up.weight)
            nn.init.zeros_(bias_of(level.up))
            for c in range(self.config.channels):
                level.up.weight[c, c] = torch.outer(half, half)
            for conv in (level.close, level.refined):
                nn.init.zeros_(conv.weight)
                nn.init.zeros_(bias_of(conv))

    def forward(self, x: Tensor, scale: int, share: float = 1.0) -> Tensor:
        """Return the picture at a scale: `share` of its level, the rest of the previous level."""
        depth = self.scales.index(scale) + 1
        before = y = self.entry(self.sub_mean(x))
        for level in self.levels[:depth]:
            before, y = y, level(y)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would blur the picture
            picture = self.exit(y.to(x.dtype))
            if share < 1 and depth > 1:
                coarse = bicubic(self.exit(before.to(x.dtype)), 2)
                picture = share * picture + (1 - share) * coarse
            return self.add_mean(picture)
