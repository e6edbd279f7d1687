"""Chooses which streams of an input are used: its video and the streams that belong to it."""

import re
from collections import Counter
from pathlib import Path
from typing import Final

import av

from vsr.errors import InputError
from vsr.media.location import absolute_path, is_url, normal_url
from vsr.media.opening import OPEN_TIMEOUT, READ_ERRORS, READ_TIMEOUT
from vsr.media.timestamps import Packet
from vsr.media.variants import BEST_FIT, BITRATE, VariantChoice

_ATTRIBUTE: Final = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')
_ART: Final = av.stream.Disposition.attached_pic


def choose_streams(
    container: "av.container.InputContainer", url: str, name: str, variant: VariantChoice = BEST_FIT
) -> tuple[av.VideoStream, tuple[av.stream.Stream, ...]]:
    """Return the video stream to use, and all streams to use, including the video.

    These are the first video that is not cover art and can be decoded, and all other streams. A
    playlist with variants (HLS) holds the same video several times: there they are the video that
    `variant` selects and its audio; the other streams are not read or downloaded any further.
    Raises InputError if there is no such video.
    """
    videos = [
        stream
        for stream in container.streams.video
        if not stream.disposition & _ART and stream.codec_context is not None
    ]
    if not videos:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no streams"
        raise InputError(f"{name} has no video that can be decoded (it holds {kinds})")
    if not container.format.name.startswith("hls"):
        variant.check_unset(name)
        return videos[0], tuple(container.streams)
    best = variant.select(videos, name)
    kept = _streams_of_variant(container, best, url)
    for stream in container.streams:
        if stream not in kept:
            stream.discard = av.stream.Discard.all
    return best, kept


def _streams_of_variant(
    container: "av.container.InputContainer", best: av.VideoStream, url: str
) -> tuple[av.stream.Stream, ...]:
    """Return the streams of a playlist's variant; a stream's `id` is its playlist's number."""
    others = {video.id for video in container.streams.video} - {best.id}
    shared = [
        stream
        for stream in container.streams
        if stream.type != "video" and stream.id not in others | {best.id}
        if stream.metadata.get(BITRATE) in (None, best.metadata.get(BITRATE))
    ]
    sounds = [stream for stream in shared if stream.type == "audio"]
    if len(sounds) > 1 and BITRATE in best.metadata:
        chosen = _audio_of_variant(sounds, read_playlist(url), best.metadata[BITRATE])
        shared = [stream for stream in shared if stream.type != "audio" or stream in chosen]
    kept = [best, *shared]
    kept += [s for s in container.streams if s.id == best.id and s.type != "video"]
    return tuple(sorted(kept, key=lambda stream: stream.index))


def _audio_of_variant(
    sounds: list[av.stream.Stream], master: str, bitrate: str
) -> list[av.stream.Stream]:
    """Return the audio streams of the group of the variant with that bitrate; all if unknown.

    Groups usually hold the same names and languages; FFmpeg lists audio streams that share both in
    the order of the playlist.
    """
    lines = [line.strip() for line in master.splitlines()]
    group = next(
        (
            attributes.get("AUDIO")
            for attributes in _tag_attributes(lines, "#EXT-X-STREAM-INF:")
            if attributes.get("BANDWIDTH") == bitrate
        ),
        None,
    )
    if group is None:
        return sounds
    chosen, seen = [], Counter[tuple[str | None, str | None]]()
    for attributes in _tag_attributes(lines, "#EXT-X-MEDIA:"):
        if attributes.get("TYPE") != "AUDIO" or "URI" not in attributes:
            continue
        key = (attributes.get("NAME"), attributes.get("LANGUAGE"))
        alike = [s for s in sounds if (s.metadata.get("comment"), s.language) == key]
        if attributes.get("GROUP-ID") == group and seen[key] < len(alike):
            chosen.append(alike[seen[key]])
        seen[key] += 1
    return chosen or sounds


def _tag_attributes(lines: list[str], tag: str) -> list[dict[str, str]]:
    """Parse the attributes of playlist lines that begin with a tag (RFC 8216, section 4.2)."""
    return [
        {key: value.strip('"') for key, value in _ATTRIBUTE.findall(line[len(tag) :])}
        for line in lines
        if line.startswith(tag)
    ]


def read_playlist(url: str) -> str:
    """Read a playlist again, through FFmpeg if it is a URL; return "" if that fails."""
    try:
        if not is_url(url):
            return Path(absolute_path(url)).read_text(encoding="utf-8", errors="replace")
        timeout = (OPEN_TIMEOUT, READ_TIMEOUT)
        with av.open(normal_url(url), "r", format="data", timeout=timeout) as container:
            packets: list[Packet] = list(container.demux())
            return b"".join(bytes(packet) for packet in packets).decode("utf-8", "replace")
    except READ_ERRORS:
        return ""
