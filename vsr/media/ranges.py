"""Rejects quality and speed values that an encoder does not support, before it is opened.

FFmpeg itself reports "Invalid argument" and a line of the encoder on stderr, or nothing: x264
silently treats a crf of 99 as 51.
"""

from collections.abc import Mapping
from typing import Final

import av
from av.codec.context import CodecOption

from vsr.errors import UsageError

_X26X_PRESETS: Final = (
    "ultrafast", "superfast", "veryfast", "faster", "fast",
    "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
_PRESETS: Final = {"libx264": _X26X_PRESETS, "libx264rgb": _X26X_PRESETS, "libx265": _X26X_PRESETS}
"""Encoder -> presets that FFmpeg's option table does not list; a number is an index of them."""
_QUALITY: Final = ("crf", "cq", "qp")
_SPEED: Final = {"preset": "preset", "cpu-used": "preset (cpu-used)"}
"""Speed option -> its name in messages; `--preset` sets it."""
_MAX_QUALITY: Final = 51
"""Maximum quality value of H.264 and HEVC in 8 bits; FFmpeg's table has none for x264 and x265."""


def check_values(context: av.VideoCodecContext, options: Mapping[str, str]) -> None:
    """Raise UsageError for a quality or a preset outside the encoder's range."""
    for option in context.supported_options.private:
        value = options.get(option.name)
        if value is None:
            continue
        if option.name in _QUALITY:
            most = min(option.max, _MAX_QUALITY) if context.name in _PRESETS else option.max
            _check_number(context.name, option.name, value, (0, most))
        elif option.name in _SPEED:
            _check_speed(context.name, option, value)


def _check_speed(encoder: str, option: CodecOption, value: str) -> None:
    """Raise UsageError unless a value is a preset (or its index) or, without presets, in range."""
    what = _SPEED[option.name]
    names = _PRESETS.get(encoder) or tuple(choice.name for choice in option.choices)
    if value.lower() in names or (names and value.isdigit() and int(value) < len(names)):
        return
    if names:
        raise UsageError(f"encoder {encoder} has no {what} '{value}'; it has: {', '.join(names)}")
    if option.min < option.max:  # else only the encoder knows its text values
        _check_number(encoder, what, value, (option.min, option.max))


def _check_number(encoder: str, what: str, value: str, limits: tuple[float, float]) -> None:
    least, most = limits
    try:
        fits = least <= float(value) <= most
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(
            f"encoder {encoder} takes {what} from {least:.0f} to {most:.0f}, not '{value}'"
        )


def check_rate_option(encoder: str, given: str | None) -> None:
    """Raise UsageError for a `given` option of quality or bitrate if the encoder ignores both."""
    codec, is_prores = av.Codec(encoder, "w"), encoder.startswith("prores")
    if given is not None and (is_prores or (codec.lossless and not codec.lossy)):
        why = "it has only -e profile=" if is_prores else "it is lossless"
        raise UsageError(
            f"encoder {encoder} has no quality or bitrate to set ({why}): leave out {given}"
        )
