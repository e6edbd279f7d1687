"""Reads and makes the boxes of MP4 (ISO/IEC 14496-12) in which it describes a video.

PyAV passes on little of what FFmpeg knows about a stream; in the header of an MP4 FFmpeg writes it.
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

VIDEO_ENTRY: Final = 78
"""Bytes of a video's sample entry before its boxes (12.1.3)."""
_PATH: Final = (b"mdia", b"minf", b"stbl", b"stsd")
_DESCRIPTIONS: Final = 8
"""Bytes before the first sample entry in `stsd`."""
MP4_AT_ONCE: Final = {"strict": "unofficial", "movflags": "+empty_moov+frag_keyframe"}
"""FFmpeg's options for a header that is complete at once, with markings that are no standard."""


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of the boxes in a row."""
    at = 0
    while at + 8 <= len(data):
        size = struct.unpack_from(">I", data, at)[0]
        if size < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size


def box(kind: bytes, content: bytes) -> bytes:
    """A box of that type."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def video_entries(movie: bytes) -> Iterator[bytes]:
    """Yield the content of the first sample entry of each track; `movie` is that of `moov`."""
    for kind, track in boxes(movie):
        content = {b"trak": track}.get(kind, b"")
        for step in _PATH:
            content = next((inner for name, inner in boxes(content) if name == step), b"")
        yield from (entry for _, entry in list(boxes(content[_DESCRIPTIONS:]))[:1])


def whole_header(stream: av.VideoStream) -> bytes:
    """The header of an MP4 with a copy of the stream; empty where MP4 cannot hold its codec."""
    content = io.BytesIO()
    try:
        scratch = av.open(content, "w", format="mp4", container_options=dict(MP4_AT_ONCE))
        try:
            scratch.add_stream_from_template(stream, opaque=True)
            scratch.start_encoding()
        finally:
            close_quietly(scratch)
    except (av.error.FFmpegError, ValueError) as exc:
        log.debug("no header of %s: %s", stream.codec_context.name, reason(exc))
    return content.getvalue()


def described(stream: av.VideoStream) -> dict[bytes, bytes]:
    """What FFmpeg knows about a stream: type -> content of the boxes in its sample entry."""
    movie = dict(boxes(whole_header(stream))).get(b"moov", b"")
    return next((dict(boxes(entry[VIDEO_ENTRY:])) for entry in video_entries(movie)), {})


def extended(header: bytes, more: bytes) -> bytes:
    """The header of an MP4 with one track, with more boxes in its sample entry."""
    return _grown(header, (b"moov", b"trak", *_PATH), more)


def _grown(data: bytes, path: tuple[bytes, ...], more: bytes) -> bytes:
    """Copy boxes in a row, of which one, and its content in turn, is that of the path."""
    made = b""
    for kind, content in boxes(data):
        grown = content
        if not path:  # the sample entry
            grown += more
        elif kind == path[0]:
            head = _DESCRIPTIONS if kind == b"stsd" else 0
            grown = content[:head] + _grown(content[head:], path[1:], more)
        made += box(kind, grown)
    return made
