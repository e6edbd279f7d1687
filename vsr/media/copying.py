"""Adds streams to an output that copy an input's packets, if its container can hold them."""

import io
import logging
import re
from typing import Final

import av
from av.bitstream import BitStreamFilterContext

from vsr.media.channel_layout import layout_of, usual_layout
from vsr.media.passthrough import MP4_FAMILY, can_hold_video, close_quietly
from vsr.media.stream_tags import stream_tags
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

_CODECS_IN: Final = {
    "mpegts": frozenset(
        {"mp1", "mp2", "mp3", "aac", "aac_latm", "ac3", "eac3", "dts", "opus", "s302m"}
        | {"dvb_subtitle", "dvb_teletext", "arib_caption", "klv", "timed_id3", "scte_35"}
        | {"truehd"}
    ),
    "m2ts": frozenset({"hdmv_pgs_subtitle"}),
    "flv": frozenset({"aac", "mp3", "speex", "ac3", "eac3", "opus", "flac"}),
}
"""Container -> codecs other than video that players support in it; FFmpeg also writes others.
`m2ts`: additional codecs in a Blu-ray's transport stream."""
HOLDS_ATTACHMENTS: Final = "matroska"
"""Only container with attachments; FFmpeg's WebM muxer drops them without an error."""
_COVER_FILES: Final = {
    "mjpeg": ("cover.jpg", "image/jpeg"),
    "png": ("cover.png", "image/png"),
    "bmp": ("cover.bmp", "image/bmp"),
    "gif": ("cover.gif", "image/gif"),
    "tiff": ("cover.tiff", "image/tiff"),
    "webp": ("cover.webp", "image/webp"),
}
"""Codec of cover art -> file name and MIME type of its attachment; Matroska defines the names."""
_COVERS_IN: Final = {"mp4": frozenset({"mjpeg", "png", "bmp"})}
"""Container -> codecs of cover art that it holds as a stream; in others it would become a video."""
_PLACEHOLDER_CODECS: Final = {
    "audio": ("aac", "vorbis", "opus", "amr_nb"),
    "subtitle": ("subrip", "mov_text", "webvtt", "text", "dvb_subtitle"),
    "video": ("h264", "vp9"),
}
"""Placeholder codecs of a new stream until it gets its real one; containers accept at least one."""
_ANY_CODEC_CONTAINER: Final = "framecrc"
"""Container that accepts every codec and writes the codec's name into its header."""
_FILLER: Final = bytes(1024 * 3 * 5 * 7)  # whole samples of PCM
_ERRORS: Final = (av.error.FFmpegError, ValueError)


def codec_name(stream: av.stream.Stream) -> str:
    """Return FFmpeg's name of a stream's codec, even if this FFmpeg has no decoder for it.

    Returns `none` if FFmpeg does not know the codec.
    """
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    header = io.BytesIO()
    try:
        with av.open(header, "w", format=_ANY_CODEC_CONTAINER) as scratch:
            _take_parameters(stream, _blank(scratch, stream.type))
            scratch.start_encoding()
    except _ERRORS as exc:
        log.debug("stream #%d: %s", stream.index, exc)
    found = re.search(rb"#codec_id 0: (\S+)", header.getvalue())
    return found[1].decode() if found else "none"


def stream_label(stream: av.stream.Stream) -> str:
    """Return a stream's name for messages, such as `subtitle #3 (subrip, eng)`."""
    context = stream.codec_context
    codec = context.name if context is not None else codec_name(stream)
    codec = "unknown codec" if codec == "none" else codec
    if stream.type == "attachment" and (name := stream.metadata.get("filename", "")).isprintable():
        codec = name or codec
    kind: str = stream.type if stream.type != "unknown" else "stream"
    kind = "cover art" if is_cover(stream) else kind
    facts = [codec, stream.language]
    return f"{kind} #{stream.index} ({', '.join(f for f in facts if f and f != 'und')})"


def is_cover(stream: av.stream.Stream) -> bool:
    """Return whether a stream is cover art: one picture that belongs to the whole file."""
    art, timed = av.stream.Disposition.attached_pic, av.stream.Disposition.timed_thumbnails
    return stream.disposition & (art | timed) == art


def attach_cover(
    output: "av.container.OutputContainer", stream: av.stream.Stream, picture: bytes
) -> bool:
    """Add the picture of a cover art stream to a Matroska file, before its header is written.

    As a copied stream it would become a video track, because FFmpeg's muxer knows no cover art.
    Returns False if there is no such picture, or its kind is unknown.
    """
    usual = _COVER_FILES.get(codec_name(stream))
    if usual is None or not picture:
        return False
    name = stream.metadata.get("filename", usual[0])
    taken = {other.metadata.get("filename") for other in output.streams}
    stem, dot, ending = name.rpartition(".")
    numbered = (f"{stem}_{number}{dot}{ending}" for number in range(2, len(taken) + 3))
    free = next(each for each in (name, *numbered) if each not in taken)
    output.add_attachment(free, stream.metadata.get("mimetype", usual[1]), picture)
    return True


