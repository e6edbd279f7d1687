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
from vsr.media.limits import processors
from vsr.media.plane_format import YUV420, PlaneFormat
from vsr.plan.choice import HEADROOM
from vsr.plan.figures import Figures, network_key

log = logging.getLogger(__name__)
_DOUBT: Final = 2.0
"""Largest ratio of estimated to allowed time at which a network is still loaded, if the estimate is
from its MultAdds: some processors compute wide layers faster than narrow ones."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """Speed requirement for a better network, at one frame size and frame rate.

    The first `better` entries of `found` are optional networks, best first; the next one is the
    default. This class loads and measures nothing.
    """

    found: Sequence[Model]
    better: int
    interval: float
    """Frame interval, in seconds."""
    size: tuple[int, int]
    planes: PlaneFormat = YUV420

    @property
    def allowed(self) -> float:
        """Time that a frame may take, in seconds; the rest of the interval is headroom."""
        return self.interval / HEADROOM

    def may_hold(self, place: int, usual_cost: float, backend: Backend) -> bool:
        """Return whether a network is worth loading, from the time that `vsr plan` or `vsr run`
        measured, else from its MultAdds and the default network's `usual_cost` (s/frame)."""
        model = self.found[place]
        key = network_key(for_bit_depth(model, self.planes), backend, self.size, self.planes)
        if (known := Figures().known(key)) is not None:
            likely, doubt = known.alone_ms(processors()) / 1000, 1.0
        else:
            likely, doubt = usual_cost * _work(model) / _work(self.found[self.better]), _DOUBT
        if likely <= doubt * self.allowed:
            return True
        self._refused(place, likely, "about ")
        return False

    def holds(self, place: int, cost: float) -> bool:
        """Return whether to use a loaded network that takes `cost` seconds per frame."""
        if cost > self.allowed:
            self._refused(place, cost)
            return False
        log.info(
            "model %s: the best network; it takes %.1f of the %.1f ms between two pictures here"
            " (--model takes another)", self.found[place].name, 1000 * cost, 1000 * self.interval,
        )  # fmt: skip
        return True

    def _refused(self, place: int, cost: float, about: str = "") -> None:
        log.info(
            "model %s: %s would take %s%.1f of the %.1f ms between two pictures here, too much with"
            " room to spare (--model takes another)",
            self.found[place + 1].name, self.found[place].name, about, 1000 * cost,
            1000 * self.interval,
        )  # fmt: skip


def _work(model: Model) -> float:
    return float(manifest()[model.name][f"x{model.scale}"]["multadds_720p"])
