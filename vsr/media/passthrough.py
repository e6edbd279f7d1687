"""What goes from input to output untouched: other streams, metadata, chapters, rotation."""

import io
import logging
import re
import struct
from typing import Any, Final

import av
from av.codec.context import Flags

from vsr.media.encoder import EncoderSettings, configure, open_encoder
from vsr.media.info import VideoInfo

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
"""Containers with a place for rotation and chapters; the others drop both without a word."""
_VIDEO_IN: Final = {
    "mpegts": frozenset({"h264", "hevc", "mpeg2video", "mpeg1video", "mpeg4"}),
    "mov": frozenset({"h264", "hevc", "mpeg4", "prores", "mjpeg", "dnxhd", "ffv1", "png"}),
}
_OTHERS_IN: Final = {
    "mpegts": frozenset(
        {"mp1", "mp2", "mp3", "aac", "aac_latm", "ac3", "eac3", "dts", "dca", "opus", "s302m"}
        | {"mp3float", "dvb_subtitle", "dvbsub", "dvb_teletext", "klv", "timed_id3", "scte_35"}
    ),
    "flv": frozenset({"aac", "mp3", "mp3float", "speex", "ac3", "opus"}),
}
"""What these containers can really hold: FFmpeg writes anything into them, unreadably."""
_HOLD_ASPECT: Final = frozenset({"h264", "hevc", "mpeg4", "mpeg2video"})
"""Codecs whose own headers hold the pixel aspect."""
_USUAL_LAYOUT: Final = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_TRANSLATION: Final = (6, 7)
"""Elements of a display matrix that move the picture."""
_MATRIX_OFFSET: Final = {0: 40, 1: 52}
"""Bytes from a tkhd box's version field to its matrix, by version (ISO 14496-12, 8.3.2)."""


def metadata(tags: dict[str, str], outdated: frozenset[str] = frozenset()) -> dict[str, str]:
    """The tags that still hold for another container, without the `outdated` ones."""
    dropped = _CONTAINERS_OWN | outdated
    return {
        key: value
        for key, value in tags.items()
        if key.lower() not in dropped and not (outdated and key.lower().startswith("_statistics"))
    }


def label(stream: av.stream.Stream) -> str:
    """How a stream is named in a message: `subtitle #3 (subrip, eng)`."""
    context = stream.codec_context
    facts = [context.name if context else (stream.name or "unknown codec"), stream.language]
    return f"{stream.type} #{stream.index} ({', '.join(f for f in facts if f and f != 'und')})"


def can_carry(stream: av.stream.Stream, container: str) -> bool:
    """Whether a container format can hold a copy of this stream, found by writing a header."""
    if not _readable_in(stream, container):
        return False
    trial = av.open(io.BytesIO(), "w", format=container)
    try:
        copy_stream(trial, stream)
        trial.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    finally:
        close_quietly(trial)
    return True


def _readable_in(stream: av.stream.Stream, container: str) -> bool:
    art = bool(stream.disposition & av.stream.Disposition.attached_pic)
    if art and container in ("mov", "mpegts", "flv"):
        return False
    name = stream.codec_context.name if stream.codec_context else stream.name
    if stream.type == "video" and not art:
        return can_hold_video(str(name), container)
    return container not in _OTHERS_IN or name in _OTHERS_IN[container]


def can_hold_video(codec: str, container: str) -> bool:
    """Whether players find a video of this codec in this container."""
    return container not in _VIDEO_IN or codec in _VIDEO_IN[container]


def close_quietly(container: "av.container.OutputContainer") -> None:
    """Close a container whose content does not matter: a trial, or an abandoned output."""
    try:
        container.close()
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        log.debug("closing %s: %s", container.name, exc)


def is_chapter_track(stream: av.stream.Stream, chapters: list[Any]) -> bool:
    """MP4 keeps chapters as a text track too, one sample each; other data looks much the same."""
    text = stream.type == "data" and stream.name == "bin_data"
    return text and bool(chapters) and stream.frames == len(chapters)


def is_rewritten_timecode(
    stream: av.stream.Stream, video: av.stream.Stream, container: str
) -> bool:
    """QuickTime's timecode track, which the muxer makes anew from the video's tag."""
    both = "timecode" in stream.metadata and "timecode" in video.metadata
    return stream.type == "data" and both and container in ISO


def can_stretch(codec: str, container: str) -> bool:
    """Whether pixels that are not square survive: PyAV cannot tell Matroska's own field."""
    return container not in _MATROSKA or codec in _HOLD_ASPECT


def can_rotate(encoder: str, container: str) -> bool:
    """Whether the output can carry a display matrix (see `rotated_stream`)."""
    if container not in HOLD_EXTRAS:
        return False
    with av.open(io.BytesIO(), "w", format="mp4") as trial:
        try:
            trial.add_stream(encoder, rate=25)
        except ValueError:
            return False
        return True


def copy_stream(
    output: "av.container.OutputContainer", stream: av.stream.Stream
) -> av.stream.Stream:
    """Add a stream to `output` that takes the packets of `stream` as they are."""
    copy = output.add_stream_from_template(stream, opaque=True)
    if stream.type == "audio":
        _name_layout(copy)
    copy.time_base = stream.time_base
    copy.metadata.update(metadata(stream.metadata))
    copy.disposition = stream.disposition
    return copy


def _name_layout(copy: av.stream.Stream) -> None:
    """Give sound that tells only its number of channels the usual layout: MP4 asks for one."""
    context = copy.codec_context
    assert isinstance(context, av.AudioCodecContext)
    if re.fullmatch(r"\d+ channels", context.layout.name):
        usual = _USUAL_LAYOUT.get(context.layout.nb_channels)
        if usual:
            context.layout = usual


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
    with av.open(memory, "w", format="mp4", container_options={"movflags": "empty_moov"}) as trial:
        stream = trial.add_stream(encoder, rate=info.rate)
        assert isinstance(stream, av.VideoStream)
        configure(stream.codec_context, settings, info, size)
        open_encoder(stream.codec_context)
        trial.start_encoding()
    assert info.display_matrix is not None
    header = _with_matrix(memory.getvalue(), info.display_matrix, size[0] / info.width)
    with av.open(io.BytesIO(header)) as template:
        copy = output.add_stream_from_template(template.streams.video[0], opaque=True)
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    configure(context, settings, info, size)
    context.flags |= Flags.global_header
    open_encoder(context)
    # the template's own is in MP4's form, which would tell the muxer not to convert packets
    copy.codec_context.extradata = context.extradata
    # neither comes through the header, but muxers ask for both
    copy.codec_context.pix_fmt = context.pix_fmt
    if info.sample_aspect:
        copy.codec_context.sample_aspect_ratio = info.sample_aspect
    return copy, context


def _with_matrix(header: bytes, matrix: bytes, enlargement: float) -> bytes:
    """An MP4 header with the matrix of its only track replaced (big-endian in the file)."""
    at = header.index(b"tkhd") + 4
    start = at + _MATRIX_OFFSET[header[at]]
    values = list(struct.unpack("=9i", matrix))
    for k in _TRANSLATION:  # in pixels
        values[k] = round(values[k] * enlargement)
    data = struct.pack(">9i", *values)
    return header[:start] + data + header[start + len(data) :]
