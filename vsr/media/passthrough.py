"""Selects what an output copies from an input unencoded: other streams, metadata, chapters."""

import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av

log = logging.getLogger(__name__)

_CONTAINER_TAGS: Final = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id"}
)
"""Tags that describe the input's container and its writer, not its content."""
_STATISTICS_TAGS: Final = frozenset({"bps", "duration", "number_of_frames", "number_of_bytes"})
_STATISTICS: Final = "_statistics"
"""Tags, and the beginning of others, with which Matroska files count a stream's old packets."""
CODING_TAGS: Final = frozenset({"alpha_mode"})
"""Tags that describe how a video was encoded."""
MP4_FAMILY: Final = frozenset({"mp4", "mov", "3gp"})
"""Containers of the MP4 family that `vsr.media.sink` writes."""
_MATROSKA: Final = frozenset({"matroska", "webm"})
HOLD_ROTATION_AND_CHAPTERS: Final = MP4_FAMILY | _MATROSKA
"""Containers that hold rotation and chapters; the others drop both silently."""
_VIDEO_IN: Final = {
    "mpegts": frozenset({"h264", "hevc", "mpeg2video", "mpeg1video", "mpeg4"}),
    "mov": frozenset({"h264", "hevc", "mpeg4", "prores", "mjpeg", "dnxhd", "ffv1", "png"}),
    "yuv4mpegpipe": frozenset({"rawvideo"}),
}
_STORE_ASPECT: Final = MP4_FAMILY | {"yuv4mpegpipe"}
"""Containers in which vsr stores the pixel aspect of any codec."""
_HOLD_ASPECT: Final = frozenset({"h264", "hevc", "mpeg4"})
"""Codecs whose headers hold any pixel aspect."""
_MPEG2: Final = "mpeg2video"
_MPEG2_ASPECTS: Final = (Fraction(4, 3), Fraction(16, 9), Fraction(221, 100))
"""Picture aspects that MPEG-2 holds besides that of square pixels (ISO 13818-2, table 6-3)."""


_ITUNES: Final = frozenset(
    {"title", "artist", "album_artist", "composer", "album", "date", "comment", "genre"}
    | {"copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id"}
    | {"network", "keywords", "season_number", "episode_sort", "media_type", "hd_video"}
    | {"gapless_playback", "compilation", "track", "disc", "creation_time", "location", "timecode"}
)
_TAGS_IN: Final = {
    "mp4": _ITUNES,
    "mov": frozenset(
        {"title", "artist", "album", "date", "comment", "genre", "copyright", "make", "model"}
        | {"creation_time", "location", "timecode"}
    ),
    "3gp": frozenset(
        {"title", "artist", "author", "album", "date", "comment", "genre", "copyright"}
        | {"creation_time", "location"}
    ),
    "mpegts": frozenset({"title", "service_name", "service_provider"}),
}
"""Container -> metadata tags that FFmpeg writes into it; into other containers it writes all."""
_MILLISECONDS: Final = 1000
_INT32_MAX: Final = 2**31 - 1
_PHONES: Final = ("com.apple.", "com.android.")


@dataclass(frozen=True, kw_only=True)
class Passthrough:
    """Streams, metadata and chapters that an output takes over from an input."""

    streams: tuple[av.stream.Stream, ...]
    """Input streams in order; the output keeps this order for those its container can hold."""
    video: av.VideoStream
    """The one of them that is re-encoded; its position, tags and disposition are kept."""
    metadata: dict[str, str]
    chapters: list[Any]
    covers: Mapping[int, bytes]
    """Picture of each cover art stream, by the stream's index."""
    first_time: Fraction = Fraction(0)
    """Input time of the first frame of `video`, in seconds."""

    @classmethod
    def of(
        cls,
        container: "av.container.InputContainer",
        video: av.VideoStream,
        streams: tuple[av.stream.Stream, ...],
        covers: Mapping[int, bytes],
        first_time: Fraction,
    ) -> "Passthrough":
        """Describe what an opened input has in addition to the pictures of `video`."""
        return cls(
            streams=streams, video=video, metadata=container.metadata,
            chapters=container.chapters(), covers=covers, first_time=first_time,
        )  # fmt: skip


