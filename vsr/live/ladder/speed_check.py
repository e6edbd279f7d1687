"""Decides whether a better network than the default is fast enough on this computer.

Used for relays without a configured network.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vsr.inference.backend import Backend
from vsr.inference.depth import for_bit_depth
from vsr.inference.models import Model, manifest
from vsr.media.limits import processor_count
from vsr.media.plane_format import YUV420, PlaneFormat
from vsr.plan.choice import HEADROOM
from vsr.plan.cost_cache import CostCache, network_key

log = logging.getLogger(__name__)
_MAX_ESTIMATE_RATIO: Final = 2.0
"""Largest ratio of estimated to allowed time at which a network is still loaded, if the estimate is
from its MultAdds, as some processors compute wide layers faster than narrow ones, or from a
measurement on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class SpeedCheck:
    """Speed requirement for a better network, at one frame size and frame rate.

    The first `optional_count` entries of `found` are optional networks, best first; the next one is
    the default. This class loads and measures nothing.
    """

    found: Sequence[Model]
    optional_count: int
    interval_s: float
    """Frame interval, in seconds."""
    size: tuple[int, int]
    planes: PlaneFormat = YUV420

    @property
    def allowed_s(self) -> float:
        """Time that a frame may take, in seconds; the rest of the interval is headroom."""
        return self.interval_s / HEADROOM

    def is_worth_loading(self, index: int, default_cost_s: float, backend: Backend) -> bool:
        """Return whether a network is worth loading, from the time that `vsr plan` or `vsr run`
        measured, else from its MultAdds and the default network's `default_cost_s` (s/frame)."""
        model = self.found[index]
        key = network_key(for_bit_depth(model, self.planes), backend, self.size, self.planes)
        costs, max_ratio, how = CostCache(), _MAX_ESTIMATE_RATIO, ""
        if (known := costs.known(key)) is not None:
            estimate_s, max_ratio = known.alone_ms(processor_count()) / 1000, 1.0
        elif (busy := costs.estimate(key)) is not None:
            estimate_s = busy.alone_ms(processor_count()) / 1000
            how = " (estimated: measured while the machine was busy)"
        else:
            work = _multadds(model) / _multadds(self.found[self.optional_count])
            estimate_s = default_cost_s * work
            how = " (estimated from its multiply-adds; vsr plan measures it)"
        if estimate_s <= max_ratio * self.allowed_s:
            return True
        self._log_too_slow(index, estimate_s, "about ", how)
        return False

    def is_fast_enough(self, index: int, cost_s: float) -> bool:
        """Return whether to use a loaded network that takes `cost` seconds per frame."""
        if cost_s > self.allowed_s:
            self._log_too_slow(index, cost_s)
            return False
        log.info(
            "model %s: the best network that is fast enough here: %.1f ms per frame, frame interval"
            " %.1f ms (choose another with --model)",
            self.found[index].name, 1000 * cost_s, 1000 * self.interval_s,
        )  # fmt: skip
        return True

    def _log_too_slow(self, index: int, cost_s: float, prefix: str = "", how: str = "") -> None:
        log.info(
            "model %s: %s takes %s%.1f ms per frame here%s, which exceeds the limit of 1/%g of the"
            " frame interval of %.1f ms (choose another with --model)",
            self.found[index + 1].name, self.found[index].name, prefix, 1000 * cost_s, how,
            HEADROOM, 1000 * self.interval_s,
        )  # fmt: skip


def _multadds(model: Model) -> float:
    return float(manifest()[model.name][f"x{model.scale}"]["multadds_720p"])
