"""Sizes of networks counted as their papers count them, beside the papers' figures.

MultAdds (CARN, PCARN): multiplications of all trained convolutions for a 1280x720 output; at x3 for
1280 * 720 / 9 LR pixels. Complexity (DCSCN, section 4.3): every weight, bias and slope is used once
per LR pixel, so it equals the number of parameters. CSRCNN's Tables IV and VI give the parameters
of the levels up to a scale; layers that its text does not name are chosen so that they agree
(train/nets/csrcnn.py).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from train.nets import (
    NETS,
    CarnConfig,
    Csrcnn,
    CsrcnnConfig,
    Dcscn,
    Net,
    Rt,
    RtConfig,
    at_scale,
    build,
    from_config,
)

OUTPUT_PIXELS: Final = 1280 * 720
_INPUT_SIDE: Final = 24  # LR pixels; a multiple of 4, so that strided layers come out even


def parameters(net: nn.Module) -> int:
    """Return the number of trained values; the mean shifts are fixed and not counted."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def multadds(net: Net, scale: int, output: int = OUTPUT_PIXELS) -> int:
    """Return the multiplications of all trained convolutions for `output` HR pixels."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor], result: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        kernel = math.prod(module.kernel_size)
        if isinstance(module, nn.ConvTranspose2d):
            total += inputs[0].numel() * kernel * module.out_channels // module.groups
        else:
            total += result.numel() * kernel * module.in_channels // module.groups

    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    layers = [m for m in net.modules() if isinstance(m, kinds) and m.weight.requires_grad]
    hooks = [m.register_forward_hook(count) for m in layers]
    with torch.inference_mode():
        net(torch.zeros(1, 1 if net.colour == "y" else 3, _INPUT_SIDE, _INPUT_SIDE), scale)
    for hook in hooks:
        hook.remove()
    return round(total / _INPUT_SIDE**2 * output / scale**2)


def receptive_field_radius(net: Net, scale: int) -> int:
    """Return the radius, in LR pixels, within which inputs affect a pixel, found by gradients."""
    config = net.config  # with fewer channels, which are all alike: the same radius for less work
    if isinstance(config, CarnConfig):
        config = replace(config, channels=1, groups=1)
    elif isinstance(config, CsrcnnConfig):
        config = replace(config, channels=1)
    elif isinstance(config, RtConfig):
        config = replace(config, width=1, expand=0, identity=False)
    twin = from_config(config).double().eval()
    for parameter in twin.parameters():
        nn.init.constant_(parameter, 1e-2 if parameter.dim() > 1 else 0.5)
    width = 65
    while (
        radius := max(_radius_in_strip(twin, scale, width, c) for c in range(4))
    ) >= width // 2 - 4:
        width = 2 * width - 1
    return radius


def _radius_in_strip(twin: Net, scale: int, width: int, off: int) -> int:
    """Return the radius in a strip, as it is equal in both directions. `off`: grid position, for
    strided layers."""
    channels, height = 1 if twin.colour == "y" else 3, 2
    x = torch.ones(1, channels, height, width, dtype=torch.float64, requires_grad=True)
    centre = width // 2 // 4 * 4 + off
    block = twin(x, scale)[..., centre * scale : (centre + 1) * scale]
    block.sum().backward()
    assert x.grad is not None
    columns = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    return int(max(centre - columns.min(), columns.max() - centre))


@dataclass(frozen=True)
class Size:
    """One line of `info`: our figure beside the paper's."""

    name: str
    scales: str
    what: str
    ours: float
    paper: float | None
    note: str = ""


_K, _G = 1e3, 1e9
_PAPERS: Final[dict[str, Any]] = {
    "carn": (1592, {2: 222.8, 3: 118.8, 4: 90.9}),
    "carn-nl": (1481, {}),
    "carn-ng": (1555, {}),
    "carn-baseline": (1444, {}),
    "carn-m": (412, {2: 91.2, 3: 46.1, 4: 32.5}),
    "pcarn": (1600, {4: 90.9}),
    "pcarn-m": (400, {4: 32.5}),
    "dcscn": (None, {2: 244.1}),
    "c-dcscn": (None, {2: 26.1}),
}
"""Parameters in thousands, and MultAdds by scale in 1e9 (DCSCN: complexity in thousands)."""


