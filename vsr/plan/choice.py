"""Chooses a network: the best by measured quality that is fast enough here."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from vsr.errors import UsageError
from vsr.inference.models import LOOKS, manifest, network_and_purpose

SPEEDS: Final = {"fast": 1.5, "balanced": 0.5, "best": 0.0}
"""`--speed` -> least speed, in times of real time, of the network that is taken."""
HEADROOM: Final = 1.3
"""Times real time that a live stream's network must reach."""
_LIVELY: Final = 0.05
"""dB by which a heavier network must be better to be worth its time."""


@dataclass(frozen=True)
class Candidate:
    """A network that may be taken: quality in dB, work in multiplications for a 720p output."""

    name: str
    quality: float
    work: float


def quality(name: str, scale: int) -> float | None:
    """What a shipped network reaches (dB), from `engines/manifest.json`; None: not measured.

    Of weights for streams it is the mean PSNR over bicubic on compressed clips, of sharp ones there
    what their LPIPS is under bicubic's (10 log10 of the means), of others the PSNR on Set14.
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
    """The networks worth their time, best first: none has one before it that does less work.

    With a look (a key of `LOOKS`) those that have its weights. Without, where nothing was trained
    for compressed video at that scale, those for clean pictures stand.
    """
    purposes = (LOOKS[look],) if look else ("",) if clean else ("stream", "")
    found: list[Candidate] = []
    for purpose in purposes:
        found = found or _all_for(purpose, scale)
    return _worth_their_work(found)


def _all_for(purpose: str, scale: int) -> list[Candidate]:
    reached = {
        name: quality(name, scale)
        for name, entries in manifest().items()
        if network_and_purpose(name)[1] == purpose and f"x{scale}" in entries
    }
    return [
        Candidate(name, value, manifest()[name][f"x{scale}"]["multadds_720p"])
        for name, value in reached.items()
        if value is not None
    ]


def _worth_their_work(found: Iterable[Candidate]) -> list[Candidate]:
    kept: list[Candidate] = []
    for each in sorted(found, key=lambda c: c.work):
        if not kept or each.quality >= kept[-1].quality + _LIVELY:
            kept.append(each)
    return kept[::-1]


def choose(
    found: Iterable[Candidate], times_real_time: Callable[[str], float], least: float
) -> tuple[str, float]:
    """The best candidate that reaches `least` times real time, else the lightest, and its speed.

    `times_real_time` is asked for one name after the other, until one is fast enough. Raises
    UsageError where there is no candidate.
    """
    speed, name = 0.0, ""
    for candidate in found:
        name = candidate.name
        speed = times_real_time(name)
        if speed >= least:
            break
    if not name:
        raise UsageError("no network has this scale: see vsr models")
    return name, speed
