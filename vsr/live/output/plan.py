"""Describes an output (URL, container, streams, timeouts) for its process.

`vsr.live.output.process` imports nothing from this file: it receives the plan, one line of JSON.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import av

from vsr.errors import OutputError, UsageError
from vsr.live.output.enhanced_rtmp import FOURCC
from vsr.live.settings import OutputSettings
from vsr.media.encoder import EncoderSettings, encoder_name
from vsr.media.location import (
    absolute_path,
    check_address,
    check_protocol,
    is_url,
    url_for_messages,
)
from vsr.media.passthrough import can_hold_encoder
from vsr.media.target import CONTAINERS, STDOUT, container_format, pipe_format, pipe_of
from vsr.media.tls import ca_file

FORMATS: Final = {
    "rtmp": "flv",
    "rtmps": "flv",
    "rtsp": "rtsp",
    "srt": "mpegts",
    "udp": "mpegts",
}
"""URL scheme that can be published to -> FFmpeg muxer."""
_COLOUR_ATTRIBUTES: Final = ("color_range", "colorspace", "color_primaries", "color_trc")
"""PyAV's names of the colour attributes, which containers store beside the codec data."""
_MP4_OPTIONS: Final = {"movflags": "+hybrid_fragmented+frag_keyframe", "frag_duration": "1000000"}
"""MP4 options (µs): a truncated file plays to its last second, a finished one is a plain MP4."""
_MATROSKA_OPTIONS: Final = {"cluster_time_limit": "1000"}
"""Matroska options (ms) with the same effect."""
_FILE_OPTIONS: Final = {
    "mp4": _MP4_OPTIONS,
    "mov": _MP4_OPTIONS,
    "3gp": _MP4_OPTIONS,
    "matroska": _MATROSKA_OPTIONS,
    "webm": _MATROSKA_OPTIONS,
}
_HLS_OPTIONS: Final = {
    "hls_time": "2",
    "hls_list_size": "6",
    # segments that left the playlist are deleted; after a restart the playlist continues
    "hls_flags": "delete_segments+append_list+independent_segments+temp_file",
}
_SEGMENTS: Final = {"hls": "mpegts"}
"""Muxer of playlists -> muxer of their segments."""
_MUXER_OPTIONS: Final = {
    "flv": {"flvflags": "no_duration_filesize"},
    "rtsp": {"rtsp_transport": "tcp"},
    "hls": _HLS_OPTIONS,
}
_PIPE_CONTAINERS: Final = ("ts", "flv", "mkv", "nut")
"""Containers in which live streams can be written to stdout."""
_NO_AAC: Final = frozenset({"webm", "yuv4mpegpipe"})
"""Containers that cannot hold AAC, which every output of a relay has."""
_RECORDINGS: Final = {end: name for end, name in CONTAINERS.items() if name not in _NO_AAC}
"""File ending -> FFmpeg's container, for recordings."""
_ADVISED: Final = ("mkv", "mp4", "ts")
_RTSP_CODECS: Final = frozenset(
    {"h264", "hevc", "av1", "vp8", "vp9", "mjpeg", "mpeg4", "mpeg2video", "mpeg1video"}
)
"""Codecs that FFmpeg's RTSP muxer can write; it accepts any at first."""
_FILE_RETRY_S: Final = 0.1
"""Delay before a new process resumes a recording, in seconds."""
_LIVE_OPTIONS: Final = {
    "flush_packets": "1",
    "max_interleave_delta": "1",  # µs: packets are written on arrival, not interleaved
}


@dataclass(frozen=True, kw_only=True)
class OutputStreams:
    """Codec contexts of an output's streams; they are read when the output is created."""

    video: av.VideoCodecContext
    """An open encoder with `Flags.global_header`."""
    audio: av.AudioCodecContext | None
    """An open encoder, or the decoder of a stream whose packets are copied."""

    def facts(self) -> list[dict[str, object]]:
        """Return the parameters of each stream, for the plan. Raises ValueError without header."""
        if not self.video.extradata:
            raise ValueError("the video encoder must be open and have Flags.global_header set")
        video = {
            "size": {"width": self.video.width, "height": self.video.height},
            "sample_rate": None,
            "frame_rate": str(self.video.framerate or 0),
            "aspect": str(self.video.sample_aspect_ratio or 0),
            "colour": {name: int(getattr(self.video, name)) for name in _COLOUR_ATTRIBUTES},
        }
        found = [_codec_facts(self.video) | video]
        if self.audio is not None:
            audio = {
                "size": {},
                "sample_rate": self.audio.sample_rate,
                "layout": self.audio.layout.name,
            }
            found.append(_codec_facts(self.audio) | audio)
        return found


def _codec_facts(context: av.CodecContext) -> dict[str, object]:
    return {
        "codec": context.codec.canonical_name,
        "extradata": (context.extradata or b"").hex(),
        "bit_rate": context.bit_rate or 0,
    }


def kind_of(url: str) -> Literal["url", "file", "playlist", "pipe"]:
    """Return the kind of output that a name or URL denotes."""
    if pipe_of(Path(url)) is not None:
        return "pipe"
    if is_url(url):
        return "url"
    return "playlist" if url.lower().endswith(".m3u8") else "file"


def output_name(url: str) -> str:
    """Format an output's name for messages, without secrets."""
    return "stdout" if url == STDOUT else url_for_messages(url)


