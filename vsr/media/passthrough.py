"""Copies what is not encoded from input to output: other streams, metadata, chapters."""

import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av

log = logging.getLogger(__name__)

_CONTAINERS_OWN: Final = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
"""Tags that describe the input's container, not its content."""
STATISTICS: Final = frozenset(
    {"bps", "duration", "number_of_frames", "number_of_bytes", "alpha_mode"}
)
"""Matroska's tags that describe a stream's old packets; `_statistics_*` go with them."""
ISO: Final = frozenset({"mp4", "mov", "3gp"})
"""The MP4 family, of the containers that `vsr.media.sink` writes."""
_MATROSKA: Final = frozenset({"matroska", "webm"})
HOLD_EXTRAS: Final = ISO | _MATROSKA
"""Containers that hold rotation and chapters; the others drop both silently."""
_VIDEO_IN: Final = {
    "mpegts": frozenset({"h264", "hevc", "mpeg2video", "mpeg1video", "mpeg4"}),
    "mov": frozenset({"h264", "hevc", "mpeg4", "prores", "mjpeg", "dnxhd", "ffv1", "png"}),
}
_HOLD_ASPECT: Final = frozenset({"h264", "hevc", "mpeg4", "mpeg2video"})
"""Codecs whose own headers hold the pixel aspect."""


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
"""The tags of a film that FFmpeg writes into these containers; into others, all."""
_MILLISECONDS: Final = 1000
_INT32_MAX: Final = 2**31 - 1
_PHONES: Final = ("com.apple.", "com.android.")


@dataclass(frozen=True, kw_only=True)
class Passthrough:
    """What an output takes over from an input unchanged."""

    streams: tuple[av.stream.Stream, ...]
    """Those of the input, in order: so they are in the output, if its container holds them."""
    video: av.VideoStream
    """The one of them that is encoded anew: its place, tags and disposition are kept."""
    metadata: dict[str, str]
    chapters: list[Any]

    @classmethod
    def of(
        cls,
        container: "av.container.InputContainer",
        video: av.VideoStream,
        streams: tuple[av.stream.Stream, ...],
    ) -> "Passthrough":
        """Describe what an opened input has besides the pictures of `video`."""
        return cls(
            streams=streams, video=video, metadata=container.metadata,
            chapters=container.chapters(),
        )  # fmt: skip


def kept_tags(tags: dict[str, str], outdated: frozenset[str] = frozenset()) -> dict[str, str]:
    """Select the tags that hold for another container, without the `outdated` ones."""
    dropped = _CONTAINERS_OWN | outdated
    return {
        key: value
        for key, value in tags.items()
        if key.lower() not in dropped and not (outdated and key.lower().startswith("_statistics"))
    }


def movie_timescale(streams: Sequence[av.stream.Stream]) -> int:
    """Ticks per second of an MP4's edit lists, so fine that every stream's start is exact.

    They hold when each stream begins; FFmpeg's default of 1000 would shift sound against picture
    by up to half a millisecond.
    """
    late = [s.time_base.denominator for s in streams if s.start_time and s.time_base]
    exact = math.lcm(_MILLISECONDS, *late)
    return exact if exact <= _INT32_MAX else max(late)


def lost_facts(tags: dict[str, str], chapters: Sequence[Any], container: str) -> list[str]:
    """List in words what a container cannot hold of a film's tags and chapters."""
    lost = lost_tags(tags, container)
    words = [f"the tags {', '.join(lost)}"] if lost else []
    return [*words, "chapters"] if chapters and container not in HOLD_EXTRAS else words


def lost_tags(tags: dict[str, str], container: str) -> list[str]:
    """List the keys of a film's tags that a container cannot hold."""
    held = _TAGS_IN.get(container)
    if held is None or keeps_any_tag(tags, container):
        return []
    return [key for key in tags if key.lower().partition("-")[0] not in held]


def keeps_any_tag(tags: dict[str, str], container: str) -> bool:
    """Whether an MP4 or MOV is to store tags by their own names (FFmpeg's `use_metadata_tags`).

    MOV does that beside the usual way. MP4 does it instead, and some players then find no title:
    only for tags of phones, which are stored so in what they record.
    """
    lowered = [key.lower() for key in tags]
    if container == "mov":
        return any(key.partition("-")[0] not in _TAGS_IN["mov"] for key in lowered)
    return container == "mp4" and any(key.startswith(_PHONES) for key in lowered)


def can_hold_video(codec: str, container: str) -> bool:
    """Whether players find a video of this codec in this container."""
    return container not in _VIDEO_IN or codec in _VIDEO_IN[container]


def can_hold_encoder(encoder: str, container: str) -> bool:
    """Whether a container holds what FFmpeg's video encoder of that name makes."""
    trial = av.open(io.BytesIO(), "w", format=container)
    try:
        trial.add_stream(encoder)
    except ValueError:
        return False
    finally:
        close_quietly(trial)
    return can_hold_video(av.Codec(encoder, "w").canonical_name, container)


def close_quietly(container: "av.container.OutputContainer") -> None:
    """Close a container and ignore errors: its content does not matter."""
    try:
        container.close()
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        log.debug("closing %s: %s", container.name, exc)


def is_chapter_track(stream: av.stream.Stream, chapters: list[Any]) -> bool:
    """Whether it is MP4's text track of the chapters: one sample for each of them."""
    text = stream.type == "data" and stream.name == "bin_data"
    return text and bool(chapters) and stream.frames == len(chapters)


def cut_chapters(chapters: list[Any], begin: Fraction, end: Fraction | None) -> list[Any]:
    """Select the chapters from `begin` to `end` (s; None: to the last), moved to start at 0."""
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
    """Whether it is QuickTime's timecode track, which the muxer makes from the video's tag."""
    both = "timecode" in stream.metadata and "timecode" in video.metadata
    return stream.type == "data" and both and container in ISO


def can_hold_aspect(codec: str, container: str) -> bool:
    """Whether the pixel aspect survives; in Matroska only codecs that store it themselves."""
    return container not in _MATROSKA or codec in _HOLD_ASPECT
