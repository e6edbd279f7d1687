"""Adds the video track to an output: its encoder, and its properties in encoder and container."""

import contextlib
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

import av

from vsr.errors import UsageError
from vsr.media.alpha import can_hold_alpha, has_alpha
from vsr.media.encoder import EncoderSettings, VideoFormat, encoder_name, open_encoder
from vsr.media.frame import PIXEL_FORMAT
from vsr.media.frame_numbers import FrameNumbers, encoder_time_base
from vsr.media.hdr import HDR_ENCODERS
from vsr.media.passthrough import (
    HOLD_ROTATION_AND_CHAPTERS,
    MP4_FAMILY,
    can_hold_aspect,
    can_hold_encoder,
)
from vsr.media.pixel_choice import format_losses
from vsr.media.plane_format import planes_for
from vsr.media.spatial import MarkedStream, can_mark
from vsr.media.stereo import mark_stereo
from vsr.media.target import CONTAINERS, MUXER_OPTIONS
from vsr.media.y4m import FORMAT as Y4M
from vsr.media.y4m import can_hold_siting

_FRAME_THREADS: Final = av.codec.codec.Capabilities.frame_threads
_MARKINGS: Final = {"strict": "unofficial"}
"""FFmpeg option that allows non-standard markings in containers."""


@dataclass(kw_only=True)
class Track:
    """Video track of an output, ready for frames."""

    stream: av.stream.Stream
    """Stream for the encoder's packets."""
    encoder: av.VideoCodecContext
    codec: str
    """FFmpeg's name of the codec, such as `hevc`."""
    lost: list[str] = field(default_factory=list)
    """Properties that neither encoder nor container can hold, as text for messages."""
    marked: MarkedStream | None = None
    """Owner of the encoder of a marked stream; None for others."""
    numbers: FrameNumbers | None = None
    """Numbers that replace the frames' timestamps in the encoder; None: it gets their times."""

    def discard_frames(self) -> None:
        """Wait for the threads of an encoder that was not drained, before it is freed.

        PyAV 18.1 frees an encoder, and waits for its threads, while it holds the GIL; a thread that
        releases a frame's planes, which are numpy's, waits for the GIL: a deadlock. Only threads
        that FFmpeg runs for frames, as for Y4M's rawvideo, release frames.
        """
        if not self.encoder.is_open or not self.encoder.codec.capabilities & _FRAME_THREADS:
            return
        with contextlib.suppress(av.error.FFmpegError):  # such as EOFError if it was drained
            self.encoder.encode(None)


def muxer_options(container: str, video: VideoFormat) -> dict[str, str]:
    """Return FFmpeg's options for an output's container."""
    return {
        **MUXER_OPTIONS.get(container, {}),
        **(_MARKINGS if video.spatial else {}),
    }


def add_video(
    output: "av.container.OutputContainer", ending: str, video: VideoFormat,
    settings: EncoderSettings, in_band: bool,
) -> Track:  # fmt: skip
    """Add the video to an output whose name has `ending`. `in_band`: `headers_in_band` of `Sink`.

    Raises UsageError and OutputError.
    """
    container = output.format.name
    name = encoder_name(settings, container, video)
    canonical = av.Codec(name, "w").canonical_name
    if not can_hold_encoder(name, container):
        usual = encoder_name(replace(settings, codec=None), container, video)
        raise UsageError(
            f"{ending} cannot hold {name}'s video; use {_endings_for(name)}"
            + ", or leave out --codec" * can_hold_encoder(usual, container)
        )
    markings = video.spatial
    if video.hdr and name not in HDR_ENCODERS:
        markings += video.hdr.boxes
    marked = MarkedStream(name, video.rate) if can_mark(markings, canonical, container) else None
    stream = marked.stream if marked else output.add_stream(name, rate=video.rate)
    assert isinstance(stream, av.VideoStream)
    track = Track(
        stream=stream, encoder=stream.codec_context, codec=canonical, marked=marked
    )  # fmt: skip
    if video.stereo is not None:
        options, marked_stereo = mark_stereo(video.stereo, stream, settings.options, container)
        settings = replace(settings, options=options)
        if not (marked_stereo or (marked and b"st3d" in markings)):
            track.lost.append("the marking of two views in a picture (3D)")
    if container == Y4M and settings.pixel_format is None:
        settings = replace(settings, pixel_format=video.planes.pixel_format())  # never RGB
    base = _encoder_time_base(track, container, video)
    if in_band:
        track.encoder.flags &= ~av.codec.context.Flags.global_header
    kept = can_hold_alpha(name, container)
    taken = replace(video, time_base=base, alpha=video.alpha and kept)
    open_encoder(track.encoder, settings, taken)
    pixels = track.encoder.pix_fmt or PIXEL_FORMAT
    if settings.pixel_format is None:
        track.lost += format_losses(video.planes, pixels)
    if video.alpha and not (kept and has_alpha(pixels)):
        track.lost.append("transparency (it can with --codec prores, ffv1, or vp9 in .webm)")
    if canonical == "hevc" and container in MP4_FAMILY:
        track.encoder.codec_tag = "hvc1"  # the only one that Apple's players accept
    if marked:
        track.stream = marked.add_to(output, markings)
    elif video.spherical:
        track.lost.append("the 360-degree marking")
    _finish(track, canonical, container, video)
    return track


def _endings_for(encoder: str) -> str:
    """Return two endings of files that can hold an encoder's video, as advice."""
    held = [f".{end}" for end, form in CONTAINERS.items() if can_hold_encoder(encoder, form)]
    return " or ".join(held[:2]) or "another encoder"


def _encoder_time_base(track: Track, container: str, video: VideoFormat) -> Fraction:
    """Return the unit of the encoder's timestamps (s); number the frames if it is not theirs."""
    if container == Y4M:  # which takes its rate from it
        track.numbers = FrameNumbers(video.time_base, video.rate, unstored="Y4M")
        return 1 / video.rate
    base = encoder_time_base(track.codec, video.time_base, video.rate)
    if base != video.time_base:
        track.numbers = FrameNumbers(video.time_base, 1 / base)
    return base


def _finish(track: Track, codec: str, container: str, video: VideoFormat) -> None:
    """Set the video's properties in the container, and record those it cannot hold."""
    if video.hdr and track.encoder.name not in HDR_ENCODERS and not track.marked:
        track.lost.append(f"HDR10 metadata in {codec} (it can in hevc or av1)")
    if video.display_matrix and container in HOLD_ROTATION_AND_CHAPTERS:
        assert isinstance(track.stream, av.VideoStream)
        track.stream.set_display_matrix(video.display_matrix)
    elif video.display_matrix:
        track.lost.append("the rotation of the picture")
    aspect = video.sample_aspect or Fraction(1)
    if aspect != 1 and not can_hold_aspect(codec, container, aspect, video.size):
        track.lost.append(f"the pixel aspect in {codec} (it can in h264 or in an .mp4)")
    if container == Y4M:
        taken = planes_for(track.encoder.pix_fmt or PIXEL_FORMAT)
        if not can_hold_siting(replace(taken, siting=video.planes.siting)):
            track.lost.append(f"the chroma siting ({video.planes.siting})")
    track.stream.time_base = 1 / video.rate if container == Y4M else video.time_base
