"""Counts the frames of an input that are missing."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

import av

from vsr.media.location import local

_DECLARES_DURATION: Final = frozenset({"matroska", "webm", "flv"})
_MISSING: Final = 0.5
"""Seconds by which a container may end before its declared duration."""


@dataclass
class Losses:
    """Frames of an input that could not be delivered, and why."""

    lost: int = 0
    """Frames that are missing: cut off, or undecodable."""
    notes: dict[str, str] = field(default_factory=dict)
    """What happened, in words, by kind: each kind is told once."""


def cut_off_samples(url: str, video: av.VideoStream, delivered: int) -> int:
    """Count the frames missing of an MP4 or MOV that ends before its last sample.

    These containers list every sample's place.
    """
    path = Path(local(url))
    if path.is_file():  # a pipe has no size
        size = path.stat().st_size
        if any(entry.pos + entry.size > size for entry in video.index_entries):
            return max(video.frames - delivered, 1)
    return 0


def cut_off_frames(container: "av.container.InputContainer", end: Fraction, rate: Fraction) -> int:
    """Count the frames between `end` (s) and the duration that Matroska or FLV declares.

    Other containers' duration is an estimate and proves nothing.
    """
    declared = container.duration
    if not declared or not _DECLARES_DURATION & set(container.format.name.split(",")):
        return 0
    gap = declared / av.time_base - float(end)
    return max(1, round(gap * rate)) if gap > _MISSING else 0


def missing_frames(
    url: str, container: "av.container.InputContainer", video: av.VideoStream,
    decoded: int, end: Fraction, rate: Fraction | None,
) -> int:  # fmt: skip
    """Count the frames that a file announces and that did not come.

    `decoded` pictures came, the last one ended at `end` (s), `rate` is frames a second.
    """
    missing = cut_off_samples(url, video, decoded)
    return missing if missing or rate is None else cut_off_frames(container, end, rate)
