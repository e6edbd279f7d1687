"""Encoder settings -> an opened video encoder; says what is wrong before any frame is spent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Protocol

import av
from av.codec.context import Flags

from vsr.errors import OutputError, UsageError, reason
from vsr.media.colour import Colour
from vsr.media.frame import PIXEL_FORMAT

CODECS: Final[dict[str, str]] = {
    "h264": "libx264",
    "hevc": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
}
"""Short names; any other `--codec` is taken as an FFmpeg encoder's own name."""
_DEFAULT_CODEC: Final = {"webm": "vp9"}
_QUALITY: Final[dict[str, tuple[str, str]]] = {
    # encoder -> (crf that looks transparent, preset); a softer crf would undo the enlargement
    "libx264": ("18", "veryfast"),
    "libx265": ("20", "veryfast"),
    "libsvtav1": ("26", "8"),
    "libvpx-vp9": ("24", ""),
}
_QUALITY_OPTIONS: Final = ("crf", "cq", "qp")
"""What encoders call constant quality: software, NVENC, VAAPI."""
_GLOBAL_QUALITY: Final = ("_qsv", "_videotoolbox")
"""Encoders that take it as FFmpeg's generic `global_quality`, which others accept and ignore."""


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """How the enlarged frames are encoded."""

    codec: str | None = None
    """A key of `CODECS` or an FFmpeg encoder; None: h264, or what the container wants."""
    crf: int | None = None
    """Constant quality on the encoder's own scale; None: the encoder's transparent value."""
    preset: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    """More private options of the encoder, passed as they are."""


class Pictures(Protocol):
    """What an encoder must know of its pictures besides their size; a `VideoInfo` does."""

    @property
    def time_base(self) -> Fraction:
        """Of their times."""
        ...

    @property
    def rate(self) -> Fraction:
        """Pictures per second, as a hint."""
        ...

    @property
    def sample_aspect(self) -> Fraction | None:
        """Width of a pixel by its height, None where nobody says."""
        ...

    @property
    def colour(self) -> Colour:
        """What their codes mean."""
        ...


def encoder_name(settings: EncoderSettings, container: str) -> str:
    """The FFmpeg encoder to use for a container format."""
    codec = settings.codec or _DEFAULT_CODEC.get(container, "h264")
    name = CODECS.get(codec, codec)
    try:
        found = av.Codec(name, "w")
    except ValueError as exc:
        known = ", ".join(CODECS)
        raise UsageError(
            f"unknown codec '{codec}'; known: {known}, or an FFmpeg encoder such as h264_nvenc"
        ) from exc
    if found.type != "video":
        raise UsageError(f"'{codec}' is no video codec")
    return found.name


def configure(
    context: av.VideoCodecContext,
    settings: EncoderSettings,
    info: Pictures,
    size: tuple[int, int],
) -> None:
    """Give the encoder the source's time, shape and colours. Raises UsageError for options."""
    context.width, context.height = size
    context.pix_fmt = pixel_format(context)
    # 1/rate, FFmpeg's default, would round variable frame times
    context.time_base = info.time_base
    context.framerate = info.rate
    if info.sample_aspect:
        context.sample_aspect_ratio = info.sample_aspect
    colour = info.colour
    context.color_range = colour.range_code
    context.colorspace = colour.matrix
    context.color_primaries = colour.primaries
    context.color_trc = colour.transfer
    context.thread_type = "AUTO"
    context.flags |= Flags.frame_duration
    context.options = _options(context, settings)


def pixel_format(context: av.VideoCodecContext) -> str:
    """What the encoder is given: 8-bit 4:2:0 as planes where it can. Raises UsageError."""
    formats = [f.name for f in context.codec.video_formats or ()]
    if not formats or PIXEL_FORMAT in formats:
        return PIXEL_FORMAT
    for name in ("nv12", "yuv420p10le"):
        if name in formats:
            return name  # PyAV converts on the way in
    raise UsageError(f"encoder {context.name} takes none of the formats vsr can give it")


def _options(context: av.VideoCodecContext, settings: EncoderSettings) -> dict[str, str]:
    known = {option.name for option in context.supported_options.private}
    generic = {option.name for option in context.supported_options.generic}
    crf, preset = _QUALITY.get(context.name, ("", ""))
    options: dict[str, str] = {}
    if settings.preset or preset:
        options["preset"] = settings.preset or preset
    if settings.crf is not None or crf:
        wanted = str(settings.crf) if settings.crf is not None else crf
        options[_quality_option(context.name, known)] = wanted
    if context.name == "libvpx-vp9":
        options |= {"b": "0", "row-mt": "1", "cpu-used": "4", "deadline": "good"}
        if settings.preset:
            options["cpu-used"] = options.pop("preset")
        options.pop("preset", None)
    options |= settings.options
    if context.name == "libx265":
        given = options.get("x265-params", "")
        quiet = [] if "log-level" in given else ["log-level=error"]  # it talks on stderr
        options["x265-params"] = ":".join([given, *quiet] if given else quiet)
    unknown = sorted(set(options) - known - generic)
    if unknown:
        raise UsageError(f"encoder {context.name} has no option '{unknown[0]}'")
    return options


def _quality_option(encoder: str, known: set[str]) -> str:
    for name in _QUALITY_OPTIONS:
        if name in known:
            return name
    if encoder.endswith(_GLOBAL_QUALITY):
        return "global_quality"
    raise UsageError(
        f"encoder {encoder} has no constant-quality option: use -e b=4M instead of crf"
    )


def open_encoder(context: av.VideoCodecContext) -> None:
    """Open it now, so that a bad option or missing hardware stops the run before it starts."""
    asked = ", ".join(f"{k}={v}" for k, v in context.options.items())
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as exc:
        hint = "check its options" if asked else "it cannot use this size or these time steps"
        if "_" in context.name:
            hint = "no such hardware or driver here?"
        raise OutputError(
            f"encoder {context.name} cannot start at {context.width}x{context.height} "
            f"({asked}): {reason(exc)}; {hint}"
        ) from exc
