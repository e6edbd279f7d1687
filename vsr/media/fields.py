"""Detects whether a video is interlaced, from its flags and its first pictures."""

import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av

from vsr.media.decoder import flush_decoder

log = logging.getLogger(__name__)

ANALYSED_PICTURES: Final = 100
"""Number of pictures at the beginning that are analysed."""
_MIN_COMBED: Final = 3
"""Minimum number of combed pictures for a video to count as interlaced."""
_MIN_COMBED_DIVISOR: Final = 4
"""A video is interlaced if one picture in this many is combed; a few false positives are usual."""
_PROGRESSIVE_PER_COMBED: Final = 20
"""A video with interlaced flags is progressive if it has at most one combed picture per this many
progressive ones."""
_MAX_LINES: Final = 1088
"""Maximum height that is analysed, in lines; no larger video is interlaced."""
_PROGRESSIVE_DECODERS: Final = frozenset(
    {"av1", "libdav1d", "vp8", "vp9", "theora", "apng", "gif", "png"}
)
"""Decoders of formats without interlacing."""
DETECTOR: Final = ("idet", "intl_thres=1.2")
"""Filter that compares neighbouring lines within pictures and between them. At FFmpeg's default
threshold of 1.04 test pictures and animation look interlaced; real fields still do at 1.5."""
_COUNT_KEY: Final = "lavfi.idet.multiple."


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Result of the interlacing analysis of a video."""

    order: str = ""
    """Corrected flag for FFmpeg's `setfield`: `tff` (top field first), `bff` (bottom field first)
    or `prog` (progressive); empty if the flags are right or it is unknown."""
    flagged: int = 0
    """Number of pictures flagged as interlaced."""
    top_first: int = 0
    bottom_first: int = 0
    """Number of pictures that look interlaced, with the upper or the lower field first."""
    progressive: int = 0
    """Number of pictures that look progressive."""

    @classmethod
    def of(cls, flagged: int, top_first: int, bottom_first: int, progressive: int) -> "Fields":
        """Derive the result from numbers of pictures; see the fields of this class."""
        combed, order = top_first + bottom_first, ""
        if flagged:
            order = (
                "prog" if progressive and combed * _PROGRESSIVE_PER_COMBED <= progressive else ""
            )
        elif combed >= _MIN_COMBED and combed * _MIN_COMBED_DIVISOR >= combed + progressive:
            order = "tff" if top_first >= bottom_first else "bff"
        return cls(
            order=order,
            flagged=flagged,
            top_first=top_first,
            bottom_first=bottom_first,
            progressive=progressive,
        )


UNKNOWN_FIELDS: Final = Fields()


def analyse_fields(container: "av.container.InputContainer", video: av.VideoStream) -> Fields:
    """Decode and analyse the beginning of a video; do not read from the container afterwards."""
    context = video.codec_context
    if context.name in _PROGRESSIVE_DECODERS or context.height > _MAX_LINES:
        return UNKNOWN_FIELDS
    video.thread_type = "AUTO"
    graph, flagged = None, 0
    found: dict[str, str] = {}
    size: tuple[object, ...] = ()
    try:
        for number, picture in enumerate(container.decode(video)):
            kind = (picture.width, picture.height, picture.format.name)
            if graph is None:
                graph, size = _detector(picture), kind
            if number >= ANALYSED_PICTURES or kind != size:
                break
            picture.pts, picture.time_base = number, Fraction(1, 25)
            flagged += picture.interlaced_frame
            graph.vpush(picture)
            found = _pulled(graph) or found
        if graph is not None:
            graph.vpush(None)
            found = _pulled(graph) or found
    except (av.error.FFmpegError, OSError, ValueError) as exc:  # damaged: rely on the flags
        log.debug("interlacing analysis: %s", exc)
    finally:
        flush_decoder(context)
    counts = [round(float(found.get(_COUNT_KEY + key, 0))) for key in ("tff", "bff", "progressive")]
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
    """Return the metadata of the latest picture that is ready; empty if there is none."""
    found: dict[str, str] = {}
    while True:
        try:
            found = dict(graph.vpull().metadata)
        except (av.error.BlockingIOError, av.error.EOFError):
            return found
