"""Decides, for a relay that was asked for no network, whether a better one than the usual is fast
enough here."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vsr.inference.backend import Backend
from vsr.inference.depth import for_planes
from vsr.inference.models import Model, manifest
from vsr.media.limits import processors
from vsr.media.plane_format import YUV420, PlaneFormat
from vsr.plan.choice import HEADROOM
from vsr.plan.figures import Figures, network_key

log = logging.getLogger(__name__)
_DOUBT: Final = 2.0
"""Times the time allowed that a network may seem to take by its multiplications, and be tried: some
processors compute wide layers faster than narrow ones."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """What a better network has to reach: its pictures of one size, at one rate.

    The first `better` of `found` are those that nobody asked for, best first; the one behind them
    is the usual. Nothing is loaded or measured here.
    """

    found: Sequence[Model]
    better: int
    interval: float
    """Seconds between two pictures."""
    size: tuple[int, int]
    planes: PlaneFormat = YUV420

    @property
    def allowed(self) -> float:
        """Seconds that a picture may take: the rest is room to spare."""
        return self.interval / HEADROOM

    def may_hold(self, place: int, usual_cost: float, backend: Backend) -> bool:
        """Whether a network is worth loading: by what `vsr plan` or `vsr run` measured, else by its
        work, where the usual network's picture takes `usual_cost` seconds."""
        model = self.found[place]
        key = network_key(for_planes(model, self.planes), backend, self.size, self.planes)
        if (known := Figures().known(key)) is not None:
            likely, doubt = known.alone_ms(processors()) / 1000, 1.0
        else:
            likely, doubt = usual_cost * _work(model) / _work(self.found[self.better]), _DOUBT
        if likely <= doubt * self.allowed:
            return True
        self._refused(place, likely, "about ")
        return False

    def holds(self, place: int, cost: float) -> bool:
        """Whether a loaded network, whose picture takes `cost` seconds, is used."""
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
