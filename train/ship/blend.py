"""Interpolate between weights after a training and before it, for `python -m train blend`.

Wang et al., "ESRGAN" (ECCV Workshops 2018), section 3.4, network interpolation: the weights of a
network before and after an adversarial training can be averaged. A small share of the earlier
weights removes artefacts and keeps most of the detail.
"""

import logging
from pathlib import Path
from typing import Any

from train.errors import TrainError
from train.fit.checkpoint import load_averaged_net, rebuild_net, save_checkpoint
from train.ship.imports import load_into, read_weights
from train.ship.provenance import Stage, is_same

log = logging.getLogger(__name__)


def blend(checkpoint: Path, earlier: Path, share: float, output: Path) -> None:
    """Write `share` x the averaged weights of `checkpoint` + (1 - share) x `earlier`'s to `output`.

    `earlier` is a checkpoint or a shipped ONNX from which the training of `checkpoint` started. The
    output records the share and the number of stages between them. Raises TrainError if the
    training did not start from `earlier`.
    """
    saved, net = load_averaged_net(checkpoint)
    if saved.get("blend"):
        raise TrainError(f"{checkpoint} is already a blend")
    before = rebuild_net(saved)
    weights, history = read_weights(earlier, before)
    own = before.state_dict()
    # drop CARN's up-sampling for scales that this training lacks
    weights = {n: v for n, v in weights.items() if n in own or not n.startswith("upsample.")}
    load_into(before, weights, earlier)
    back = _stages_back(saved["history"], history)
    if back is None:
        raise TrainError(f"the training of {checkpoint} did not start from {earlier}")
    old = before.state_dict()
    mixed = {
        name: share * new + (1 - share) * old[name] if new.is_floating_point() else new
        for name, new in net.state_dict().items()
    }
    record: dict[str, Any] = {"share": share, "stages_back": back}
    save_checkpoint(output, {**saved, "net": mixed, "average": mixed, "blend": record})
    log.info("%s: %g of %s, %g of %s", output, share, checkpoint.name, 1 - share, earlier.name)


def _stages_back(history: list[Stage], earlier: list[Stage]) -> int | None:
    """Return the number of trainings after `earlier`, including the last, or None if unrelated."""
    index = len(earlier) - 1
    if not 0 <= index < len(history) or not is_same(history[index], earlier[index]):
        return None
    return len(history) - index
