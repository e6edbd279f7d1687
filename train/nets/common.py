"""Define parts used by several networks: the mean shift, and bicubic upscaling in torch."""

import torch
from torch import Tensor, nn

from train.data.resize import bicubic_matrix


class MeanShift(nn.Module):
    """Frozen 1x1 convolution that subtracts or adds the DIV2K mean."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        mean = torch.tensor((0.4488, 0.4371, 0.4040))
        self.shifter = nn.Conv2d(3, 3, 1)
        self.shifter.weight.data = torch.eye(3).view(3, 3, 1, 1)
        self.shifter.bias.data = sign * mean  # type: ignore[union-attr]
        self.shifter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.shifter(x)


def bicubic(x: Tensor, scale: int) -> Tensor:
    """Upscale [N, C, H, W] bicubically to [N, C, scale*H, scale*W] (Keys, a = -0.5)."""
    down, across = (torch.from_numpy(bicubic_matrix(n, n * scale)).to(x) for n in x.shape[-2:])
    return down @ x @ across.T


def bias_of(conv: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """Return the bias of a convolution that has one."""
    assert conv.bias is not None
    return conv.bias
