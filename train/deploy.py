"""Deploy forms: exactly equal to the training forms, cheaper to run, and what gets exported.

- The exit convolution moves under the pixel shuffle: conv3x3(shuffle(x)) = shuffle(conv3x3'(x))
  with r*r*3 outputs at low resolution, so only three channels are ever shuffled; the closing mean
  shift becomes its bias. The opening shift stays: `entry` pads with zeros *after* it.
- DCSCN's A1 and B1 read the same input and become one 1x1 convolution; its bicubic skip becomes a
  fixed 5x5 convolution on edge-repeated input, added before the pixel shuffle; dropout goes.
"""

from copy import deepcopy
from functools import singledispatch
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from train.nets import CarnM, Dcscn, Net
from train.resize import keys_cubic

M = TypeVar("M", bound=nn.Module)


@singledispatch
def deploy(net: Net) -> nn.Module:
    """The deploy form of a trained network; shares no parameters with it."""
    raise TypeError(f"no deploy form for {type(net).__name__}")


def bicubic_kernel(scale: int) -> Tensor:
    """[scale**2, 1, 5, 5]: bicubic enlargement as a convolution before a pixel shuffle."""
    centre = (np.arange(scale) + 0.5) / scale - 0.5
    weights = keys_cubic(centre[:, None] - np.arange(-2, 3))  # [scale, 5]
    weights /= weights.sum(axis=1, keepdims=True)
    kernel = np.einsum("ai,bj->abij", weights, weights).reshape(scale**2, 1, 5, 5)
    return torch.from_numpy(kernel).float()


class DeployedDcscn(nn.Module):
    """DCSCN with A1 and B1 merged and the skip as a convolution."""

    def __init__(self, net: Dcscn) -> None:
        super().__init__()
        self.features = nn.ModuleList(
            nn.Sequential(_copy(unit.conv), _copy(unit.act)) for unit in net.units
        )
        a1, b1 = net.a1, net.b1
        self.widths = [a1.conv.out_channels, b1.conv.out_channels]
        merged = nn.Conv2d(a1.conv.in_channels, sum(self.widths), 1)
        slopes = nn.PReLU(sum(self.widths))
        with torch.no_grad():
            merged.weight.copy_(torch.cat((a1.conv.weight, b1.conv.weight)))
            _bias(merged).copy_(torch.cat((_bias(a1.conv), _bias(b1.conv))))
            slopes.weight.copy_(torch.cat((a1.act.weight, b1.act.weight)))
        self.a1b1 = nn.Sequential(merged, slopes)
        self.b2 = nn.Sequential(_copy(net.b2.conv), _copy(net.b2.act))
        self.last = _copy(net.last)
        self.edges = nn.ReplicationPad2d(2)
        self.skip = nn.Conv2d(1, net.scale**2, 5, bias=False)
        self.skip.weight.data = bicubic_kernel(net.scale)
        self.shuffle = nn.PixelShuffle(net.scale)

    def forward(self, x: Tensor) -> Tensor:
        outputs, y = [], x
        for layer in self.features:
            y = layer(y)
            outputs.append(y)
        a1, b1 = self.a1b1(torch.cat(outputs, 1)).split(self.widths, 1)
        residual = self.last(torch.cat((a1, self.b2(b1)), 1))
        return self.shuffle(residual + self.skip(self.edges(x)))


def conv_under_shuffle(conv: nn.Conv2d, r: int) -> nn.Conv2d:
    """The convolution c' with shuffle_r(c'(x)) = conv(shuffle_r(x)), for a 3x3 `conv`.

    x has r*r*n channels where conv reads n. An HR tap at offset d from phase a reads LR offset
    floor((a + d) / r), phase (a + d) mod r; zero padding carries over.
    """
    n, outputs = conv.in_channels, conv.out_channels
    fused = nn.Conv2d(n * r * r, outputs * r * r, 3, padding=1)
    weight = torch.zeros(outputs, r, r, n, r, r, 3, 3)
    taps = [(a, *divmod(a + d, r), d + 1) for a in range(r) for d in (-1, 0, 1)]
    for ay, ly, py, ky in taps:
        for ax, lx, px, kx in taps:
            weight[:, ay, ax, :, py, px, ly + 1, lx + 1] = conv.weight.data[:, :, ky, kx]
    fused.weight.data = weight.reshape(outputs * r * r, n * r * r, 3, 3)
    _bias(fused).data = _bias(conv).data.repeat_interleave(r * r)
    return fused


class DeployedCarnM(nn.Module):
    """CARN-M whose exit convolution runs before the last pixel shuffle."""

    def __init__(self, net: CarnM) -> None:
        super().__init__()
        self.sub_mean, self.entry = _copy(net.sub_mean), _copy(net.entry)
        self.blocks = nn.ModuleList(_copy(b) for b in (net.b1, net.b2, net.b3))
        self.points = nn.ModuleList(_copy(c) for c in (net.c1, net.c2, net.c3))
        *before, shuffle = _copy(net.upsampling.body)
        assert isinstance(shuffle, nn.PixelShuffle)
        self.upsample = nn.Sequential(*before)
        self.exit = conv_under_shuffle(net.exit, shuffle.upscale_factor)
        mean = _bias(net.add_mean.shifter).data
        _bias(self.exit).data += mean.repeat_interleave(shuffle.upscale_factor**2)
        self.shuffle = shuffle

    def forward(self, x: Tensor) -> Tensor:
        cascade = o = self.entry(self.sub_mean(x))
        for block, point in zip(self.blocks, self.points, strict=True):
            cascade = torch.cat((cascade, block(o)), 1)
            o = point(cascade)
        return self.shuffle(self.exit(self.upsample(o)))


@deploy.register
def _(net: Dcscn) -> nn.Module:
    return DeployedDcscn(net).eval()


@deploy.register
def _(net: CarnM) -> nn.Module:
    return DeployedCarnM(net).eval()


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _copy(module: M) -> M:
    twin = deepcopy(module)
    twin.requires_grad_(False)
    return twin
