"""Chooses a network: the best by measured quality that is fast enough here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from vsr.errors import UsageError
from vsr.inference.models import manifest, names, network_and_purpose, scales

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
    """What a shipped network reaches, from `engines/manifest.json`: mean PSNR over bicubic on
    compressed clips for weights for streams, PSNR on Set14 for others; None where not measured."""
    entry = manifest()[name].get(f"x{scale}", {})
    if network_and_purpose(name)[1] == "stream":
        gains = [clip["ours"] - clip["bicubic"] for clip in entry.get("video", {}).values()]
        return sum(gains) / len(gains) if gains else None
    set14 = entry.get("psnr", {}).get("set14", {}).get("psnr")
    return None if set14 is None else float(set14)


def candidates(clean: bool, scale: int = 2) -> list[Candidate]:
    """The networks worth their time, best first: none has one before it that does less work.

    Where nothing was trained for compressed video at that scale, those for clean pictures stand.
    """
    found = []
    for purpose in ("",) if clean else ("stream", ""):
        for name in names():
            if name not in manifest() or network_and_purpose(name)[1] != purpose:
                continue
            reached = quality(name, scale) if scale in scales(name) else None
            if reached is not None:
                work = manifest()[name][f"x{scale}"]["multadds_720p"]
                found.append(Candidate(name, reached, work))
        if found:
            break
    return _worth_their_work(found)


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
