"""Reads and writes the MP4 boxes (ISO/IEC 14496-12) that describe a video.

PyAV exposes little of what FFmpeg knows about a stream, but FFmpeg writes it to the header of an
MP4.
"""

import io
import logging
import struct
from collections.abc import Iterator
from typing import Final

import av

from vsr.errors import reason
from vsr.media.passthrough import close_quietly

log = logging.getLogger(__name__)

VIDEO_ENTRY_BYTES: Final = 78
"""Size of the fixed part of a video's sample entry, before its boxes, in bytes (12.1.3)."""
_PATH: Final = (b"mdia", b"minf", b"stbl", b"stsd")
_STSD_HEADER_BYTES: Final = 8
"""Offset of the first sample entry in `stsd`, in bytes."""
MP4_HEADER_FIRST: Final = {"strict": "unofficial", "movflags": "+empty_moov+frag_keyframe"}
"""FFmpeg options for an MP4 with a complete header at the start and non-standard markings."""


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of consecutive boxes."""
    at = 0
    while at + 8 <= len(data):
        size = struct.unpack_from(">I", data, at)[0]
        if size < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size


def box(kind: bytes, content: bytes) -> bytes:
    """Return a box of the given type."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def video_entries(movie: bytes) -> Iterator[bytes]:
    """Yield the content of each track's first sample entry; `movie` is the content of `moov`."""
    for kind, track in boxes(movie):
        content = {b"trak": track}.get(kind, b"")
        for step in _PATH:
            content = next((inner for name, inner in boxes(content) if name == step), b"")
        yield from (entry for _, entry in list(boxes(content[_STSD_HEADER_BYTES:]))[:1])


def mp4_header(stream: av.VideoStream) -> bytes:
    """Return an MP4 header with a copy of the stream; empty if MP4 cannot hold its codec."""
    content = io.BytesIO()
    try:
        scratch = av.open(content, "w", format="mp4", container_options=dict(MP4_HEADER_FIRST))
        try:
            scratch.add_stream_from_template(stream, opaque=True)
            scratch.start_encoding()
        finally:
            close_quietly(scratch)
    except (av.error.FFmpegError, ValueError) as exc:
        log.debug("no header of %s: %s", stream.codec_context.name, reason(exc))
    return content.getvalue()


def sample_entry_boxes(stream: av.VideoStream) -> dict[bytes, bytes]:
    """Return the boxes that FFmpeg writes into a stream's sample entry: type -> content."""
    movie = dict(boxes(mp4_header(stream))).get(b"moov", b"")
    return next((dict(boxes(entry[VIDEO_ENTRY_BYTES:])) for entry in video_entries(movie)), {})


def add_entry_boxes(header: bytes, more: bytes) -> bytes:
    """Return the header of an MP4 with one track, with more boxes added to its sample entry."""
    return _append_at(header, (b"moov", b"trak", *_PATH), more)


def _append_at(data: bytes, path: tuple[bytes, ...], more: bytes) -> bytes:
    """Copy consecutive boxes and append `more` to the content of the box at `path`."""
    made = b""
    for kind, content in boxes(data):
        grown = content
        if not path:  # the sample entry
            grown += more
        elif kind == path[0]:
            head = _STSD_HEADER_BYTES if kind == b"stsd" else 0
            grown = content[:head] + _append_at(content[head:], path[1:], more)
        made += box(kind, grown)
    return made