def sizes() -> Iterator[Size]:
    """Yield every network and scale, as `python -m train info` prints them."""
    for name in NETS:
        if name.endswith("-l1"):
            continue  # the same network as without the suffix
        count, work = _PAPERS.get(name, (None, {}))
        if isinstance(net := build(name), Rt):
            yield from (_own_network_line(name, scale) for scale in (2, 3, 4))
            continue
        if isinstance(net, Dcscn):
            yield from (_complexity_line(name, scale, work.get(scale)) for scale in (2, 3, 4))
            continue
        if not isinstance(net, Csrcnn):
            yield _parameter_line(name, net, count)
        for scale in net.scales:
            ours = multadds(net, scale) / _G
            yield Size(name, f"x{scale}", "MultAdds, G", ours, work.get(scale))
    yield from _pcarn_table_1()
    yield from _csrcnn_tables()


def _parameter_line(name: str, net: Net, paper: int | None) -> Size:
    scales = ", ".join(f"x{s}" for s in net.scales)
    ours, note = parameters(net), ""
    if name in ("carn-m", "pcarn-m"):  # the paper leaves out biases here, though not for CARN
        everything, ours = ours, _weight_count(net)
        note = f"convolution weights without biases, mean shifts included; all: {everything:,}"
    if name.startswith("pcarn"):
        note += "; " * bool(note) + "the paper gives millions with one digit"
    return Size(name, scales, "parameters, K", ours / _K, paper, note)


def _weight_count(net: nn.Module) -> int:
    return sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d))


def _own_network_line(name: str, scale: int) -> Size:
    net = at_scale(build(name, (scale,)), scale)
    note = f"{multadds(net, scale) / _G:.1f}G MultAdds; our own network"
    return Size(name, f"x{scale}", "parameters, K", parameters(net) / _K, None, note)


def _complexity_line(name: str, scale: int, paper: float | None) -> Size:
    net = build(name, (scale,))
    note = f"{multadds(net, scale) / _G:.1f}G MultAdds as CARN counts"
    return Size(name, f"x{scale}", "complexity, K", parameters(net) / _K, paper, note)


def _pcarn_table_1() -> Iterator[Size]:
    """Yield PCARN's ablations at x4: cascades, no ReLU after the 1x1 convolutions, the long skip.

    The last two add no parameters: the rows after the fourth have its size. The paper truncates to
    thousands (1,111.9K is its 1,111K).
    """
    both = {"local_cascade": True, "global_cascade": True}
    for words, paper, changes in (
        ("baseline", 963, {"local_cascade": False, "global_cascade": False}),
        ("global", 1000, {"local_cascade": False, "global_cascade": True}),
        ("local", 1074, {"local_cascade": True, "global_cascade": False}),
        ("both", 1111, both),
        ("no ReLU", 1111, {**both, "point_relu": False}),
        ("long skip", 1111, {**both, "long_skip": True}),
        ("pcarn", 1111, {**both, "point_relu": False, "long_skip": True}),
    ):
        ours = parameters(build("carn", (4,), **changes)) / _K
        yield Size(
            f"table 1 {words}", "x4", "parameters, K", ours, paper, "PCARN; truncated, not rounded"
        )


def _csrcnn_tables() -> Iterator[Size]:
    """Yield CSRCNN's Table VI, Table IV's symmetric rows, and the size of one block from these."""
    for scale, paper in ((2, 1549), (4, 3059), (8, 4568)):
        ours = parameters(at_scale(build("csrcnn"), scale)) / _K
        yield Size("csrcnn", f"x{scale}", "parameters, K", ours, paper, "Table VI")
    found = []
    for blocks, paper in ((4, 3059), (3, 2583)):
        net = Csrcnn(CsrcnnConfig(blocks=(blocks, blocks), scales=(2, 4)))
        found.append(parameters(net) / _K)
        code = f"U{blocks}TR1 U{blocks}TR1"
        yield Size(f"csrcnn {code}", "x2, x4", "parameters, K", found[-1], paper, "Table IV")
    step = (found[0] - found[1]) / 2
    yield Size("csrcnn BP-U", "", "parameters, K", step, 238, "fourth block, Table IV")


def table() -> str:
    """Return `sizes` as a text table."""
    head = f"{'network':<22} {'scale':<11} {'figure':<14} {'ours':>10} {'paper':>8}  note"
    lines = [
        f"{s.name:<22} {s.scales:<11} {s.what:<14} {s.ours:>10,.1f} "
        f"{'' if s.paper is None else format(s.paper, ',.1f'):>8}  {s.note}"
        for s in sizes()
    ]
    return "\n".join([head, *(line.rstrip() for line in lines), "", (__doc__ or "").strip()])
