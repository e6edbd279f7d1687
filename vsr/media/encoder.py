"""Opens video encoders for files and live outputs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

import av
from av.codec.context import Flags

from vsr.errors import OutputError, UsageError, reason
from vsr.media.colour import Colour
from vsr.media.frame_numbers import CONSTANT_RATE
from vsr.media.hdr import Hdr10
from vsr.media.limits import cpu_limit
from vsr.media.parameters import add_analysis, add_hdr, add_parameters, add_threads
from vsr.media.pixel_choice import check_pixel_format, pixel_format, planes_options
from vsr.media.plane_format import YUV420, PlaneFormat, planes_for
from vsr.media.ranges import check_rate_option, check_values
from vsr.media.scheduling import keep_scheduling
from vsr.media.stereo import StereoPacking
from vsr.media.validation import check_settings

CODECS: Final[dict[str, str]] = {
    "h264": "libx264",
    "hevc": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
}
"""Short codec name -> FFmpeg encoder; any other `--codec` is an FFmpeg encoder name."""
_DEFAULT_CODEC: Final = {"webm": "vp9", "yuv4mpegpipe": "rawvideo"}
_DEEP_CODEC: Final = {"webm": "av1", "yuv4mpegpipe": "rawvideo", "3gp": "h264"}
"""Container -> codec for more than 8 bits and HDR; else hevc: most players support its 10 bits."""
_QUALITY: Final[dict[str, tuple[str, str]]] = {
    # encoder -> (visually transparent crf, preset); a higher crf would lose the gain in detail
    "libx264": ("18", "veryfast"),
    "libx265": ("20", "veryfast"),
    "libsvtav1": ("26", "8"),
    "libvpx-vp9": ("24", ""),
}
_QUALITY_OPTIONS: Final = ("crf", "cq", "qp")
"""Names of the constant-quality option: software encoders, NVENC, VAAPI."""
_GLOBAL_QUALITY: Final = ("_qsv", "_videotoolbox")
"""Endings of encoders that use FFmpeg's `global_quality` for it, which others accept and ignore."""
_BITRATE_OPTION: Final = "b"
_RATE_OPTIONS: Final = frozenset({_BITRATE_OPTION, *_QUALITY_OPTIONS, "cqp", "global_quality"})
"""Rate control options; if one is given, no default quality is added."""
_RATE_PARAMETER: Final = re.compile(r"(^|:)(bitrate|tbr|qp|crf)=")
"""Rate control parameters within x264-params, x265-params or svtav1-params."""
_LIVE_OPTIONS: Final = {
    # no picture waits for a later one; with slices, all threads work on one picture
    "libx264": {"tune": "zerolatency", "bf": "0", "forced-idr": "1"},
    "libx265": {"tune": "zerolatency", "bf": "0", "forced-idr": "1"},
    "h264_nvenc": {"tune": "ull", "bf": "0", "forced-idr": "1", "zerolatency": "1", "delay": "0"},
    "hevc_nvenc": {"tune": "ull", "bf": "0", "forced-idr": "1", "zerolatency": "1", "delay": "0"},
}
_MINIMUMS: Final = {"crf": 0, "bitrate": 1, "maxrate": 1, "bufsize": 1, "passes": 1}


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Encoder settings: codec, quality, speed and private options.

    Raises UsageError for values of a wrong type and numbers out of range.
    """

    codec: str | None = None
    """Key of `CODECS` or FFmpeg encoder name; None: the default for the container and bit depth."""
    crf: int | None = None
    """Constant quality on the encoder's scale; None: the visually transparent default."""
    preset: str | None = None
    pixel_format: str | None = None
    """FFmpeg pixel format; None: the encoder's format nearest to the frames' planes."""
    bitrate: int | None = None
    """Average bitrate in bit/s, instead of constant quality."""
    maxrate: int | None = None
    """Maximum bitrate in bit/s, exceeded only as far as `bufsize` allows; None: no limit."""
    bufsize: int | None = None
    """Size of the receiver's buffer in bits; None: two seconds at `maxrate`."""
    passes: int = 1
    """Number of passes; 2: analyse the whole video first, to distribute the bitrate; files only."""
    analysis: tuple[int, str] | None = None
    """(pass number, path of the first pass's statistics) if there are two passes, else None."""
    options: Mapping[str, str] = field(default_factory=dict)
    """More private options of the encoder, passed unchanged."""

    def __post_init__(self) -> None:
        check_settings(self, _MINIMUMS)

    @property
    def has_rate(self) -> bool:
        """Whether a bitrate, or a quality other than `crf`, is set."""
        if self.bitrate is not None or _RATE_OPTIONS & self.options.keys():
            return True
        return any(_RATE_PARAMETER.search(v) for k, v in self.options.items() if "params" in k)

    def check(self) -> None:
        """Raise UsageError for contradictory settings."""
        given = "--bitrate" if self.bitrate is not None else "-e b="
        has_bitrate = self.bitrate is not None or _BITRATE_OPTION in self.options
        if self.bitrate is not None and _BITRATE_OPTION in self.options:
            raise UsageError("--bitrate and -e b= set the same option: use one of them")
        if self.crf is not None and has_bitrate:
            raise UsageError(
                f"--crf and {given} exclude each other: use one (--maxrate limits --crf too)"
            )
        if self.bufsize is not None and self.maxrate is None and not has_bitrate:
            raise UsageError("--bufsize needs --maxrate or --bitrate")
        if None not in (self.maxrate, self.bitrate) and (self.maxrate or 0) < (self.bitrate or 0):
            raise UsageError("--maxrate is less than --bitrate")
        if self.passes > 2:
            raise UsageError(f"passes is {self.passes}: it must be 1 or 2")
        if self.passes > 1 and not has_bitrate:
            raise UsageError("--passes 2 needs --bitrate: constant quality takes one pass")


@dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """Size, frame rate, time base, colour and other properties of an encoded video."""

    size: tuple[int, int]
    """(width, height) in pixels."""
    rate: Fraction
    """Frame rate in fps, as a hint: every frame has a timestamp."""
    time_base: Fraction
    """Unit of the frames' timestamps, in seconds."""
    colour: Colour = field(default_factory=Colour)
    planes: PlaneFormat = YUV420
    """Plane format of the frames; the encoder's pixel format follows from it."""
    grey: bool = False
    """Whether the frames are grey, with constant chroma."""
    alpha: bool = False
    """Whether frames have alpha."""
    hdr: Hdr10 | None = None
    sample_aspect: Fraction | None = None
    """Pixel width divided by pixel height; None if unknown."""
    display_matrix: tuple[int, ...] | None = None
    """FFmpeg's 3x3 rotation matrix, None for an upright picture; stored only in containers."""
    stereo: StereoPacking | None = None
    """Packing of two views into a picture; None for one view."""
    spatial: bytes = b""
    """MP4 boxes that mark the pictures; see `vsr.media.spatial`."""
    spherical: bool = False
    """Whether pictures show 360 degrees."""


def encoder_name(
    settings: EncoderSettings, container: str, video: VideoFormat | None = None
) -> str:
    """Return the FFmpeg encoder for a container; if no codec is set, one that suits `video`."""
    usual = _DEFAULT_CODEC.get(container, "h264")
    if video is not None and _is_deep(settings, video):
        usual = _DEEP_CODEC.get(container, "hevc")
    codec = settings.codec or usual
    name = CODECS.get(codec, codec)
    try:
        found = av.Codec(name, "w")
    except ValueError as exc:
        known = ", ".join(CODECS)
        raise UsageError(
            f"unknown codec '{codec}'; known: {known}, or an FFmpeg encoder such as h264_nvenc"
        ) from exc
    if found.type != "video":
        raise UsageError(f"'{codec}' is not a video codec")
    return found.name


def _is_deep(settings: EncoderSettings, video: VideoFormat) -> bool:
    """Return whether the output needs more than 8 bits."""
    if settings.pixel_format is not None:
        check_pixel_format(settings.pixel_format)
        return planes_for(settings.pixel_format).bits > 8
    return video.planes.bits > 8 or video.colour.is_hdr


def open_encoder(
    context: av.VideoCodecContext,
    settings: EncoderSettings,
    video: VideoFormat,
    key_interval: float | None = None,
) -> None:
    """Configure and open a new video encoder, so that wrong options fail before the run.

    With `key_interval` (s) it is for a live output: it holds no picture back, has its header in
    `extradata`, and makes a key frame by itself only if none was requested for twice that time.
    Raises UsageError for unknown options, OutputError if it cannot start.
    """
    name = context.name
    context.width, context.height = video.size
    context.pix_fmt = pixel_format(
        context, video.planes, video.colour, settings.pixel_format, video.grey, video.alpha
    )
    # 1/rate, FFmpeg's default, would round variable frame times
    context.time_base, context.framerate = video.time_base, video.rate
    if video.sample_aspect:
        context.sample_aspect_ratio = video.sample_aspect
    colour = video.colour.encoded(context.pix_fmt, context.codec.canonical_name)
    context.color_range = colour.range_code
    context.colorspace = colour.matrix
    context.color_primaries = colour.primaries
    context.color_trc = colour.transfer
    context.thread_type = "AUTO"
    context.thread_count = cpu_limit() or 0
    context.flags |= Flags.frame_duration
    settings.check()
    given = dict(settings.options)
    if key_interval is not None:
        context.gop_size = max(1, round(2 * key_interval * video.rate))
        context.max_b_frames = 0
        context.thread_type = "SLICE"
        context.flags |= Flags.global_header
        given = {**_LIVE_OPTIONS.get(name, {}), **given}
    context.options = _options(context, replace(settings, options=given), video)
    _open(context)


