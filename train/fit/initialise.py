"""Initialise weights by named methods, because the papers use and compare different ones.

`INITS` maps a name to a function that initialises one convolution; `initialise` applies it to all
trained ones. Weights depend on the fan-in, the number of inputs of one output value: input channels
of the group times kernel height times kernel width (for a transposed convolution, as in torch:
*output* channels times kernel area).

- `carn`: Ahn, Kang, Sohn, ECCV 2018 (arXiv:1803.08664), section 4.2: weights and biases
  U(-k, k), k = 1 / sqrt(c_in). In its text c_in is the number of input channels alone, without the
  kernel's area and before grouping, and so it is here: three times the spread of `torch` for 3x3,
  which impairs the first steps of a training.
- `torch`: PyTorch's default, weights and biases U(-k, k), k = 1 / sqrt(fan-in). The public code
  of CARN (nmhkahn/CARN-pytorch) uses it.
- `he`: He et al., ICCV 2015 (arXiv:1502.01852), equation 10: N(0, 2 / fan-in), biases 0; used by
  DCSCN and CSRCNN. (DCSCN's public code truncates at two deviations: 12 % less spread.)
- The six of the comparison in PCARN (arXiv:1903.02240, Table 3), as in nmhkahn/PCARN-pytorch,
  carnpp/init.py, biases 0: `default` U(+-sqrt(1 / fan-in)), with which PCARN is trained,
  `msra-uniform` U(+-sqrt(6 / fan-in)), `msra-normal` N(0, 2 / fan-in), the same as `he`; each also
  times 0.1.
"""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from train.errors import TrainError

Convolution = nn.Conv2d | nn.ConvTranspose2d


def _carn(conv: Convolution) -> None:
    bound = 1 / math.sqrt(conv.in_channels)
    for values in _trained(conv):
        nn.init.uniform_(values, -bound, bound)


def _torch(conv: Convolution) -> None:
    bound = 1 / math.sqrt(conv.weight[0].numel())
    for values in _trained(conv):
        if values is conv.weight:
            _DEFAULT(values)
        else:
            nn.init.uniform_(values, -bound, bound)


def _scaled(draw: Callable[[Tensor], Tensor], factor: float) -> Callable[[Convolution], None]:
    """Return an initialiser: weights filled by `draw`, times `factor`; biases 0."""

    def fill(conv: Convolution) -> None:
        for values in _trained(conv):
            if values is conv.bias:
                nn.init.zeros_(values)
            else:
                draw(values)
                values.data.mul_(factor)

    return fill


def _trained(conv: Convolution) -> list[Tensor]:
    """Return weight and bias if they exist and are trained."""
    return [p for p in (conv.weight, conv.bias) if p is not None and p.requires_grad]


_DEFAULT = partial(nn.init.kaiming_uniform_, a=math.sqrt(5))

INITS: dict[str, Callable[[Convolution], None]] = {
    "carn": _carn,
    "default": _scaled(_DEFAULT, 1.0),
    "default-0.1": _scaled(_DEFAULT, 0.1),
    "he": _scaled(nn.init.kaiming_normal_, 1.0),
    "msra-normal": _scaled(nn.init.kaiming_normal_, 1.0),
    "msra-normal-0.1": _scaled(nn.init.kaiming_normal_, 0.1),
    "msra-uniform": _scaled(nn.init.kaiming_uniform_, 1.0),
    "msra-uniform-0.1": _scaled(nn.init.kaiming_uniform_, 0.1),
    "torch": _torch,
}


def initialise(net: nn.Module, kind: str) -> None:
    """Initialise weights and biases of every trained convolution with torch's global generator.

    Frozen convolutions (mean shifts, for example), PReLU slopes and batch norm stay unchanged.
    Raises TrainError for an unknown kind.
    """
    if kind not in INITS:
        raise TrainError(f"unknown initialisation '{kind}'; choose one of: {', '.join(INITS)}")
    for module in net.modules():  # yields a shared block only once
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            INITS[kind](module)
