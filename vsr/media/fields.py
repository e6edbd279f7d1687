"""Finds out whether a video is interlaced, by its flags and by looking at its beginning."""

import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av

log = logging.getLogger(__name__)

LOOKED_AT: Final = 100
"""Pictures at the beginning that are looked at."""
_LEAST: Final = 3
"""Pictures with combs without which a video has none."""
_SHARE: Final = 4
"""One picture with combs in so many makes a video interlaced; a few always look like it."""
_PLAIN_SHARE: Final = 20
"""Where the flags say that it is, that few mean that it is not."""
_MOST_LINES: Final = 1088
"""Nothing larger was ever recorded in fields."""
_WHOLE_PICTURES: Final = frozenset(
    {"av1", "libdav1d", "vp8", "vp9", "theora", "apng", "gif", "png"}
)
"""Decoders of formats that know no fields."""
DETECTOR: Final = ("idet", "intl_thres=1.2")
"""Compares neighbouring lines within pictures and between them. At FFmpeg's own threshold of 1.04
test pictures and animation look interlaced; real fields still do at 1.5."""
_FOUND: Final = "lavfi.idet.multiple."


@dataclass(frozen=True, kw_only=True)
class Fields:
    """What looking at a video has found."""

    order: str = ""
    """What flags should have said, for FFmpeg's `setfield`: `tff`, `bff` (the first field of a
    picture is the upper, the lower one), `prog`; empty: they are right, or nobody knows."""
    flagged: int = 0
    """Pictures that are flagged as interlaced."""
    upper: int = 0
    lower: int = 0
    """Pictures that look interlaced, by their first field."""
    plain: int = 0
    """Pictures that look progressive."""

    @classmethod
    def of(cls, flagged: int, upper: int, lower: int, plain: int) -> "Fields":
        """Judge numbers of pictures."""
        combed, order = upper + lower, ""
        if flagged:
            order = "prog" if plain and combed * _PLAIN_SHARE <= plain else ""
        elif combed >= _LEAST and combed * _SHARE >= combed + plain:
            order = "tff" if upper >= lower else "bff"
        return cls(order=order, flagged=flagged, upper=upper, lower=lower, plain=plain)


UNKNOWN: Final = Fields()


def look(container: "av.container.InputContainer", video: av.VideoStream) -> Fields:
    """Decode the beginning of a video for that; the container is used up."""
    context = video.codec_context
    if context.name in _WHOLE_PICTURES or context.height > _MOST_LINES:
        return UNKNOWN
    video.thread_type = "AUTO"
    graph, flagged = None, 0
    found: dict[str, str] = {}
    size: tuple[object, ...] = ()
    try:
        for number, picture in enumerate(container.decode(video)):
            kind = (picture.width, picture.height, picture.format.name)
            if graph is None:
                graph, size = _detector(picture), kind
            if number >= LOOKED_AT or kind != size:
                break
            picture.pts, picture.time_base = number, Fraction(1, 25)
            flagged += picture.interlaced_frame
            graph.vpush(picture)
            found = _pulled(graph) or found
        if graph is not None:
            graph.vpush(None)
            found = _pulled(graph) or found
    except (av.error.FFmpegError, OSError, ValueError) as exc:  # damaged: the flags have to do
        log.debug("looking at the fields: %s", exc)
    counts = [round(float(found.get(_FOUND + key, 0))) for key in ("tff", "bff", "progressive")]
    fields = Fields.of(flagged, *counts)
    log.debug("%s", fields)
    return fields


def _detector(picture: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    size = f"{picture.width}x{picture.height}"
    source = graph.add("buffer", f"video_size={size}:pix_fmt={picture.format.name}:time_base=1/25")
    detector, sink = graph.add(*DETECTOR), graph.add("buffersink")
    source.link_to(detector)
    detector.link_to(sink)
    graph.configure()
    return graph


def _pulled(graph: av.filter.Graph) -> dict[str, str]:
    """What the latest picture that is ready says."""
    found: dict[str, str] = {}
    while True:
        try:
            found = dict(graph.vpull().metadata)
        except (av.error.BlockingIOError, av.error.EOFError):
            return found
