"""Convert networks to deploy forms: mathematically equal, faster to run, used for export.

- CARN's exit convolution moves before the pixel shuffle: conv3x3(shuffle(x)) = shuffle(conv3x3'(x))
  with r*r*3 outputs at low resolution, so only three channels are shuffled; the final mean shift
  becomes its bias. The initial shift stays, because `entry` pads with zeros *after* it.
- DCSCN's A1 and B1 read the same input and become one 1x1 convolution; dropout and dead filters
  (train/fit/prune.py) are removed.
- The bicubic skip of DCSCN and rt becomes a fixed 5x5 convolution on edge-repeated input, added
  before the pixel shuffle.
- The branches of a layer of rt become one 3x3 convolution.
- CSRCNN's exit is 1x1 and linear: exit(y + refined(z)) = exit(y) + refined'(z), so the last
  level's last 3x3 layer has 3 filters instead of 64 at the largest resolution.
"""

from copy import deepcopy
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from train.data.resize import keys_cubic
from train.fit.prune import dcscn_without_dead_filters
from train.nets import Carn, Csrcnn, Dcscn, Net, Rt
from train.nets.carn import cascade
from train.nets.common import bias_of

M = TypeVar("M", bound=nn.Module)


def deploy(net: Net, scale: int) -> nn.Module:
    """Return the deploy form of a trained network for one scale; shares no parameters with it."""
    match net:
        case Carn():
            return DeployedCarn(net, scale).eval()
        case Dcscn():
            return DeployedDcscn(net).eval()
        case Csrcnn():
            return DeployedCsrcnn(net, scale).eval()
        case Rt():
            return DeployedRt(net).eval()


def bicubic_kernel(scale: int) -> Tensor:
    """Return bicubic enlargement as a kernel [scale**2, 1, 5, 5] before a pixel shuffle."""
    centre = (np.arange(scale) + 0.5) / scale - 0.5
    weights = keys_cubic(centre[:, None] - np.arange(-2, 3))  # [scale, 5]
    weights /= weights.sum(axis=1, keepdims=True)
    kernel = np.einsum("ai,bj->abij", weights, weights).reshape(scale**2, 1, 5, 5)
    return torch.from_numpy(kernel).float()


class BicubicSkip(nn.Module):
    """Bicubic enlargement before the pixel shuffle: [N, C, H, W] -> [N, C * scale**2, H, W]."""

    def __init__(self, scale: int, channels: int) -> None:
        super().__init__()
        self.edges = nn.ReplicationPad2d(2)
        self.conv = nn.Conv2d(channels, channels * scale**2, 5, bias=False, groups=channels)
        self.conv.weight.data = bicubic_kernel(scale).repeat(channels, 1, 1, 1)
        self.conv.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.edges(x))


class DeployedDcscn(nn.Module):
    """Deploy form of DCSCN: no dead filters, A1 and B1 merged, the skip as a convolution."""

    def __init__(self, net: Dcscn) -> None:
        super().__init__()
        net = dcscn_without_dead_filters(net)
        self.features = nn.ModuleList(
            nn.Sequential(_copy(unit.conv), _copy(unit.act)) for unit in net.units
        )
        a1, b1 = net.a1, net.b1
        self.widths = [a1.conv.out_channels, b1.conv.out_channels]
        merged = nn.Conv2d(a1.conv.in_channels, sum(self.widths), 1)
        slopes = nn.PReLU(sum(self.widths))
        with torch.no_grad():
            merged.weight.copy_(torch.cat((a1.conv.weight, b1.conv.weight)))
            bias_of(merged).copy_(torch.cat((bias_of(a1.conv), bias_of(b1.conv))))
            slopes.weight.copy_(torch.cat((a1.act.weight, b1.act.weight)))
        self.a1b1 = nn.Sequential(merged, slopes)
        self.b2 = nn.Sequential(_copy(net.b2.conv), _copy(net.b2.act))
        self.last = _copy(net.last)
        self.skip = BicubicSkip(net.scales[0], 1)
        self.shuffle = nn.PixelShuffle(net.scales[0])

    def forward(self, x: Tensor) -> Tensor:
        outputs, y = [], x
        for layer in self.features:
            y = layer(y)
            outputs.append(y)
        a1, b1 = self.a1b1(torch.cat(outputs, 1)).split(self.widths, 1)
        residual = self.last(torch.cat((a1, self.b2(b1)), 1))
        return self.shuffle(residual + self.skip(x))


