"""Seeks to key frames by time, in inputs that have an index."""

from fractions import Fraction
from typing import Final

import av

from vsr.media.clips import RUN_UP

_INDEXED: Final = frozenset({"mp4", "matroska"})


def seek_before(container: "av.container.InputContainer", time: Fraction) -> bool:
    """Seek to a key frame `RUN_UP` before a time (s); return False without an index or on error."""
    if _INDEXED.isdisjoint(container.format.name.split(",")):
        return False
    try:
        container.seek(max(0, round((time - RUN_UP) * av.time_base)), backward=True)
    except (av.error.FFmpegError, OSError):
        return False
    return True
