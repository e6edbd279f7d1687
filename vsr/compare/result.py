"""What a comparison found: facts of the videos, figures of every frame, pictures of a few."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vsr.compare.keep import Moment
from vsr.media.colour import Colour

SCHEMA: Final = "vsr-compare/1"
MEASURES: Final = {
    "psnr": 2,
    "psnr_y": 2,
    "ssim": 4,
    "xpsnr": 2,
    "vmaf": 2,
    "lpips": 4,
    "flicker": 3,
}
"""Name -> digits after the point."""
_BAD_ABOVE: Final = ("lpips",)
"""Measures whose high values are bad: they have `max`, `p99` and `p95` instead."""
PERCENTILES: Final = (1, 5, 50)
"""Of measures whose low values are bad: half of all frames, and the worst twentieth and hundredth,
begin there."""


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """One of the videos, as a person tells it from the others."""

    name: str
    size: tuple[int, int]
    rate: Fraction
    codec: str
    pixel_format: str
    seconds: float
    """Of the whole file, or of what was compared where its length is unknown."""
    bytes: int | None = None
    """Of the file; None where there is none (a URL)."""
    ms_per_frame: float | None = None
    """What a network took for a frame; of candidates only."""


@dataclass(frozen=True)
class Row:
    """The figures of one time: for each compared video, and the flicker of the reference."""

    time: float
    values: tuple[dict[str, float], ...]
    reference_flicker: float | None


@dataclass(kw_only=True)
class Comparison:
    """Everything that `vsr compare` tells. `as_json()` is the .json output."""

    reference: VideoFacts
    videos: Sequence[VideoFacts]
    size: tuple[int, int]
    """Width and height at which pictures were compared."""
    peak: int
    """Highest code of a plane."""
    original: bool
    """Whether the reference is the original (`--reference`), not one of equals."""
    rows: list[Row] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    alone: Sequence[int] = ()
    """Frames without a partner, of the reference and of each video."""
    colours: Sequence[Colour] = ()
    """Of the pictures in `moments`, the reference's first."""

    def series(self, video: int, measure: str) -> npt.NDArray[np.float64]:
        """A measure of every frame; NaN where there is none."""
        return np.array([row.values[video].get(measure, math.nan) for row in self.rows])

    def measures(self) -> list[str]:
        """The measures that there are, in the order of MEASURES."""
        found = {name for row in self.rows for values in row.values for name in values}
        return [name for name in MEASURES if name in found]

    def totals(self, video: int) -> dict[str, dict[str, float | None]]:
        """Mean, minimum and percentiles of each measure. The mean PSNR is that of the mean squared
        error, as FFmpeg states it."""
        found = {}
        for name in self.measures():
            values = self.series(video, name)
            values = values[~np.isnan(values)]
            if not len(values):
                continue
            found[name] = {
                "mean": _number(self._mean(video, name, values), name),
                **{key: _number(value, name) for key, value in _worst_of(values, name).items()},
            }
        return found

    def _mean(self, video: int, name: str, values: npt.NDArray[np.float64]) -> float:
        if name != "psnr":
            return float(values.mean())
        error = float(np.nanmean(self.series(video, "mse")))
        return 10 * math.log10(self.peak**2 / error) if error else math.inf

    def reference_flicker(self) -> float | None:
        """The mean over all frames, in codes of 8 bits; None for a single frame."""
        values = [row.reference_flicker for row in self.rows if row.reference_flicker is not None]
        return float(np.mean(values)) if values else None

    def as_json(self) -> dict[str, Any]:
        """Figures only; null is an infinite PSNR: the pictures are equal."""
        facts = [_facts(video) for video in (self.reference, *self.videos)]
        for k, fact in enumerate(facts):
            fact["frames_without_partner"] = self.alone[k]
        flicker = self.reference_flicker()
        return {
            "schema": SCHEMA,
            "reference": facts[0] | {"flicker": None if flicker is None else round(flicker, 3)},
            "videos": [
                fact | {"totals": self.totals(k), "worst": self._worst(k)}
                for k, fact in enumerate(facts[1:])
            ],
            "size": list(self.size),
            "frames": len(self.rows),
            "notes": self.notes,
            "ledger": [
                {
                    "index": k,
                    "pts_s": round(row.time, 6),
                    "videos": [_rounded(v) for v in row.values],
                }
                for k, row in enumerate(self.rows)
            ],
        }

    def _worst(self, video: int, most: int = 5) -> list[dict[str, float | None]]:
        values = self.series(video, "psnr")
        order = np.argsort(values, kind="stable")[:most]
        return [
            {
                "index": int(k),
                "pts_s": round(self.rows[k].time, 6),
                "psnr": _number(float(values[k]), "psnr"),
            }
            for k in order
        ]


def _worst_of(values: npt.NDArray[np.float64], name: str) -> dict[str, float]:
    """The worst value, and where the worst hundredth, twentieth and half begin."""
    above = name in _BAD_ABOVE
    ranks = [100 - p for p in PERCENTILES] if above else PERCENTILES
    found = np.percentile(values, ranks, method="higher" if above else "lower")
    worst = {"max": values.max()} if above else {"min": values.min()}
    named = worst | {f"p{rank}": value for rank, value in zip(ranks, found, strict=True)}
    return {key: float(value) for key, value in named.items()}


def _facts(video: VideoFacts) -> dict[str, Any]:
    return asdict(video) | {"size": list(video.size), "rate": str(video.rate)}


def _rounded(values: dict[str, float]) -> dict[str, float | None]:
    return {name: _number(values[name], name) for name in MEASURES if name in values}


def _number(value: float, name: str) -> float | None:
    return round(value, MEASURES[name]) if math.isfinite(value) else None
