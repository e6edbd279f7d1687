"""Chooses a network: the one with the best measured quality that is fast enough here."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from vsr.errors import UsageError
from vsr.inference.models import LOOKS, manifest, network_and_purpose

SPEEDS: Final = {"fast": 1.5, "balanced": 0.5, "best": 0.0}
"""`--speed` -> minimum speed of the chosen network, as a multiple of real time."""
HEADROOM: Final = 1.3
"""Minimum speed of a live stream's network, as a multiple of real time."""
_MIN_GAIN_DB: Final = 0.05
"""Minimum quality gain of a heavier network over a lighter one, in dB."""


@dataclass(frozen=True)
class Candidate:
    """A network to choose from: quality in dB, work in multiplications for a 720p output."""

    name: str
    quality: float
    work: float


def quality(name: str, scale: int) -> float | None:
    """Return a shipped network's quality (dB) from `engines/manifest.json`; None: not measured.

    For stream weights: the mean PSNR gain over bicubic on compressed clips. For sharp weights:
    10 log10(bicubic's mean LPIPS / own mean LPIPS) on compressed clips. For others: PSNR on Set14.
    """
    entry, purpose = manifest()[name].get(f"x{scale}", {}), network_and_purpose(name)[1]
    if purpose == "stream":
        gains = [clip["ours"] - clip["bicubic"] for clip in entry.get("video", {}).values()]
        return sum(gains) / len(gains) if gains else None
    if purpose == "sharp":
        clips = entry.get("look", {}).get("lpips", {}).values()
        bicubic, ours = (sum(clip[method] for clip in clips) for method in ("bicubic", "ours"))
        return 10 * math.log10(bicubic / ours) if clips else None
    set14 = entry.get("psnr", {}).get("set14", {}).get("psnr")
    return None if set14 is None else float(set14)


def candidates(clean: bool, scale: int = 2, look: str | None = None) -> list[Candidate]:
    """Return the networks worth their work, best first: a better one always does more work.

    With a look (a key of `LOOKS`), only networks with its weights. Without one, clean pictures get
    networks for clean pictures, and compressed video gets sharp networks, which look most like the
    original, followed by the faithful ones that are lighter than all of them.
    """
    if look:
        return _worth_their_work(_all_for(LOOKS[look], scale))
    if clean:
        return _worth_their_work(_all_for("", scale))
    sharp = _worth_their_work(_all_for(LOOKS["sharp"], scale))
    return [*sharp, *(c for c in faithful(scale) if not sharp or c.work < sharp[-1].work)]


def faithful(scale: int) -> list[Candidate]:
    """Return the networks for compressed video with the least error, best first.

    They are networks for clean pictures if none was trained for compressed video at that scale.
    """
    found = _all_for(LOOKS["faithful"], scale) or _all_for("", scale)
    return _worth_their_work(found)


def _all_for(purpose: str, scale: int) -> list[Candidate]:
    qualities = {
        name: quality(name, scale)
        for name, entries in manifest().items()
        if network_and_purpose(name)[1] == purpose and f"x{scale}" in entries
    }
    return [
        Candidate(name, value, manifest()[name][f"x{scale}"]["multadds_720p"])
        for name, value in qualities.items()
        if value is not None
    ]


def _worth_their_work(found: Iterable[Candidate]) -> list[Candidate]:
    kept: list[Candidate] = []
    for each in sorted(found, key=lambda c: c.work):
        if not kept or each.quality >= kept[-1].quality + _MIN_GAIN_DB:
            kept.append(each)
    return kept[::-1]


def choose(
    found: Iterable[Candidate], times_real_time: Callable[[str], float], min_speed: float
) -> tuple[str, float]:
    """Return (name, speed) of the best candidate that reaches `min_speed`, else of the lightest.

    Speeds are multiples of real time. `found`: candidates, best first. `times_real_time`: called
    for each name, until one is fast enough. Raises UsageError if there is no candidate.
    """
    speed, name = 0.0, ""
    for candidate in found:
        name = candidate.name
        speed = times_real_time(name)
        if speed >= min_speed:
            break
    if not name:
        raise UsageError("no network has this scale: see vsr models")
    return name, speed