def kept_tags(tags: dict[str, str], outdated: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return the tags that stay valid in another container, without the `outdated` ones.

    A tag's name may end with its language, as in `BPS-eng`.
    """
    dropped = _CONTAINER_TAGS | outdated
    return {key: tags[key] for key in tags if key.lower().partition("-")[0] not in dropped}


def without_statistics(tags: dict[str, str]) -> dict[str, str]:
    """Return a stream's tags without those that count its packets, as an output may hold fewer."""
    kept = kept_tags(tags, _STATISTICS_TAGS)
    return {key: kept[key] for key in kept if not key.lower().startswith(_STATISTICS)}


def movie_timescale(streams: Sequence[av.stream.Stream]) -> int:
    """Return the ticks per second of an MP4's edit lists that make every stream's start exact.

    Edit lists hold each stream's start time; FFmpeg's default of 1000 would shift audio against
    video by up to half a millisecond.
    """
    late = [s.time_base.denominator for s in streams if s.start_time and s.time_base]
    exact = math.lcm(_MILLISECONDS, *late)
    return exact if exact <= _INT32_MAX else max(late)


def describe_losses(tags: dict[str, str], chapters: Sequence[Any], container: str) -> list[str]:
    """Describe, for messages, the tags and chapters that a container cannot hold."""
    lost = lost_tags(tags, container)
    words = [f"the tags {', '.join(lost)}"] if lost else []
    if chapters and container not in HOLD_ROTATION_AND_CHAPTERS:
        words.append("chapters")
    return words


def lost_tags(tags: dict[str, str], container: str) -> list[str]:
    """Return the keys of the tags that a container cannot hold."""
    held = _TAGS_IN.get(container)
    if held is None or keeps_any_tag(tags, container):
        return []
    return [key for key in tags if key.lower().partition("-")[0] not in held]


def keeps_any_tag(tags: dict[str, str], container: str) -> bool:
    """Return whether an MP4 or MOV stores tags by arbitrary names (FFmpeg's `use_metadata_tags`).

    MOV stores them in addition to the usual ones. MP4 stores them instead, and some players then
    find no title; so MP4 does it only for phone tags, which phones store this way.
    """
    lowered = [key.lower() for key in tags]
    if container == "mov":
        return any(key.partition("-")[0] not in _TAGS_IN["mov"] for key in lowered)
    return container == "mp4" and any(key.startswith(_PHONES) for key in lowered)


def can_hold_video(codec: str, container: str) -> bool:
    """Return whether players support video of this codec in this container."""
    return container not in _VIDEO_IN or codec in _VIDEO_IN[container]


def can_hold_encoder(encoder: str, container: str) -> bool:
    """Return whether a container can hold the output of the FFmpeg video encoder `encoder`."""
    trial = av.open(io.BytesIO(), "w", format=container)
    try:
        trial.add_stream(encoder)
    except ValueError:
        return False
    finally:
        close_quietly(trial)
    return can_hold_video(av.Codec(encoder, "w").canonical_name, container)


def close_quietly(
    container: "av.container.OutputContainer", file: io.BufferedIOBase | None = None
) -> None:
    """Close a container, and its file if it has one, and ignore errors: the content is lost."""
    closing: list[Callable[[], None]] = [container.close]
    if file is not None:
        closing.append(file.close)
    for close in closing:
        try:
            close()
        except (av.error.FFmpegError, OSError, ValueError) as exc:
            log.debug("closing %s: %s", container.name, exc)


def is_chapter_track(stream: av.stream.Stream, chapters: list[Any]) -> bool:
    """Return whether a stream is MP4's chapter text track, with one sample per chapter."""
    text = stream.type == "data" and stream.name == "bin_data"
    return text and bool(chapters) and stream.frames == len(chapters)


def cut_chapters(chapters: list[Any], begin: Fraction, end: Fraction | None) -> list[Any]:
    """Return the chapters from `begin` to `end` (s; None: to the last), shifted to start at 0."""
    cut = []
    for chapter in chapters:
        base = chapter["time_base"]
        first, last = (chapter[key] * base for key in ("start", "end"))
        first, last = max(first, begin), last if end is None else min(last, end)
        if first < last:
            times = {"start": round((first - begin) / base), "end": round((last - begin) / base)}
            cut.append({**chapter, **times})
    return cut


def is_rewritten_timecode(
    stream: av.stream.Stream, video: av.stream.Stream, container: str
) -> bool:
    """Return whether a stream is a QuickTime timecode track that the muxer makes from a tag."""
    both = "timecode" in stream.metadata and "timecode" in video.metadata
    return stream.type == "data" and both and container in MP4_FAMILY


def can_hold_aspect(codec: str, container: str, aspect: Fraction, size: tuple[int, int]) -> bool:
    """Return whether the pixel aspect of pictures of `size` is kept.

    The MP4 family and Y4M store any; elsewhere the codec must.
    """
    if container in _STORE_ASPECT or codec in _HOLD_ASPECT:
        return True
    return codec == _MPEG2 and aspect * Fraction(*size) in _MPEG2_ASPECTS
