"""One rung of a ladder, and which of the measured ones are worth keeping."""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from vsr.inference.backend import Backend
from vsr.inference.models import Model
from vsr.inference.upscaler import Upscaler

log = logging.getLogger(__name__)

_MIN_RATIO: Final = 1.5
"""Ratio to the cost of a better rung from which a rung is not used."""


@dataclass
class Rung:
    """A network of a ladder, its engine and what was measured of it."""

    model: Model
    backend: Backend
    """Current backend: OpenVINO while the engine is being built."""
    upscaler: Upscaler | None = None
    """None: not loaded yet, being loaded again, or lost."""
    cost: float = math.inf
    """Seconds per frame after warm-up; infinite until measured."""
    failures: int = 0
    good_frames: int = 0
    """Number of frames since the last failure."""
    disabled: bool = False


def disable_slower(rungs: Iterable[Rung]) -> None:
    """Disable every rung, best first, that takes much longer than a better one: it gains nothing.

    Costs of a start vary, so that a rung that seems a little slower may be the faster one.
    The caller leaves out bicubic, which must stay. Rungs that are not measured yet do not count,
    nor does OpenVINO beside an engine of the GPU: it is in use until the rung's own is built.
    """
    above: Rung | None = None
    for rung in rungs:
        if rung.disabled or math.isinf(rung.cost):
            continue
        if above is None or rung.cost < _MIN_RATIO * above.cost:
            above = rung if above is None or rung.cost < above.cost else above
            continue
        if rung.backend is not above.backend:
            continue
        log.info(
            "%s is not used: it takes %.1f ms per frame here, and %s above it %.1f ms",
            rung.model.name, 1000 * rung.cost, above.model.name, 1000 * above.cost,
        )  # fmt: skip
        rung.disabled, rung.upscaler, rung.cost = True, None, math.inf
