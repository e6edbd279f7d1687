"""Encodes the live frame as a JPEG, on request and at most once a second."""

import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Final, Literal

import av
import numpy as np

from vsr.live.status.board import StatusBoard
from vsr.media.colour import RANGE_FULL, Colour
from vsr.media.frame import PIXEL_FORMAT, Planes, now

Which = Literal["before", "after"]

MAX_WIDTH: Final[dict[Which, int]] = {"before": 640, "after": 1280}
"""Maximum width in pixels, as on the page; each UHD image would take 0.4 s of CPU time."""
MAX_AGE_S: Final = 1.0
_FORMAT: Final = "yuvj420p"
_BT601: Final = 5
"""Only matrix in JFIF, at full range. swscale has one number for it, H.273 two (5 and 6)."""
_SMPTE170M: Final = 6
_QUALITY: Final = 3
"""FFmpeg's quantiser scale, from 2 (best) to 31."""


class JpegCache:
    """Caches JPEGs of the newest frames. Thread-safe; encodes one at a time."""

    def __init__(self, board: StatusBoard, clock: Callable[[], float] = now) -> None:
        self._board, self._clock = board, clock
        self._lock = threading.Lock()
        self._cached: dict[Which, tuple[float, bytes]] = {}

    def jpeg(self, which: Which) -> bytes | None:
        """Return the newest JPEG, at most `MAX_AGE_S` old; None if there is no frame yet."""
        with self._lock:
            cached = self._cached.get(which)
            if cached and self._clock() - cached[0] < MAX_AGE_S:
                return cached[1]
            newest = self._board.image(which)
            if newest is None:
                return None
            data = encode_jpeg(*newest, MAX_WIDTH[which])
            self._cached[which] = (self._clock(), data)
            return data


def encode_jpeg(planes: Planes, colour: Colour, max_width: int) -> bytes:
    """Encode a 4:2:0 frame of 8 or 10 bits as a JPEG, at most `max_width` pixels wide.

    An odd last row or column is cropped.
    """
    y, u, v = planes
    height, width = y.shape[0] // 2 * 2, y.shape[1] // 2 * 2
    even = (
        y[:height, :width],
        u[: height // 2, : width // 2],
        v[: height // 2, : width // 2],
    )
    # copied: planes may be read-only views of padded rows
    name = PIXEL_FORMAT if y.dtype == np.uint8 else f"{PIXEL_FORMAT}10le"
    picture = av.VideoFrame.from_dlpack(tuple(map(np.array, even)), format=name)
    out_width = min(max_width, width) // 2 * 2
    out = picture.reformat(
        width=out_width,
        height=max(2, round(height * out_width / width / 2) * 2),
        format=_FORMAT,
        src_colorspace=_BT601 if colour.matrix == _SMPTE170M else colour.matrix,
        dst_colorspace=_BT601,
        src_color_range=colour.range_code,
        dst_color_range=RANGE_FULL,
        interpolation="AREA",
    )
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = out.width, out.height, _FORMAT
    context.time_base, context.color_range = Fraction(1), RANGE_FULL
    context.qmin = context.qmax = _QUALITY
    context.thread_count = 1
    out.pts, out.time_base = 0, context.time_base
    return b"".join(bytes(packet) for packet in (*context.encode(out), *context.encode(None)))