def settings_for(url: str, settings: OutputSettings | None) -> OutputSettings:
    """Return the settings; for files, retry sooner and keep more packets meanwhile: losing none
    matters more than delay."""
    settings = settings or OutputSettings()
    if kind_of(url) != "file":
        return settings
    return replace(settings, start_backlog_s=settings.queue_s, retry_s=_FILE_RETRY_S)


def muxer_for(url: str, container: str | None = None) -> str:
    """Return FFmpeg's muxer for a URL, a file, or a pipe's `container`. Raises UsageError."""
    kind = kind_of(url)
    if kind == "pipe":
        name = container or _PIPE_CONTAINERS[0]
        if name not in _PIPE_CONTAINERS:
            raise UsageError(
                f"a live stream to stdout is {', '.join(_PIPE_CONTAINERS)}, not '{name}'"
            )
        return pipe_format(name)
    if kind != "url":
        return "hls" if kind == "playlist" else _file_format(Path(url))
    scheme = url.partition("://")[0].lower()
    if scheme not in FORMATS:
        known = ", ".join(f"{name}://" for name in FORMATS)
        raise UsageError(f"cannot publish to {scheme}://; use one of {known} or a file")
    return FORMATS[scheme]


def _file_format(path: Path) -> str:
    """Return FFmpeg's muxer for a file name. Raises UsageError."""
    suffix = path.suffix.lower().removeprefix(".")
    if CONTAINERS.get(suffix) in _NO_AAC:
        raise UsageError(
            f"a .{suffix} cannot hold AAC, the sound of a live stream: use .mkv, .mp4 or .ts"
        )
    if suffix not in CONTAINERS:
        # the name is not shown: it may be a URL without rtmp://, with a stream key
        known = ", ".join(f".{name}" for name in (*_RECORDINGS, "m3u8"))
        raise UsageError(
            "an output is neither a URL, such as rtmp://HOST/APPLICATION/KEY, nor a file whose "
            f"name ends in one of {known}"
        )
    return container_format(path)


def check_outputs(
    urls: Sequence[str],
    settings: OutputSettings | None = None,
    encoder: EncoderSettings | None = None,
) -> None:
    """Raise UsageError or OutputError for outputs that cannot be written to."""
    settings = settings or OutputSettings()
    name = encoder_name(encoder or EncoderSettings(), "flv")
    for url in urls:
        kind = kind_of(url)
        muxer = muxer_for(url, settings.container)
        check_address(url)
        check_protocol(url)
        if kind == "pipe" and os.isatty(pipe_of(Path(url)) or 0):
            raise UsageError("stdout is a terminal: pipe it into a program that reads video")
        _check_holds(url, muxer, name)
        folder = Path(absolute_path(url)).parent
        if kind in ("file", "playlist") and not folder.is_dir():
            raise OutputError(f"the output folder does not exist: {folder} (create it first)")
    if settings.container is not None and all(kind_of(url) != "pipe" for url in urls):
        raise UsageError(
            "--format applies only to OUTPUT -: other outputs' formats follow from their names"
        )


def _check_holds(url: str, muxer: str, encoder: str) -> None:
    """Raise UsageError if the output's format cannot hold the encoder's video."""
    codec, kind = av.Codec(encoder, "w").canonical_name, kind_of(url)
    if muxer == "rtsp":
        held = codec in _RTSP_CODECS
    else:
        held = can_hold_encoder(encoder, _SEGMENTS.get(muxer, muxer))
    if held:
        return
    if kind == "url":
        scheme = url.partition("://")[0].lower()
        raise UsageError(f"{scheme}:// outputs cannot contain {codec}: use -c h264")
    if kind == "pipe":
        raise UsageError(f"{muxer} on stdout cannot contain {codec}: use -c h264 or --format mkv")
    endings = [f".{end}" for end in _ADVISED if can_hold_encoder(encoder, _RECORDINGS[end])]
    use = f"use {' or '.join(endings)}, or" if endings else "use"
    raise UsageError(f"{Path(url).name} cannot contain live {codec}: {use} --codec h264")


def encode_plan(url: str, streams: OutputStreams, settings: OutputSettings) -> bytes:
    """Encode the plan for the output's process as a line of JSON."""
    muxer, kind = muxer_for(url, settings.container), kind_of(url)
    options = (_FILE_OPTIONS if kind == "file" else _MUXER_OPTIONS).get(muxer, {})
    codec = streams.video.codec.canonical_name
    enhanced = url.lower().startswith(("rtmp://", "rtmps://")) and codec in FOURCC
    facts = {
        "url": absolute_path(url) if kind in ("file", "playlist") else url,
        "file": kind == "file",
        "format": muxer,
        "options": {**_LIVE_OPTIONS, **options, **settings.options},
        "protocol": _protocol_options(url, settings, enhanced),
        "check_codec": codec if enhanced and not settings.enhanced_rtmp else "",
        "streams": streams.facts(),
        "stall_s": settings.io_timeout_s,
    }
    return json.dumps(facts).encode() + b"\n"


def _protocol_options(url: str, settings: OutputSettings, enhanced: bool) -> dict[str, str]:
    """Return options of the connection, not of the muxer."""
    scheme, options = url.partition("://")[0].lower(), {}
    if scheme == "rtmps" and settings.tls_verify:
        options = {"tls_verify": "1", "ca_file": ca_file()}
    if enhanced:
        options["rtmp_enhanced_codecs"] = ",".join(FOURCC.values())
    return options
