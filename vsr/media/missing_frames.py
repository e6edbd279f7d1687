"""Counts the frames of an input that are missing."""

import logging
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

import av

from vsr.media.location import absolute_path

log = logging.getLogger(__name__)

_DECLARES_DURATION: Final = frozenset({"matroska", "webm", "flv"})
_TOLERANCE_S: Final = 0.5
"""Maximum time that a container may end before its declared duration, in seconds."""


@dataclass
class Losses:
    """Number of frames of an input that could not be delivered, and the reasons."""

    lost: int = 0
    """Number of missing frames: cut off or undecodable."""
    notes: dict[str, str] = field(default_factory=dict)
    """Kind of event -> message; one message per kind."""

    def add_note(self, kind: str, note: str, warn: bool = False) -> None:
        """Keep the first note of each kind; log it immediately if `warn` is set."""
        if kind not in self.notes:
            self.notes[kind] = note
            if warn:
                log.warning(note)


def count_cut_off_samples(url: str, video: av.VideoStream, delivered: int) -> int:
    """Count the missing frames of an MP4 or MOV that ends before its last sample.

    These containers list every sample's position.
    """
    path = Path(absolute_path(url))
    if path.is_file():  # a pipe has no size
        size = path.stat().st_size
        if any(entry.pos + entry.size > size for entry in video.index_entries):
            return max(video.frames - delivered, 1)
    return 0


def count_cut_off_frames(
    container: "av.container.InputContainer", end: Fraction, rate: Fraction
) -> int:
    """Count the frames between `end` (s) and the duration that Matroska or FLV declares.

    Other containers' durations are estimates and are ignored.
    """
    declared = container.duration
    if not declared or not _DECLARES_DURATION & set(container.format.name.split(",")):
        return 0
    gap = declared / av.time_base - float(end)
    return max(1, round(gap * rate)) if gap > _TOLERANCE_S else 0


def count_missing_frames(
    url: str, container: "av.container.InputContainer", video: av.VideoStream,
    decoded: int, end: Fraction, rate: Fraction | None,
) -> int:  # fmt: skip
    """Count the frames that a file declares but that were not decoded.

    `decoded`: number of decoded pictures; `end`: end time of the last one (s); `rate`: fps.
    """
    missing = count_cut_off_samples(url, video, decoded)
    return missing if missing or rate is None else count_cut_off_frames(container, end, rate)
