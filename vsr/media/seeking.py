"""Seeks to key frames by time, in inputs that have an index."""

from fractions import Fraction
from typing import Final

import av

from vsr.media.clips import PREROLL_S

_INDEXED: Final = frozenset({"mp4", "matroska"})


def seek_before(container: "av.container.InputContainer", time: Fraction) -> bool:
    """Seek to a key frame `PREROLL_S` before a time (s); return False on error or without index."""
    if _INDEXED.isdisjoint(container.format.name.split(",")):
        return False
    try:
        container.seek(max(0, round((time - PREROLL_S) * av.time_base)), backward=True)
    except (av.error.FFmpegError, OSError):
        return False
    return True
