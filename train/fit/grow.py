"""rt with more filters or layers, or other branches, that begins as a trained one's function.

A layer of more filters keeps the old ones, which read nothing of the new: those start with weights
of their own, so that training can teach the others to read them (as in Chen et al., "Net2Net",
ICLR 2016, section 2.3, whose new filters are copies and need noise to part). A new layer passes on
what it reads: that is positive after the ReLU before it (section 2.4).
"""

import torch
from torch import Tensor

from train.nets import Rt
from train.nets.rt import Layer, whole_kernel

Weights = dict[str, Tensor]


def grown(net: Rt, weights: Weights) -> Weights:
    """Weights for `net` that compute what `weights`, of as many layers and filters or fewer, do.

    Weights that are of the net's own form already, or of no rt, are returned as they are; a last
    layer of another scale is left out. Raises ValueError for those of a larger network, or where a
    layer is missing.
    """
    own = net.state_dict()
    body = [name for name in own if not name.startswith("last.")]
    if all(name in weights and weights[name].shape == own[name].shape for name in body):
        return weights
    kernels, biases = _plain(weights)
    if not kernels:
        return weights
    if len(kernels) > len(net.stack):
        raise ValueError(f"{len(kernels)} layers do not fit into {len(net.stack)}")
    found: Weights = {}
    places = _places(len(kernels), len(net.stack))
    width = 1  # of the layer before: how many of its filters are old
    for k, layer in enumerate(net.stack):
        name = f"layers.{k}" if k < len(net.layers) else "last"
        if (old := places.get(k)) is None:
            kernel, bias = _passing(width), torch.zeros(width)
        else:
            kernel, bias = kernels[old], biases[old]
        if name == "last" and len(kernel) != layer.out_channels:  # as many as scale**2
            continue
        found |= _layer(name, layer, kernel, bias)
        if kernel.shape[1] != width:
            raise ValueError(f"{name} reads {kernel.shape[1]} filters of {width}")
        width = len(kernel)
    return found


def _plain(weights: Weights) -> tuple[list[Tensor], list[Tensor]]:
    """One kernel and bias a layer, whatever its branches; none where these are no rt's weights."""
    layers = {name.split(".")[1] for name in weights if name.startswith("layers.")}
    if not layers or "last.weight" not in weights:
        return [], []
    kernels, biases = [], []
    for name in [*(f"layers.{k}" for k in range(len(layers))), "last"]:
        parts = (weights[f"{name}.{part}"] for part in ("weight", "squeeze", "spread", "same"))
        kernels.append(whole_kernel(*parts))
        biases.append(weights[f"{name}.bias"])
    return kernels, biases


def _places(few: int, many: int) -> dict[int, int]:
    """New layer -> old layer: first and last stay so, the others are spread evenly between."""
    inner = few - 2
    if inner < 1:
        return {**{k: k for k in range(few - 1)}, many - 1: few - 1}
    between = {1 + k * (many - 2) // inner: 1 + k for k in range(inner)}
    return {0: 0, **between, many - 1: few - 1}


def _passing(width: int) -> Tensor:
    """A kernel whose output is its input, [width, width, 3, 3]."""
    return torch.nn.functional.pad(torch.eye(width)[:, :, None, None], (1, 1, 1, 1))


def _layer(name: str, layer: Layer, kernel: Tensor, bias: Tensor) -> Weights:
    """The layer with `kernel` in its first filters; its branches begin as nothing."""
    target, source = kernel.shape[:2]
    if target > layer.out_channels or source > layer.in_channels:
        raise ValueError(f"{target} filters do not fit into {layer.out_channels}")
    if layer.bias is None:
        raise ValueError("a layer of rt has a bias")
    weight, shift = layer.weight.detach().clone(), layer.bias.detach().clone()
    weight[:target], shift[:target] = 0, bias
    weight[:target, :source] = kernel
    return {
        f"{name}.weight": weight,
        f"{name}.bias": shift,
        f"{name}.squeeze": layer.squeeze.detach().clone(),
        f"{name}.spread": torch.zeros_like(layer.spread),
        f"{name}.same": torch.zeros_like(layer.same),
    }
