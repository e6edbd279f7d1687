"""Determines the chroma siting of a stream."""

import io
import logging
from typing import Final

import av

from vsr.errors import reason

log = logging.getLogger(__name__)

_HORIZONTAL: Final = b"\x55\xb7\x81"
_VERTICAL: Final = b"\x55\xb8\x81"
"""Headers of Matroska's one-byte elements ChromaSitingHorz and ChromaSitingVert (RFC 9559)."""
_BY_ELEMENTS: Final = {(1, 1): "topleft", (1, 2): "left", (2, 2): "center", (2, 1): "top"}
_RAW: Final = {"allow_raw_vfw": "1"}
"""FFmpeg option without which Matroska refuses raw video, such as that of Y4M."""
_USUAL: Final = "left"
_BT2020: Final = 9


def siting_of(stream: av.VideoStream, matrix: int) -> str:
    """Return the chroma siting of a stream, a key of `vsr.media.plane_format.SITINGS`.

    It is the one that FFmpeg knows, else the default: top-left for BT.2020, left otherwise, as in
    MPEG-2, H.264 and HEVC.
    """
    return _tagged(stream) or ("topleft" if matrix == _BT2020 else _USUAL)


def _tagged(stream: av.VideoStream) -> str | None:
    """Return the siting that FFmpeg knows. PyAV does not expose it; a Matroska header holds it."""
    memory = io.BytesIO()
    try:
        with av.open(memory, "w", format="matroska", container_options=_RAW) as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
            header = memory.getvalue()
    except (av.error.FFmpegError, ValueError, OSError) as exc:  # a codec that Matroska cannot hold
        log.debug("chroma siting is unknown: %s", reason(exc))
        return None
    found = (header.find(_HORIZONTAL), header.find(_VERTICAL))
    if min(found) < 0:
        return None
    across, down = (header[at + len(_HORIZONTAL)] for at in found)
    return _BY_ELEMENTS.get((across, down))
