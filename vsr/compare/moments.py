"""Selects a few moments and keeps their pictures: the worst ones and one of median quality."""

import math
from array import array
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from vsr.compare.scores import ScoredPicture

MAX_WORST: Final = 4
"""Number of moments with the lowest PSNR that are kept."""
_MAX_SAMPLES: Final = 9
"""Maximum number of evenly spaced moments; the one nearest to the median PSNR is shown."""
MIN_DISTANCE_S: Final = 0.5
"""Minimum time between two of the worst moments, in seconds, so that they show several scenes."""
_IDENTICAL_DB: Final = 100.0
"""PSNR, in dB, that replaces higher ones in the median, and the infinite one of equal pictures."""
_BIN_DB: Final = 0.01
"""Width of a bin of the histogram, in dB: the median is exact to half of it."""
_BINS: Final = round(_IDENTICAL_DB / _BIN_DB) + 1


@dataclass(frozen=True)
class Moment:
    """The pictures of one time, the reference first; `psnr` is the lowest of the others, in dB."""

    index: int
    time: float
    psnr: float
    scored: tuple[ScoredPicture, ...]
    kind: str = "worst"


class _PsnrHistogram:
    """Counts PSNR values in bins, so that a long comparison needs no more memory than a short one.

    Values below 0 dB count as 0, values above `_IDENTICAL_DB` as that.
    """

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * _BINS))

    def add(self, psnr: float) -> None:
        """Count a value."""
        self._counts[round(min(max(0.0, psnr), _IDENTICAL_DB) / _BIN_DB)] += 1

    def median(self) -> float:
        """Return the median in dB; of an even number of values, the mean of the middle two."""
        counts_up_to = np.cumsum(np.frombuffer(self._counts, np.int64))
        last = int(counts_up_to[-1]) - 1
        middle = [last // 2, math.ceil(last / 2)]
        return float(np.searchsorted(counts_up_to, middle, side="right").mean()) * _BIN_DB


@dataclass
class MomentSelector:
    """Selects moments as frames arrive, in bounded memory. Use from one thread."""

    max_worst: int = MAX_WORST
    _worst: list[Moment] = field(default_factory=list)
    _samples: list[Moment] = field(default_factory=list)
    _sample_interval: int = 1
    """Number of frames from one sample to the next."""
    _psnr: _PsnrHistogram = field(default_factory=_PsnrHistogram)

    def add(self, index: int, time: float, scored: tuple[ScoredPicture, ...]) -> None:
        """Process the next moment; keep its pictures if it is one of the worst or a sample."""
        psnr = min(each.values["psnr"] for each in scored[1:])
        moment = Moment(index, time, psnr, scored)
        self._psnr.add(psnr)
        self._add_worst(moment)
        if index % self._sample_interval == 0:
            self._samples.append(moment)
            if len(self._samples) > _MAX_SAMPLES:
                self._samples = self._samples[::2]
                self._sample_interval *= 2

    def _add_worst(self, moment: Moment) -> None:
        near = [m for m in self._worst if moment.time - m.time < MIN_DISTANCE_S]
        if any(m.psnr <= moment.psnr for m in near):
            return
        kept = [m for m in self._worst if m not in near] + [moment]
        self._worst = sorted(kept, key=lambda m: m.psnr)[: self.max_worst]

    def moments(self) -> list[Moment]:
        """Return the worst moments, the worst first, then the one nearest to the median."""
        if not self._samples:
            return []
        median = self._psnr.median()
        middle = min(self._samples, key=lambda m: abs(min(m.psnr, _IDENTICAL_DB) - median))
        named = Moment(middle.index, middle.time, middle.psnr, middle.scored, "median")
        others = [m for m in self._worst if m.index != middle.index]
        return [*others, named]
