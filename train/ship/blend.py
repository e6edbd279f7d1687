"""`python -m train blend`: weights between those of a training and those it came from.

Wang et al., "ESRGAN" (ECCV Workshops 2018), section 3.4, network interpolation: a network after an
adversarial training and the one it began as have weights that can be averaged. A little of the
latter takes away artefacts and keeps most of the detail.
"""

import logging
from pathlib import Path
from typing import Any

from train.errors import TrainError
from train.fit.checkpoint import averaged_net, rebuilt, save_checkpoint
from train.ship.imports import load_into, weights_from
from train.ship.provenance import Stage, is_same

log = logging.getLogger(__name__)


def blend(checkpoint: Path, former: Path, share: float, output: Path) -> None:
    """Write `share` x the averaged weights of `checkpoint` + (1 - share) x `former`'s to `output`.

    `former` is a checkpoint or a shipped ONNX that the training of `checkpoint` came from; how far
    back stands in the result, beside the share. Raises TrainError where it did not come from it.
    """
    saved, net = averaged_net(checkpoint)
    if saved.get("blend"):
        raise TrainError(f"{checkpoint} is a blend already")
    before = rebuilt(saved)
    weights, history = weights_from(former, before)
    own = before.state_dict()
    # CARN's up-sampling for scales that this training has not
    weights = {n: v for n, v in weights.items() if n in own or not n.startswith("upsample.")}
    load_into(before, weights, former)
    back = _stages_back(saved["history"], history)
    if back is None:
        raise TrainError(f"the training of {checkpoint} did not begin with {former}")
    old = before.state_dict()
    mixed = {
        name: share * new + (1 - share) * old[name] if new.is_floating_point() else new
        for name, new in net.state_dict().items()
    }
    told: dict[str, Any] = {"share": share, "stages_back": back}
    save_checkpoint(output, {**saved, "net": mixed, "average": mixed, "blend": told})
    log.info("%s: %g of %s, %g of %s", output, share, checkpoint.name, 1 - share, former.name)


def _stages_back(history: list[Stage], former: list[Stage]) -> int | None:
    """Trainings between two files, the later one's own with them; None: not of one chain."""
    index = len(former) - 1
    if not 0 <= index < len(history) or not is_same(history[index], former[index]):
        return None
    return len(history) - index