class DeployedRt(nn.Module):
    """Deploy form of rt: one convolution per layer, the skip as a convolution."""

    def __init__(self, net: Rt) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        *inner, last = net.stack
        for layer in inner:
            layers += [layer.merged(), nn.ReLU()]
        self.layers = nn.Sequential(*layers, last.merged())
        self.skip = BicubicSkip(net.scales[0], 1)
        self.shuffle = nn.PixelShuffle(net.scales[0])

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.layers(x) + self.skip(x))


def conv_under_shuffle(conv: nn.Conv2d, r: int) -> nn.Conv2d:
    """Return the convolution c' with shuffle_r(c'(x)) = conv(shuffle_r(x)), for a 3x3 `conv`.

    x has r*r*n channels if conv reads n. An HR tap at offset d from phase a reads LR offset
    floor((a + d) / r), phase (a + d) mod r; zero padding stays equivalent.
    """
    n, outputs = conv.in_channels, conv.out_channels
    fused = nn.Conv2d(n * r * r, outputs * r * r, 3, padding=1)
    weight = torch.zeros(outputs, r, r, n, r, r, 3, 3)
    taps = [(a, *divmod(a + d, r), d + 1) for a in range(r) for d in (-1, 0, 1)]
    for ay, ly, py, ky in taps:
        for ax, lx, px, kx in taps:
            weight[:, ay, ax, :, py, px, ly + 1, lx + 1] = conv.weight.data[:, :, ky, kx]
    fused.weight.data = weight.reshape(outputs * r * r, n * r * r, 3, 3)
    bias_of(fused).data = bias_of(conv).data.repeat_interleave(r * r)
    return fused


class DeployedCarn(nn.Module):
    """Deploy form of CARN or PCARN: the exit convolution runs before the last pixel shuffle."""

    def __init__(self, net: Carn, scale: int) -> None:
        super().__init__()
        self.long_skip = net.config.long_skip
        self.sub_mean, self.entry = _copy(net.sub_mean), _copy(net.entry)
        self.blocks = nn.ModuleList(_copy(b) for b in (net.b1, net.b2, net.b3))
        points = (net.c1, net.c2, net.c3) if net.config.global_cascade else ()
        self.points = nn.ModuleList(_copy(c) for c in points)
        *before, shuffle = _copy(net.upsampling(scale).body)
        assert isinstance(shuffle, nn.PixelShuffle)
        self.upsample = nn.Sequential(*before)
        self.exit = conv_under_shuffle(net.exit, shuffle.upscale_factor)
        mean = bias_of(net.add_mean.shifter).data
        bias_of(self.exit).data += mean.repeat_interleave(shuffle.upscale_factor**2)
        self.shuffle = shuffle

    def forward(self, x: Tensor) -> Tensor:
        o = h0 = self.entry(self.sub_mean(x))
        if self.points:
            o = cascade(h0, tuple(self.blocks), tuple(self.points))
        else:
            for block in self.blocks:
                o = block(o)
        o = o + h0 if self.long_skip else o
        return self.shuffle(self.exit(self.upsample(o)))


class DeployedCsrcnn(nn.Module):
    """Deploy form of CSRCNN: levels up to one scale, the exit merged into the last `refined`."""

    def __init__(self, net: Csrcnn, scale: int) -> None:
        super().__init__()
        depth = net.scales.index(scale) + 1
        self.sub_mean, self.entry = _copy(net.sub_mean), _copy(net.entry)
        self.levels = nn.ModuleList(_copy(net.level(k)) for k in range(depth - 1))
        self.last, self.exit = _copy(net.level(depth - 1)), _copy(net.exit)
        refined, rgb = self.last.refined, self.exit.weight[:, :, 0, 0]  # [3, 64]
        fused = nn.Conv2d(refined.in_channels, 3, 3, padding=1)
        fused.weight.data = torch.einsum("oc,cihw->oihw", rgb, refined.weight)
        bias_of(fused).data = rgb @ bias_of(refined)
        self.last.refined = fused.requires_grad_(False)
        bias_of(self.exit).data += bias_of(net.add_mean.shifter).data

    def forward(self, x: Tensor) -> Tensor:
        y = self.entry(self.sub_mean(x))
        for level in self.levels:
            y = level(y)
        y = self.last.enlarged(y)
        return self.exit(y) + self.last.refined(self.last.refine(y))


def _copy(module: M) -> M:
    twin = deepcopy(module)
    twin.requires_grad_(False)
    return twin
