"""Define rt, our own network: a plain stack of 3x3 convolutions with ReLU, for 8-bit inference.

The papers' networks concatenate many narrow layers; 8-bit kernels on CPUs and GPUs are fast for few
wide layers, no concatenation and a rectifier without parameters. A layer is trained as a sum of
branches and deployed as one equivalent 3x3 convolution (Ding et al., RepVGG, arXiv:2101.03697,
section 3.3; the expanding branch as in Zhang et al., ECBSR, ACM MM 2021, section 3.2). The weights
of the branches are summed before each use, so that a training step costs as much as for the plain
stack.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.nets.common import bias_of, bicubic


@dataclass(frozen=True, kw_only=True)
class RtConfig:
    """Settings of rt; make `width` a multiple of 16, which 8-bit kernels use fully."""

    width: int = 32
    depth: int = 8
    """Number of layers between the first and the last."""
    expand: int = 2
    """Ratio of inner to input channels in a layer's expanding branch; 0: no such branch."""
    identity: bool = True
    """Whether layers with equal numbers of input and output channels have an identity branch."""
    scales: tuple[int, ...] = (2,)
    """Exactly one scale; the last layer has scale**2 filters."""

    def __post_init__(self) -> None:
        """Convert lists, as from JSON, to tuples."""
        object.__setattr__(self, "scales", tuple(self.scales))


class Layer(nn.Conv2d):
    """3x3 convolution with zero padding, trained as 3x3 + (1x1 then 3x3) + identity."""

    def __init__(self, source: int, target: int, config: RtConfig) -> None:
        super().__init__(source, target, 3, padding=1)
        inner = config.expand * source
        self.squeeze = nn.Parameter(torch.empty(inner, source))
        self.spread = nn.Parameter(torch.zeros(target, inner, 3, 3))  # initially no effect
        if inner:
            nn.init.kaiming_uniform_(self.squeeze, a=5**0.5)
        same = target if config.identity and source == target else 0
        self.same = nn.Parameter(torch.ones(same))

    def whole(self) -> Tensor:
        """Return the merged 3x3 kernel of all branches, [target, source, 3, 3]. The merge is exact:
        no branch has a bias before its 3x3 kernel, so zero padding stays zero."""
        return whole_kernel(self.weight, self.squeeze, self.spread, self.same)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.whole(), self.bias, padding=1)

    def merged(self) -> nn.Conv2d:
        """Return an equivalent plain convolution that shares no tensors with this layer."""
        conv = nn.Conv2d(self.in_channels, self.out_channels, 3, padding=1)
        with torch.no_grad():
            conv.weight.copy_(self.whole())
            bias_of(conv).copy_(bias_of(self))
        return conv.requires_grad_(False)


def whole_kernel(weight: Tensor, squeeze: Tensor, spread: Tensor, same: Tensor) -> Tensor:
    """Return the sum of a layer's branches as one 3x3 kernel, [target, source, 3, 3]."""
    if len(squeeze):
        weight = weight + torch.einsum("tiyx,is->tsyx", spread, squeeze)
    if len(same):
        weight = weight + functional.pad(torch.diag(same)[:, :, None, None], (1, 1, 1, 1))
    return weight


class Rt(nn.Module):
    """A stack of `Layer`s on full-range luma [N, 1, H, W], added to bicubic enlargement."""

    colour = "y"

    def __init__(self, config: RtConfig) -> None:
        super().__init__()
        if len(config.scales) != 1:
            raise ValueError(f"rt supports one scale per network, not {config.scales}")
        self.config, self.scales = config, config.scales
        widths = (1, *(config.width,) * (config.depth + 1))
        self.layers = nn.ModuleList(Layer(a, b, config) for a, b in pairwise(widths))
        self.last = Layer(config.width, config.scales[0] ** 2, config)
        self.shuffle = nn.PixelShuffle(config.scales[0])

    @property
    def stack(self) -> list[Layer]:
        """Return all layers in order, including the last."""
        return [layer for layer in (*self.layers, self.last) if isinstance(layer, Layer)]

    def start_small(self) -> None:
        """Give the last layer tiny weights, so that training starts near bicubic enlargement."""
        nn.init.normal_(self.last.weight, std=1e-3)

    def forward(self, x: Tensor, scale: int) -> Tensor:
        y = x
        for layer in self.layers:
            y = functional.relu(layer(y))
        residual = self.shuffle(self.last(y))
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would blur the picture
            return residual.to(x.dtype) + bicubic(x, scale)
