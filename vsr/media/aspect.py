"""Reads the pixel aspect of single pictures, which PyAV does not expose."""

from fractions import Fraction
from typing import Final

import av

_LARGEST: Final = 65535
"""Largest numerator and denominator; codecs hold 16 bits."""
_SIDE: Final = 256
"""A number is told by the sides of a picture, as swscale refuses long rows."""
_CROP: Final = 4
"""Largest side of the part of a picture that is scaled."""
_UNREADABLE: Final = ("bayer", "yaf")
"""Formats of which swscale aborts the process at small sizes: of all formats, only these do."""
_STEPS: Final = 1024
"""Aspects that differ by less than 1 in this many are taken as equal."""
_DENOMINATOR: Final = (
    f"st(0,1);while(gt(abs(sar*ld(0)-round(sar*ld(0))),1e-7)*lt(ld(0),{_LARGEST}),st(0,ld(0)+1));"
)
"""FFmpeg expression that puts the aspect's denominator into register 0."""


class AspectReader:
    """Reads the pixel aspect of a stream's pictures. Use from one thread.

    FFmpeg's `scale` filter computes a size from each picture's pixel aspect, and a size is visible:
    a corner of the picture is scaled to a size that tells the aspect.
    """

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None
        self._kind: tuple[object, ...] = ()
        self._steps = -1
        self._last = Fraction(1)

    def of(self, picture: av.VideoFrame) -> Fraction | None:
        """Return a picture's pixel aspect, 1 if it has none; None if FFmpeg cannot tell."""
        if picture.format.name.startswith(_UNREADABLE):
            return None
        kind = (picture.width, picture.height, picture.format.name)
        try:
            if self._graph is None or kind != self._kind:
                self._graph, self._kind = _graph(picture, f"round(sar*{_STEPS})"), kind
            steps = _number(self._graph, picture)
            if steps != self._steps:
                self._steps, self._last = steps, _exact(picture)
        except (av.error.FFmpegError, ValueError):  # such as a picture in a GPU's memory
            return None
        return self._last


def _exact(picture: av.VideoFrame) -> Fraction:
    numerator, denominator = (
        _number(_graph(picture, word), picture) for word in ("round(sar*ld(0))", "ld(0)")
    )
    return Fraction(max(1, numerator), denominator)


def _graph(picture: av.VideoFrame, number: str) -> av.filter.Graph:
    """Build a graph whose pictures' sides tell a number, an FFmpeg expression."""
    graph = av.filter.Graph()
    graph.threads = 1  # else each graph starts threads
    size = f"{picture.width}x{picture.height}"
    found = f"{_DENOMINATOR if 'ld' in number else ''}st(1,min({number},{_LARGEST}));"
    sides = f"w='{found}1+mod(ld(1),{_SIDE})':h='{found}1+floor(ld(1)/{_SIDE})'"
    nodes = [
        graph.add("buffer", f"video_size={size}:pix_fmt={picture.format.name}:time_base=1/25"),
        graph.add("crop", f"min(iw\\,{_CROP}):min(ih\\,{_CROP}):0:0:exact=1"),
        graph.add("scale", f"{sides}:eval=frame"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    return graph


def _number(graph: av.filter.Graph, picture: av.VideoFrame) -> int:
    graph.vpush(picture)
    sides = graph.vpull()
    return sides.width - 1 + (sides.height - 1) * _SIDE
