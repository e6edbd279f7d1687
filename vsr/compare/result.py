"""Defines `Comparison`: facts of the videos, figures of every frame, pictures of a few frames."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vsr.compare.moments import Moment
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
"""Measure -> number of decimal places."""
_LOWER_IS_BETTER: Final = ("lpips",)
"""Measures with bad high values: totals have `max`, `p99`, `p95` instead of `min`, `p1`, `p5`."""
PERCENTILES: Final = (1, 5, 50)
"""Percentiles in the totals of measures with bad low values: the worst 1, 5 and 50 % of all frames
are at or below them."""


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """Properties of one compared video."""

    name: str
    size: tuple[int, int]
    rate: Fraction
    codec: str
    pixel_format: str
    seconds: float
    """Duration of the file, or of the compared part if the file's number of frames is unknown."""
    bytes: int | None = None
    """File size; None if it is not a file (a URL)."""
    ms_per_frame: float | None = None
    """Time of a network for one frame, in ms; only set by `compare_models`."""


@dataclass(frozen=True)
class Row:
    """The figures of one time: a dict per compared video, and the flicker of the reference."""

    time: float
    values: tuple[dict[str, float], ...]
    reference_flicker: float | None


@dataclass(kw_only=True)
class Comparison:
    """The results of `vsr compare`. `as_json()` is the .json output."""

    reference: VideoFacts
    videos: Sequence[VideoFacts]
    size: tuple[int, int]
    """Width and height at which pictures were compared."""
    peak: int
    """Highest sample value of a plane, 2**bits - 1."""
    has_original: bool
    """Whether the reference is the original (`--reference`), not just the first of the videos."""
    rows: list[Row] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unmatched_frames: Sequence[int] = ()
    """Number of frames without a match, of the reference and of each video."""
    colours: Sequence[Colour] = ()
    """Colour tags of each video's pictures in `moments`, the reference first."""

    def series(self, video: int, measure: str) -> npt.NDArray[np.float64]:
        """Return a measure of every frame; NaN where it is missing."""
        return np.array([row.values[video].get(measure, math.nan) for row in self.rows])

    def measures(self) -> list[str]:
        """Return the measures that at least one frame has, in the order of MEASURES."""
        found = {name for row in self.rows for values in row.values for name in values}
        return [name for name in MEASURES if name in found]

    def totals(self, video: int) -> dict[str, dict[str, float | None]]:
        """Return mean, worst value and percentiles of each measure. The mean PSNR is that of the
        mean squared error, as in FFmpeg."""
        found = {}
        for name in self.measures():
            values = self.series(video, name)
            values = values[~np.isnan(values)]
            if not len(values):
                continue
            extremes = _worst_and_percentiles(values, name)
            found[name] = {
                "mean": _number(self._mean(video, name, values), name),
                **{key: _number(value, name) for key, value in extremes.items()},
            }
        return found

    def _mean(self, video: int, name: str, values: npt.NDArray[np.float64]) -> float:
        if name != "psnr":
            return float(values.mean())
        error = float(np.nanmean(self.series(video, "mse")))
        return 10 * math.log10(self.peak**2 / error) if error else math.inf

    def reference_flicker(self) -> float | None:
        """Return the reference's mean flicker, in 8-bit codes; None for a single frame."""
        values = [row.reference_flicker for row in self.rows if row.reference_flicker is not None]
        return float(np.mean(values)) if values else None

    def as_json(self) -> dict[str, Any]:
        """Return the figures, without pictures; null stands for the infinite PSNR of equal ones."""
        facts = [_facts_as_json(video) for video in (self.reference, *self.videos)]
        for k, fact in enumerate(facts):
            fact["frames_without_partner"] = self.unmatched_frames[k]
        flicker = self.reference_flicker()
        return {
            "schema": SCHEMA,
            "reference": facts[0] | {"flicker": None if flicker is None else round(flicker, 3)},
            "videos": [
                fact | {"totals": self.totals(k), "worst": self._worst_frames(k)}
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

    def _worst_frames(self, video: int, number: int = 5) -> list[dict[str, float | None]]:
        values = self.series(video, "psnr")
        order = np.argsort(values, kind="stable")[:number]
        return [
            {
                "index": int(k),
                "pts_s": round(self.rows[k].time, 6),
                "psnr": _number(float(values[k]), "psnr"),
            }
            for k in order
        ]


def _worst_and_percentiles(values: npt.NDArray[np.float64], name: str) -> dict[str, float]:
    """Return the worst value, and the percentiles that bound the worst 1, 5 and 50 %."""
    above = name in _LOWER_IS_BETTER
    ranks = [100 - p for p in PERCENTILES] if above else PERCENTILES
    found = np.percentile(values, ranks, method="higher" if above else "lower")
    worst = {"max": values.max()} if above else {"min": values.min()}
    named = worst | {f"p{rank}": value for rank, value in zip(ranks, found, strict=True)}
    return {key: float(value) for key, value in named.items()}


def _facts_as_json(video: VideoFacts) -> dict[str, Any]:
    return asdict(video) | {"size": list(video.size), "rate": str(video.rate)}


def _rounded(values: dict[str, float]) -> dict[str, float | None]:
    return {name: _number(values[name], name) for name in MEASURES if name in values}


def _number(value: float, name: str) -> float | None:
    return round(value, MEASURES[name]) if math.isfinite(value) else None
