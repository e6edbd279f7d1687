"""Initialise a CARN from a trained CARN-M's weights, as an approximation of its function.

A grouped convolution is a full one with zeros between the groups, and a shared block is three
equal ones; both are exact. A residual-E block has a 1x1 convolution after its second ReLU, which
CARN's residual block lacks (Ahn, Kang, Sohn, ECCV 2018, Fig. 3a and 3b): the ReLU is replaced by
the line 0.8 x, and the 1x1 convolution is merged into the second 3x3. CARN-M's x2 file has 37.49 dB
on Set5, and a CARN so initialised has 36.5 dB before its first step (bicubic 33.66).
"""

import re

import torch
from torch import Tensor

from train.nets import Carn

_SLOPE = 0.8
"""Slope of the line that replaces the ReLU: 0.5 gives 36.23 dB on Set5 x2, 0.7 36.45, 1 36.45."""

Weights = dict[str, Tensor]


def grow_carn_weights(net: Carn, weights: Weights) -> Weights:
    """Return weights of the form of `net` from those of a CARN that is not larger.

    Weights of residual blocks are returned unchanged, and so are all if `net` itself has residual-E
    blocks. Raises KeyError or RuntimeError for weights that do not fit together.
    """
    if net.config.efficient or "b1.b1.body.4.weight" not in weights:
        return weights
    own = net.state_dict()
    found: Weights = {}
    for name, value in weights.items():
        if not re.match(r"b\d\.b\d\.", name):
            found[name] = _ungrouped(value, own[name].shape) if name in own else value
    for name in {n.partition(".body.")[0] for n in own if re.match(r"b\d\.b\d\.", n)}:
        shared = re.sub(r"\.b\d$", ".b1", name)
        source = f"{name}.body" if f"{name}.body.4.weight" in weights else f"{shared}.body"
        found |= _residual_block(weights, source, f"{name}.body", net.config.channels)
    return found


def _residual_block(weights: Weights, source: str, target: str, channels: int) -> Weights:
    """Convert a residual-E block to a residual block."""
    shape = torch.Size((channels, channels, 3, 3))
    first, second = (_ungrouped(weights[f"{source}.{k}.weight"], shape) for k in (0, 2))
    point = weights[f"{source}.4.weight"][:, :, 0, 0]
    shift = point @ weights[f"{source}.2.bias"]
    return {
        f"{target}.0.weight": first,
        f"{target}.0.bias": weights[f"{source}.0.bias"],
        f"{target}.2.weight": _SLOPE * torch.einsum("ab,bcij->acij", point, second),
        f"{target}.2.bias": _SLOPE * shift + weights[f"{source}.4.bias"],
    }


def _ungrouped(kernel: Tensor, shape: torch.Size) -> Tensor:
    """Return a grouped kernel [out, in/groups, k, k] as a full one of `shape` [out, in, k, k]."""
    if kernel.dim() != 4 or kernel.shape == shape:
        return kernel
    groups, (out, inputs) = shape[1] // kernel.shape[1], kernel.shape[:2]
    full = kernel.new_zeros(shape)
    for g, part in enumerate(kernel.chunk(groups)):
        n = out // groups
        full[g * n : (g + 1) * n, g * inputs : (g + 1) * inputs] = part
    return full
