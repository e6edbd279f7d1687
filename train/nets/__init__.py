"""Define the networks in training form, the papers' and our own; `NETS` has settings by name.

Call a network as `net(lr, scale)`: float [N, C, H, W] in 0..1 -> [N, C, scale*H, scale*W], with
C = 3 (RGB) or 1 (full-range luma) according to `net.colour`, for any scale in `net.scales`.
"""

from dataclasses import asdict, replace
from typing import Any

from train.nets.carn import Carn, CarnConfig
from train.nets.common import bicubic
from train.nets.csrcnn import Csrcnn, CsrcnnConfig
from train.nets.dcscn import Dcscn, DcscnConfig
from train.nets.rt import Rt, RtConfig

Net = Carn | Dcscn | Csrcnn | Rt
Config = CarnConfig | DcscnConfig | CsrcnnConfig | RtConfig

_MOBILE = CarnConfig(groups=4, efficient=True, recursive=True)
_PCARN: dict[str, Any] = {"point_relu": False, "long_skip": True}

NETS: dict[str, Config] = {
    "carn": CarnConfig(),
    "carn-nl": CarnConfig(local_cascade=False),
    "carn-ng": CarnConfig(global_cascade=False),
    "carn-baseline": CarnConfig(local_cascade=False, global_cascade=False),
    "carn-m": _MOBILE,
    "pcarn": CarnConfig(**_PCARN),
    "pcarn-l1": CarnConfig(**_PCARN),
    "pcarn-m": replace(_MOBILE, **_PCARN),
    "pcarn-m-l1": replace(_MOBILE, **_PCARN),
    "dcscn": DcscnConfig(),
    "c-dcscn": DcscnConfig(features=(32, 26, 22, 18, 14, 11, 8), a1=24, b1=8, b2=8),
    "csrcnn": CsrcnnConfig(),
    "rt": RtConfig(),
}
"""Settings by name; `pcarn-l1`, `pcarn-m-l1`: PCARN and PCARN-M before adversarial training."""


def build(name: str, scales: tuple[int, ...] | None = None, **changes: Any) -> Net:
    """Build the training form of network `name`; `changes` override fields of its settings.

    Raises KeyError for an unknown name, TypeError for an unknown field, ValueError for scales that
    the network does not support.
    """
    if scales is not None:
        changes["scales"] = scales
    return from_config(replace(NETS[name], **changes))


def from_config(config: Config) -> Net:
    """Build the network with these settings."""
    match config:
        case CarnConfig():
            return Carn(config)
        case DcscnConfig():
            return Dcscn(config)
        case CsrcnnConfig():
            return Csrcnn(config)
        case RtConfig():
            return Rt(config)


def at_scale(net: Net, scale: int) -> Net:
    """Build a new network with only the parts `net` needs for one scale, to count parameters."""
    config = net.config
    if isinstance(config, CsrcnnConfig):
        depth = config.scales.index(scale) + 1
        return Csrcnn(replace(config, blocks=config.blocks[:depth], scales=config.scales[:depth]))
    if isinstance(config, RtConfig):  # the deploy form merges its other branches
        config = replace(config, expand=0, identity=False)
    return from_config(replace(config, scales=(scale,)))


def settings(net: Net) -> dict[str, Any]:
    """Return a network's settings as a dictionary, for a checkpoint."""
    return asdict(net.config)


__all__ = ["NETS", "Carn", "CarnConfig", "Config", "Csrcnn", "CsrcnnConfig", "Dcscn", "DcscnConfig",
           "Net", "Rt", "RtConfig", "at_scale", "bicubic", "build", "from_config",
           "settings"]  # fmt: skip