def _options(
    context: av.VideoCodecContext, settings: EncoderSettings, video: VideoFormat
) -> dict[str, str]:
    name = context.name
    known = {option.name for option in context.supported_options.private}
    generic = {option.name for option in context.supported_options.generic}
    preset = settings.preset or _QUALITY.get(name, ("", ""))[1]
    options = ({"preset": preset} if preset else {}) | _quality(name, settings, known)
    if name == "libvpx-vp9":
        options = {"b": "0", "row-mt": "1", "cpu-used": "4", "deadline": "good"} | options
        if settings.preset:
            options["cpu-used"] = options.pop("preset")
        options.pop("preset", None)
    options |= planes_options(context, video.planes)
    options |= _rates(name, settings)
    options |= settings.options
    add_hdr(name, video.hdr, video.colour, options)
    add_analysis(name, settings.passes, settings.analysis, options)
    if name == "libx265":  # by default it drops captions and logs to stderr
        options.setdefault("a53cc", "1")
        add_parameters(options, "x265-params", "log-level=error")
    add_threads(name, cpu_limit(), options)
    unknown = sorted(set(options) - known - generic)
    if unknown:
        raise UsageError(f"encoder {name} has no option '{unknown[0]}'")
    check_values(context, options)
    return options


def _quality(encoder: str, settings: EncoderSettings, known: set[str]) -> dict[str, str]:
    """Return the constant-quality option: as set, or the default if no rate control is set."""
    options = ("crf", "bitrate", "maxrate")
    given = next((f"--{name}" for name in options if getattr(settings, name) is not None), None)
    check_rate_option(encoder, given)
    wanted = None if settings.crf is None else str(settings.crf)
    if wanted is None and not settings.has_rate:
        wanted = _QUALITY.get(encoder, ("", ""))[0]
    return {_quality_option(encoder, known): wanted} if wanted else {}


def _rates(encoder: str, settings: EncoderSettings) -> dict[str, str]:
    """Return the bitrate and its limits as FFmpeg options."""
    found = {"b": settings.bitrate, "maxrate": settings.maxrate, "bufsize": settings.bufsize}
    if settings.maxrate and not settings.bufsize:
        found["bufsize"] = 2 * settings.maxrate
    if encoder == "libsvtav1" and settings.bitrate:
        found = {"b": settings.bitrate}  # it accepts a limit only with constant quality
    return {name: str(value) for name, value in found.items() if value}


def _quality_option(encoder: str, known: set[str]) -> str:
    for name in _QUALITY_OPTIONS:
        if name in known:
            return name
    if encoder.endswith(_GLOBAL_QUALITY):
        return "global_quality"
    raise UsageError(
        f"encoder {encoder} has no constant-quality option: use --bitrate 4M instead of crf"
    )


def _open(context: av.VideoCodecContext) -> None:
    ours = "chroma_sample_location"  # every encoder accepts it
    asked = ", ".join(f"{k}={v}" for k, v in context.options.items() if k != ours)
    try:
        with keep_scheduling():
            context.open()
    except (av.error.FFmpegError, ValueError) as exc:
        size, rate = f"{context.width}x{context.height}", float(context.framerate or 0)
        options = f" ({asked})" if asked else ""
        raise OutputError(
            f"encoder {context.name} cannot start at {size}, {rate:.6g} fps{options}: "
            f"{reason(exc)}; {_hint(context, asked)}"
        ) from exc


def _hint(context: av.VideoCodecContext, asked: str) -> str:
    if "_" in context.name:
        return "is its hardware or driver missing?"
    if context.codec.canonical_name in CONSTANT_RATE:
        return "it takes usual rates only: set one, such as --vf fps=25, or check its options"
    return "check its options" if asked else "it does not support this size or rate (see --vf fps)"