def copy_stream(
    output: "av.container.OutputContainer", stream: av.stream.Stream
) -> av.stream.Stream:
    """Add a stream to `output` that takes the packets of `stream` unchanged.

    Raises ValueError or FFmpegError if that is impossible; some containers raise only when the
    header is written.
    """
    try:
        copy = _from_template(output, stream)
    except ValueError:  # PyAV's table lacks, among others, what Matroska stores as in AVI
        copy = _blank(output, stream.type)
        _take_parameters(stream, copy)
    copy.time_base = stream.time_base
    copy.metadata.update(stream_tags(stream, output.format.name))
    copy.disposition = stream.disposition
    return copy


def _from_template(
    output: "av.container.OutputContainer", stream: av.stream.Stream
) -> av.stream.Stream:
    copy = output.add_stream_from_template(stream, opaque=True)
    if stream.type == "audio":
        _name_layout(copy)
    return copy


def _blank(output: "av.container.OutputContainer", kind: str) -> av.stream.Stream:
    """Add a stream with a placeholder codec, or a data stream."""
    for codec in _PLACEHOLDER_CODECS.get(kind, ()):
        try:
            return output.add_mux_stream(codec)
        except ValueError:
            continue
    return output.add_data_stream()


def _take_parameters(stream: av.stream.Stream, copy: av.stream.Stream) -> None:
    """Copy all codec parameters to a blank stream, by the `null` bitstream filter."""
    if stream.codec_context is None:
        BitStreamFilterContext("null", stream, copy)
        return
    # drops the input's codec tag
    with av.open(io.BytesIO(), "w", format=_ANY_CODEC_CONTAINER) as scratch:
        plain = _from_template(scratch, stream)
        scratch.start_encoding()
        BitStreamFilterContext("null", plain, copy)


def _name_layout(copy: av.stream.Stream) -> None:
    """Set the usual layout for audio that has only a channel count, as MP4 needs one."""
    context = copy.codec_context
    assert isinstance(context, av.AudioCodecContext)
    layout = layout_of(context)
    usual = usual_layout(layout)
    if usual not in (None, layout.name):
        context.layout = usual


def can_copy(stream: av.stream.Stream, container: str, blu_ray: bool = False) -> bool:
    """Return whether a container can hold a copy of this stream that can be read back.

    Tested by writing one: a header if FFmpeg's tables know the pair, else a file that is read back.
    `blu_ray`: whether the transport stream is a Blu-ray's, which has additional stream types.
    """
    try:
        if blu_ray and codec_name(stream) in _CODECS_IN["m2ts"]:
            return True
        return _is_supported(stream, container) and _can_write(stream, container)
    except _ERRORS as exc:
        log.debug("%s in %s: %s", stream_label(stream), container, exc)
        return False


def _can_write(stream: av.stream.Stream, container: str) -> bool:
    content = io.BytesIO()
    trial = av.open(content, "w", format=container)
    try:
        copy = copy_stream(trial, stream)
        trial.start_encoding()
        name = codec_name(stream)
        if name.startswith("pcm_"):  # MP4 refuses channels without a known layout at its end only
            trial.mux_one(_filler_packet(copy))
            trial.close()
            return True
        if copy.codec_context is not None or name == "none" or stream.type == "attachment":
            return True
        trial.mux_one(_filler_packet(copy))
    finally:
        close_quietly(trial)
    content.seek(0)
    with av.open(content, "r", format=None) as written:
        return name in [codec_name(s) for s in written.streams]


def _filler_packet(copy: av.stream.Stream) -> Packet:
    packet: Packet = av.Packet(_FILLER)
    packet.stream, packet.pts, packet.dts = copy, 0, 0
    packet.duration, packet.is_keyframe = 1, True
    return packet


def _is_supported(stream: av.stream.Stream, container: str) -> bool:
    if stream.type == "attachment":
        return container == HOLDS_ATTACHMENTS
    name = codec_name(stream)
    if is_cover(stream):
        return name in _COVERS_IN.get(container, ())
    if name == "none":
        return stream.type == "data" and container in MP4_FAMILY  # identified by its tag only
    if stream.type == "video":
        return can_hold_video(name, container)
    return container not in _CODECS_IN or name in _CODECS_IN[container]
