"""Writes plain sentences about the results of a comparison."""

import math
from typing import Final

from vsr.compare.result import Comparison, VideoFacts
from vsr.report.html.text import clock

_EQUAL_DB: Final = 0.05
"""PSNR difference, in dB, below which two videos count as equal."""
_FLICKER_RATIO: Final = 1.1
"""Ratio of a video's flicker to the reference's above which a sentence warns of it."""


def summary(comparison: Comparison) -> list[str]:
    """Return the findings as sentences, the most important first."""
    if comparison.reference.ms_per_frame is not None:
        return [_cost(video) for video in (comparison.reference, *comparison.videos)]
    return [*_nearest(comparison), *_equal(comparison), *_flicker(comparison)]


def _cost(video: VideoFacts) -> str:
    """Return a sentence with a model's time per frame and the size of its encoded excerpt."""
    ms = video.ms_per_frame or 0.0
    real_time = 1000 / (ms * float(video.rate)) if ms else math.inf
    cost = f"{video.name}: {ms:.1f} ms per frame, {real_time:.2g} times real time (network alone)"
    return cost if video.bytes is None else f"{cost}; {video.bytes / 1000:,.0f} kB encoded"


def _psnr(comparison: Comparison, k: int) -> float:
    mean = comparison.totals(k)["psnr"]["mean"]
    return math.inf if mean is None else mean


def _nearest(comparison: Comparison) -> list[str]:
    means = sorted(
        ((_psnr(comparison, k), v.name) for k, v in enumerate(comparison.videos)), reverse=True
    )
    what = "the original" if comparison.has_original else comparison.reference.name
    if len(means) == 1:
        mean, name = means[0]
        worst = min(comparison.rows, key=lambda row: row.values[0]["psnr"])
        if math.isinf(mean):  # `_equal` names it
            return []
        return [
            f"{name}: PSNR {mean:.2f} dB against {what}; the worst frame, at {clock(worst.time)}, "
            f"has {worst.values[0]['psnr']:.2f} dB"
        ]
    (best, name), (second, other) = means[:2]
    if math.isinf(best):
        return []
    if best - second < _EQUAL_DB:
        return [f"{name} and {other} are equally close to {what}: PSNR {best:.2f} dB"]
    return [
        f"{name} is closest to {what}: PSNR {best:.2f} dB, {best - second:.2f} dB above {other}"
    ]


def _equal(comparison: Comparison) -> list[str]:
    lines = []
    for k, video in enumerate(comparison.videos):
        same = sum(math.isinf(row.values[k]["psnr"]) for row in comparison.rows)
        if same:
            share = "all" if same == len(comparison.rows) else f"{same} of {len(comparison.rows)}"
            lines.append(f"{share} frames of {video.name} are identical to the reference's")
    return lines


def _flicker(comparison: Comparison) -> list[str]:
    still = comparison.reference_flicker()
    lines = []
    for k, video in enumerate(comparison.videos):
        moved = comparison.totals(k).get("flicker", {}).get("mean")
        if still and moved and moved > _FLICKER_RATIO * still:
            lines.append(
                f"{video.name} changes {moved / still:.2f} times as much between frames as the "
                "reference: it may flicker"
            )
    return lines
