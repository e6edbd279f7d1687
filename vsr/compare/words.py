"""Writes plain sentences about the results of a comparison."""

import math
from typing import Final

from vsr.compare.result import Comparison, VideoFacts
from vsr.report.html.text import clock

_SAME_DB: Final = 0.05
"""PSNR difference, in dB, below which two videos count as equal."""
_RESTLESS: Final = 1.1
"""Ratio of a video's flicker to the reference's above which a sentence warns of it."""


def sentences(found: Comparison) -> list[str]:
    """Return the findings as sentences, the most important first."""
    if found.reference.ms_per_frame is not None:
        return [_cost(video) for video in (found.reference, *found.videos)]
    return [*_nearest(found), *_equal(found), *_flicker(found)]


def _cost(video: VideoFacts) -> str:
    """Return a sentence with a model's time per frame and the size of its encoded piece."""
    ms = video.ms_per_frame or 0.0
    real_time = 1000 / (ms * float(video.rate)) if ms else math.inf
    cost = f"{video.name}: {ms:.1f} ms a frame, {real_time:.2g} times real time by itself"
    return cost if video.bytes is None else f"{cost}; {video.bytes / 1000:,.0f} kB encoded"


def _psnr(found: Comparison, k: int) -> float:
    mean = found.totals(k)["psnr"]["mean"]
    return math.inf if mean is None else mean


def _nearest(found: Comparison) -> list[str]:
    means = sorted(((_psnr(found, k), v.name) for k, v in enumerate(found.videos)), reverse=True)
    what = "the original" if found.original else found.reference.name
    if len(means) == 1:
        mean, name = means[0]
        worst = min(found.rows, key=lambda row: row.values[0]["psnr"])
        if math.isinf(mean):
            return []
        return [
            f"{name} is {mean:.2f} dB from {what} (PSNR); the worst frame, at {clock(worst.time)}, "
            f"has {worst.values[0]['psnr']:.2f} dB"
        ]
    (best, name), (second, other) = means[:2]
    if best - second < _SAME_DB:
        return [f"{name} and {other} are equally near to {what}: {best:.2f} dB (PSNR)"]
    return [
        f"{name} is nearest to {what}: {best:.2f} dB (PSNR), {best - second:.2f} dB before {other}"
    ]


def _equal(found: Comparison) -> list[str]:
    said = []
    for k, video in enumerate(found.videos):
        same = sum(math.isinf(row.values[k]["psnr"]) for row in found.rows)
        if same:
            of = "all" if same == len(found.rows) else f"{same} of {len(found.rows)}"
            said.append(f"{of} frames of {video.name} equal the reference's, sample by sample")
    return said


def _flicker(found: Comparison) -> list[str]:
    still = found.reference_flicker()
    said = []
    for k, video in enumerate(found.videos):
        moved = found.totals(k).get("flicker", {}).get("mean")
        if still and moved and moved > _RESTLESS * still:
            said.append(
                f"{video.name} changes {moved / still:.2f} times as much from frame to frame as "
                "the reference: it may flicker"
            )
    return said
