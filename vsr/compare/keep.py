"""Keeps the pictures of a few moments: the worst ones and one of median quality."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from vsr.compare.scores import Scored

WORST: Final = 4
"""Number of moments with the lowest PSNR that are kept."""
_SAMPLES: Final = 9
"""Maximum number of evenly spaced moments; the one nearest to the median PSNR is shown."""
APART_S: Final = 0.5
"""Minimum time between two of the worst moments, in seconds, so that they show several scenes."""


@dataclass(frozen=True)
class Moment:
    """The pictures of one time, the reference first; `psnr` is the lowest of the others, in dB."""

    index: int
    time: float
    psnr: float
    scored: tuple[Scored, ...]
    kind: str = "worst"


@dataclass
class Keeper:
    """Selects moments as frames arrive, and holds few pictures. Use from one thread."""

    worst: int = WORST
    _worst: list[Moment] = field(default_factory=list)
    _samples: list[Moment] = field(default_factory=list)
    _every: int = 1
    _all: list[float] = field(default_factory=list)

    def see(self, index: int, time: float, scored: tuple[Scored, ...]) -> None:
        """Process the next moment; keep its pictures if it is one of the worst or a sample."""
        psnr = min(each.values["psnr"] for each in scored[1:])
        moment = Moment(index, time, psnr, scored)
        self._all.append(psnr)
        self._see_worst(moment)
        if index % self._every == 0:
            self._samples.append(moment)
            if len(self._samples) > _SAMPLES:
                self._samples = self._samples[::2]
                self._every *= 2

    def _see_worst(self, moment: Moment) -> None:
        near = [m for m in self._worst if moment.time - m.time < APART_S]
        if any(m.psnr <= moment.psnr for m in near):
            return
        kept = [m for m in self._worst if m not in near] + [moment]
        self._worst = sorted(kept, key=lambda m: m.psnr)[: self.worst]

    def moments(self) -> list[Moment]:
        """Return the worst moments, the worst first, then the one nearest to the median."""
        if not self._samples:
            return []
        median = float(np.median(_finite(self._all)))
        middle = min(self._samples, key=lambda m: abs(min(m.psnr, _EQUAL) - median))
        named = Moment(middle.index, middle.time, middle.psnr, middle.scored, "median")
        others = [m for m in self._worst if m.index != middle.index]
        return [*others, named]


_EQUAL: Final = 100.0
"""PSNR, in dB, that replaces the infinite PSNR of equal pictures in the median."""


def _finite(values: Sequence[float]) -> list[float]:
    return [min(value, _EQUAL) for value in values]
