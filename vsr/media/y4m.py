"""The header of Y4M: completed where FFmpeg's muxer leaves out the pixel aspect; what it holds."""

import io
from fractions import Fraction
from typing import Any, Final

import av

from vsr.media.plane_format import PlaneFormat

FORMAT: Final = "yuv4mpegpipe"
"""FFmpeg's name of Y4M, which stores one constant rate, and no times."""
_BUFFER_BYTES: Final = 1 << 20
"""Size of the pieces that FFmpeg passes to an `AspectWriter`, in bytes; the first has the header.
"""
_UNKNOWN: Final = b" A0:0"
_SITINGS: Final = ("left", "center", "topleft")
"""Chroma sitings of 8-bit 4:2:0 that have a name in Y4M: 420mpeg2, 420jpeg and 420paldv."""


def open_output(
    target: str | int, container: str, options: dict[str, str], aspect: Fraction | None
) -> tuple["av.container.OutputContainer", "AspectWriter | None"]:
    """Open a container in a file, or in an open pipe, which stays open. Raises FFmpegError.

    Return also the file to close after it, which Y4M needs for a pixel aspect other than 1.
    """
    if container == FORMAT and aspect not in (None, 1):
        assert aspect is not None
        file = AspectWriter(target, aspect)
        opened = av.open(
            file, "w", format=container, container_options=options, buffer_size=_BUFFER_BYTES
        )
        return opened, file
    name = target if isinstance(target, str) else f"pipe:{target}"
    return av.open(name, "w", format=container, container_options=options), None


class AspectWriter(io.BufferedWriter):
    """File for a Y4M muxer that writes the pixel aspect into the header.

    PyAV cannot set the aspect of a stream, from which the muxer would take it.
    """

    def __init__(self, target: str | int, aspect: Fraction) -> None:
        """`target`: a path, or a file descriptor, which stays open. Raises OSError."""
        super().__init__(io.FileIO(target, "w", closefd=isinstance(target, str)))
        self._header: bytes | None = b" A%d:%d" % (aspect.numerator, aspect.denominator)

    def write(self, data: Any) -> int:
        """Write bytes; complete the header, with which they begin at the first call."""
        if self._header is not None:
            head, end, rest = bytes(data).partition(b"\n")
            data, self._header = head.replace(_UNKNOWN, self._header, 1) + end + rest, None
        return super().write(data)


def can_hold_siting(planes: PlaneFormat) -> bool:
    """Return whether Y4M states the chroma siting, or its readers assume it."""
    if planes.chroma_y == 1:
        return True
    return planes.siting in _SITINGS if planes.bits == 8 else planes.siting == _SITINGS[0]
