"""What goes from input to output untouched: other streams, metadata, chapters, rotation."""

import io
import logging
import struct
from typing import Any, Final

import av
from av.codec.context import Flags

from vsr.encoder import EncoderSettings, configure, open_encoder
from vsr.info import VideoInfo

log = logging.getLogger(__name__)

_CONTAINERS_OWN: Final = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
"""Tags that describe the input's container, not its content."""
_MATRIX_OFFSET: Final = {0: 40, 1: 52}
"""Bytes from a tkhd box's version field to its matrix, by version (ISO 14496-12, 8.3.2)."""


def metadata(tags: dict[str, str]) -> dict[str, str]:
    """The tags that still hold for another container."""
    return {key: value for key, value in tags.items() if key.lower() not in _CONTAINERS_OWN}


def label(stream: av.stream.Stream) -> str:
    """How a stream is named in a message: `subtitle #3 (subrip, eng)`."""
    context = stream.codec_context
    facts = [context.name if context else (stream.name or "unknown codec"), stream.language]
    return f"{stream.type} #{stream.index} ({', '.join(f for f in facts if f and f != 'und')})"


def can_carry(stream: av.stream.Stream, container: str) -> bool:
    """Whether a container format can hold a copy of this stream, found by writing a header."""
    trial = av.open(io.BytesIO(), "w", format=container)
    try:
        copy_stream(trial, stream)
        trial.start_encoding()
    except (av.error.FFmpegError, ValueError, NotImplementedError):
        return False
    finally:
        _close_quietly(trial)
    return True


def _close_quietly(trial: "av.container.OutputContainer") -> None:
    try:
        trial.close()
    except (av.error.FFmpegError, ValueError) as exc:
        log.debug("closing a trial container: %s", exc)


def is_chapter_track(stream: av.stream.Stream, chapters: list[Any]) -> bool:
    """MP4 keeps chapters as a text track too, which the muxer writes anew."""
    return bool(chapters) and stream.type == "data" and stream.name == "bin_data"


def copy_stream(
    output: "av.container.OutputContainer", stream: av.stream.Stream
) -> av.stream.Stream:
    """Add a stream to `output` that takes the packets of `stream` as they are."""
    copy = output.add_stream_from_template(stream, opaque=True)
    copy.time_base = stream.time_base
    copy.metadata.update(metadata(stream.metadata))
    copy.disposition = stream.disposition
    return copy


def rotated_stream(
    output: "av.container.OutputContainer",
    encoder: str,
    settings: EncoderSettings,
    info: VideoInfo,
    size: tuple[int, int],
) -> tuple[av.VideoStream, av.VideoCodecContext]:
    """An output video stream that carries the source's display matrix, and its encoder.

    PyAV offers no way to set a stream's side data, but copies it from a template. So a header
    is written to memory by the same encoder, its matrix replaced, and read back as template.
    """
    memory = io.BytesIO()
    with av.open(memory, "w", format="mov", container_options={"movflags": "empty_moov"}) as trial:
        stream = trial.add_stream(encoder, rate=info.rate)
        assert isinstance(stream, av.VideoStream)
        configure(stream.codec_context, settings, info, size)
        open_encoder(stream.codec_context)
        trial.start_encoding()
    assert info.display_matrix is not None
    header = _with_matrix(memory.getvalue(), info.display_matrix)
    with av.open(io.BytesIO(header)) as template:
        copy = output.add_stream_from_template(template.streams.video[0], opaque=True)
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    configure(context, settings, info, size)
    context.flags |= Flags.global_header
    open_encoder(context)
    # the template's own is in MP4's form, which would tell the muxer not to convert packets
    copy.codec_context.extradata = context.extradata
    return copy, context


def _with_matrix(header: bytes, matrix: bytes) -> bytes:
    """A QuickTime header with the matrix of its only track replaced (big-endian in the file)."""
    at = header.index(b"tkhd") + 4
    start = at + _MATRIX_OFFSET[header[at]]
    values = struct.pack(">9i", *struct.unpack("=9i", matrix))
    return header[:start] + values + header[start + len(values) :]
