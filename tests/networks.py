"""Makes random networks with no trivial weights and a strong output, so that wrong layers show."""

import os
from typing import TypeVar

import torch
from torch import Tensor, nn

from train.nets import Csrcnn, Dcscn, Net, Rt, bicubic
from train.nets.csrcnn import Level

ALL_NETWORKS = bool(os.environ.get("VSR_ALL_NETWORKS"))
"""Whether slow tests run for all networks, or only for those needed to cover the code."""
N = TypeVar("N", bound=Net)


def roughened(net: N, seed: int = 3) -> N:
    """Set random weights that preserve the signal's strength, random biases and PReLU slopes.

    The output for noise, without the bicubic skip, has a standard deviation of about 0.15.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(-0.4, 0.9)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.requires_grad:
                nn.init.kaiming_normal_(module.weight)
                assert module.bias is not None
                module.bias.normal_(0, 0.1)
        for level in net.levels if isinstance(net, Csrcnn) else ():
            assert isinstance(level, Level)  # else each would amplify its input 20 times
            level.close.weight.mul_(0.2)
            level.refined.weight.mul_(0.2)
        x, last = torch.rand(1, channels(net), 12, 16), _last(net)
        last.weight.mul_(0.15 / own_part(net.eval(), x, net.scales[0]).std())
        assert last.bias is not None
        last.bias.normal_(0, 0.05)
    return net


def own_part(net: Net, x: Tensor, scale: int) -> Tensor:
    """Return the output without the bicubic skip, if the network has one."""
    return net(x, scale) - bicubic(x, scale) if isinstance(net, Dcscn | Rt) else net(x, scale)


def channels(net: Net) -> int:
    """Return the number of input channels."""
    return {"y": 1, "rgb": 3}[net.colour]


def _last(net: Net) -> nn.Conv2d:
    return net.last if isinstance(net, Dcscn | Rt) else net.exit
