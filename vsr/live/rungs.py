"""The networks of a ladder, loaded and warm, and what becomes of one that fails."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

import numpy as np

from vsr import models
from vsr.backends import Backend
from vsr.colour import Colour
from vsr.errors import BackendError, UsageError, VsrError
from vsr.frame import Frame, Planes, now
from vsr.graph import PlaneFormat
from vsr.upscaler import Upscaler

log = logging.getLogger(__name__)

_WARM_UPS: Final = 4
"""Pictures before a rung is timed: kernels are chosen and memory is touched in them."""
_FAILURES: Final = 3
"""Failures of one rung after which it is not loaded again."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What every rung has in common: the picture that goes in, and the factor."""

    size: tuple[int, int]
    colour: Colour
    scale: int | None
    precision: str = "auto"


@dataclass
class _Rung:
    name: str
    model: models.Model
    upscaler: Upscaler
    cost: float
    """Seconds a picture took when it was warm."""
    failures: int = 0
    lost: bool = field(default=False)


class Rungs:
    """The engines of a ladder, best first, bicubic last. Not thread-safe."""

    def __init__(self, names: Sequence[str], backend: Backend, stage: Stage) -> None:
        """Load and warm every network; raises UsageError or BackendError for one that cannot be.

        Without a scale, the first network's least decides for all.
        """
        self._backend, self._stage = backend, stage
        self._rungs: list[_Rung] = []
        scale = stage.scale
        for name in dict.fromkeys([*names, models.BICUBIC]):
            model = models.find(name, scale, backend, stage.precision)
            scale = model.scale
            self._rungs.append(self._load(name, model))
        self.scale = scale or 1
        self.out_size = self._rungs[0].upscaler.out_size

    @property
    def names(self) -> list[str]:
        """Best first."""
        return [rung.name for rung in self._rungs]

    @property
    def costs(self) -> list[float]:
        """Seconds a picture, measured when they were loaded."""
        return [rung.cost for rung in self._rungs]

    def enlarge(self, frame: Frame, rung: int) -> tuple[Frame, bool]:
        """The frame by that rung, or by bicubic where it fails; and whether it is lost for good.

        A failing engine is loaded again, but not for ever.
        """
        at = self._rungs[rung]
        try:
            if not at.lost:
                return next(iter(at.upscaler.process([frame]))), False
        except BackendError as exc:
            at.failures += 1
            log.warning("%s failed on a picture, which bicubic enlarges: %s", at.name, exc)
            self._reload(at)
        frame.stamps.infer_start = 0.0
        frame.event = frame.event or "fallback"
        return next(iter(self._rungs[-1].upscaler.process([frame]))), at.lost

    def _reload(self, rung: _Rung) -> None:
        if rung is self._rungs[-1]:
            raise BackendError("bicubic failed too: the device is gone")
        if rung.failures >= _FAILURES:
            rung.lost = True
            log.error("%s failed %d times and is given up", rung.name, rung.failures)
            return
        try:
            rung.upscaler = self._new_upscaler(rung.model)
        except VsrError as exc:
            rung.lost = True
            log.error("%s cannot be loaded again and is given up: %s", rung.name, exc)

    def _load(self, name: str, model: models.Model) -> _Rung:
        upscaler = self._new_upscaler(model)
        times = []
        for _ in range(_WARM_UPS):
            began = now()
            next(iter(upscaler.process([self._grey()])))
            times.append(now() - began)
        log.debug("%s: %.1f ms a picture", name, 1000 * min(times))
        return _Rung(name, model, upscaler, min(times))

    def _new_upscaler(self, model: models.Model) -> Upscaler:
        return Upscaler(model, self._backend, self._stage.colour, self._stage.size)

    def _grey(self) -> Frame:
        return Frame(
            planes=grey(*self._stage.size), index=0, pts=0, time_base=Fraction(1), duration=0
        )


def grey(width: int, height: int) -> Planes:
    """A picture of one colour."""
    chroma = PlaneFormat().chroma(width, height)[::-1]
    return (
        np.full((height, width), 128, np.uint8),
        np.full(chroma, 128, np.uint8),
        np.full(chroma, 128, np.uint8),
    )


def default_ladder(model: str, scale: int | None) -> list[str]:
    """The model asked for, then every lighter built-in one of its scale, by MultAdds.

    Weights for compressed video stand in for those for clean pictures where both are there.
    """
    entries = models.manifest()
    if model not in entries:
        return [model]
    wanted = f"x{scale or min(models.scales(model))}"
    own = entries[model].get(wanted)
    if own is None:
        raise UsageError(f"model '{model}' has no scale {wanted.removeprefix('x')}")
    lighter = {
        name: entry[wanted]["multadds_720p"]
        for name, entry in entries.items()
        if wanted in entry and entry[wanted]["multadds_720p"] < own["multadds_720p"]
        if f"{name}-stream" not in entries or wanted not in entries[f"{name}-stream"]
    }
    return [model, *sorted(lighter, key=lighter.__getitem__, reverse=True)]
