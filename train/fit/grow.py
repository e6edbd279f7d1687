"""Initialise an rt with more filters, layers or other branches to a trained rt's function.

A wider layer keeps the old filters, with zero weights for new inputs. The new filters keep their
random initial weights, so that training can connect the others to them (as in Chen et al.,
"Net2Net", ICLR 2016, section 2.3, whose new filters are copies and need noise to diverge). A new
layer is an identity: its input is never negative after the preceding ReLU, so its own ReLU changes
nothing (section 2.4).
"""

import torch
from torch import Tensor

from train.nets import Rt
from train.nets.common import bias_of
from train.nets.rt import Layer, whole_kernel

Weights = dict[str, Tensor]


def grow_weights(net: Rt, weights: Weights) -> Weights:
    """Return weights for `net` that compute the same as `weights` of an rt that is not larger.

    Weights that already have the form of `net`, or are not of an rt, are returned unchanged; a last
    layer of another scale is left out. Raises ValueError for weights of a larger network, or whose
    layers do not fit together.
    """
    own = net.state_dict()
    body = [name for name in own if not name.startswith("last.")]
    if all(name in weights and weights[name].shape == own[name].shape for name in body):
        return weights
    kernels, biases = _merged_layers(weights)
    if not kernels:
        return weights
    if len(kernels) > len(net.stack):
        raise ValueError(f"{len(kernels)} layers do not fit into {len(net.stack)}")
    found: Weights = {}
    places = _layer_map(len(kernels), len(net.stack))
    width = 1  # number of old filters in the previous layer
    for k, layer in enumerate(net.stack):
        name = f"layers.{k}" if k < len(net.layers) else "last"
        if (old := places.get(k)) is None:
            kernel, bias = _identity_kernel(width), torch.zeros(width)
        else:
            kernel, bias = kernels[old], biases[old]
        if name == "last" and len(kernel) != layer.out_channels:  # another scale: it has scale**2
            continue
        found |= _layer(name, layer, kernel, bias)
        if kernel.shape[1] != width:
            raise ValueError(f"{name} reads {kernel.shape[1]} filters of {width}")
        width = len(kernel)
    return found


def _merged_layers(weights: Weights) -> tuple[list[Tensor], list[Tensor]]:
    """Return each layer's merged kernel and bias; empty lists if the weights are not of an rt."""
    layers = {name.split(".")[1] for name in weights if name.startswith("layers.")}
    if not layers or "last.weight" not in weights:
        return [], []
    kernels, biases = [], []
    for name in [*(f"layers.{k}" for k in range(len(layers))), "last"]:
        parts = (weights[f"{name}.{part}"] for part in ("weight", "squeeze", "spread", "same"))
        kernels.append(whole_kernel(*parts))
        biases.append(weights[f"{name}.bias"])
    return kernels, biases


def _layer_map(few: int, many: int) -> dict[int, int]:
    """Map new layers to old ones: first and last keep their role, the others are spread evenly."""
    inner = few - 2
    if inner < 1:
        return {**{k: k for k in range(few - 1)}, many - 1: few - 1}
    between = {1 + k * (many - 2) // inner: 1 + k for k in range(inner)}
    return {0: 0, **between, many - 1: few - 1}


def _identity_kernel(width: int) -> Tensor:
    """Return the identity kernel, [width, width, 3, 3]."""
    return torch.nn.functional.pad(torch.eye(width)[:, :, None, None], (1, 1, 1, 1))


def _layer(name: str, layer: Layer, kernel: Tensor, bias: Tensor) -> Weights:
    """Return the layer's weights with `kernel` in the first filters and branches without effect."""
    target, source = kernel.shape[:2]
    if target > layer.out_channels or source > layer.in_channels:
        raise ValueError(f"{target} filters do not fit into {layer.out_channels}")
    weight, shift = layer.weight.detach().clone(), bias_of(layer).detach().clone()
    weight[:target], shift[:target] = 0, bias
    weight[:target, :source] = kernel
    return {
        f"{name}.weight": weight,
        f"{name}.bias": shift,
        f"{name}.squeeze": layer.squeeze.detach().clone(),
        f"{name}.spread": torch.zeros_like(layer.spread),
        f"{name}.same": torch.zeros_like(layer.same),
    }
