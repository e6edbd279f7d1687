"""Describes an output (URL, container, streams, timeouts) for its process.

`vsr.live.output.process` imports nothing from here: what it must know is one line of JSON, the
plan.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av

from vsr.errors import OutputError, UsageError
from vsr.live.settings import OutputSettings
from vsr.media.location import check_protocol, is_url, local
from vsr.media.target import container_format
from vsr.media.tls import ca_file

FORMATS: Final = {
    "rtmp": "flv",
    "rtmps": "flv",
    "rtsp": "rtsp",
    "srt": "mpegts",
    "udp": "mpegts",
}
"""Schemes that can be published to -> FFmpeg's muxers."""
_OPTIONS: Final = {"flv": {"flvflags": "no_duration_filesize"}, "rtsp": {"rtsp_transport": "tcp"}}
_FRAGMENTS: Final = {"movflags": "+hybrid_fragmented+frag_keyframe", "frag_duration": "1000000"}
"""us: a file that is cut off plays to its last second, a finished one is an ordinary MP4."""
_CLUSTERS: Final = {"cluster_time_limit": "1000"}
"""ms: the same for Matroska."""
_FILE_OPTIONS: Final = {
    "mp4": _FRAGMENTS,
    "mov": _FRAGMENTS,
    "3gp": _FRAGMENTS,
    "matroska": _CLUSTERS,
    "webm": _CLUSTERS,
}
_LIVE: Final = {
    "flush_packets": "1",
    "max_interleave_delta": "1",  # us: packets go out as they come, not when their turn is sure
}


@dataclass(frozen=True, kw_only=True)
class OutputStreams:
    """Codec contexts of an output's streams; read when an output is created."""

    video: av.VideoCodecContext
    """An open encoder with `Flags.global_header`."""
    audio: av.AudioCodecContext | None
    """An open encoder, or the decoder of a stream whose packets are copied."""

    def facts(self) -> list[dict[str, object]]:
        """Return the parameters of each stream, for the process's plan."""
        if not self.video.extradata:
            raise ValueError("the video encoder must be open and have Flags.global_header set")
        video = {
            "size": {"width": self.video.width, "height": self.video.height},
            "sample_rate": None,
            "frame_rate": str(self.video.framerate or 0),
            "aspect": str(self.video.sample_aspect_ratio or 0),
        }
        found = [_common(self.video) | video]
        if self.audio is not None:
            audio = {
                "size": {},
                "sample_rate": self.audio.sample_rate,
                "layout": self.audio.layout.name,
            }
            found.append(_common(self.audio) | audio)
        return found


def _common(context: av.CodecContext) -> dict[str, object]:
    return {
        "codec": context.codec.canonical_name,
        "extradata": (context.extradata or b"").hex(),
        "bit_rate": context.bit_rate or 0,
    }


def muxer_for(url: str) -> str:
    """Return FFmpeg's muxer for a URL or file. Raises UsageError."""
    if not is_url(url):
        return container_format(Path(url))
    scheme = url.partition("://")[0].lower()
    if scheme not in FORMATS:
        known = ", ".join(f"{name}://" for name in FORMATS)
        raise UsageError(f"cannot publish to {scheme}://; use one of {known} or a file")
    return FORMATS[scheme]


def check_outputs(urls: Iterable[str]) -> None:
    """Raise UsageError or OutputError for a URL or file that cannot be written to."""
    for url in urls:
        muxer_for(url)
        check_protocol(url)
        folder = Path(local(url)).parent
        if not is_url(url) and not folder.is_dir():
            raise OutputError(f"the output folder does not exist: {folder} (create it first)")


def plan(url: str, streams: OutputStreams, settings: OutputSettings) -> bytes:
    """Encode the plan for the output's process as a line of JSON."""
    muxer = muxer_for(url)
    options = (_OPTIONS if is_url(url) else _FILE_OPTIONS).get(muxer, {})
    facts = {
        "url": url if is_url(url) else local(url),
        "file": not is_url(url),
        "format": muxer,
        "options": {**_LIVE, **options, **settings.options},
        "protocol": _protocol_options(url, settings),
        "streams": streams.facts(),
        "stall": settings.stall_s,
    }
    return json.dumps(facts).encode() + b"\n"


def _protocol_options(url: str, settings: OutputSettings) -> dict[str, str]:
    """Options of the connection rather than of the muxer."""
    if url.partition("://")[0].lower() != "rtmps" or not settings.tls_verify:
        return {}
    return {"tls_verify": "1", "ca_file": ca_file()}
