"""Refuses values of quality and speed that an encoder does not have, before it is opened.

FFmpeg's own answer is "Invalid argument" and a line of the encoder's on stderr, or none: x264
takes a crf of 99 for 51 without a word.
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
_NAMES: Final = {"libx264": _X26X_PRESETS, "libx264rgb": _X26X_PRESETS, "libx265": _X26X_PRESETS}
"""Encoders whose presets FFmpeg's option table does not list; a number is an index of them."""
_QUALITY: Final = ("crf", "cq", "qp")
_SPEED: Final = {"preset": "preset", "cpu-used": "preset (cpu-used)"}
"""Options of the speed -> what `--preset` sets, in words."""
_LARGEST: Final = 51
"""Of H.264 and HEVC in 8 bits; FFmpeg's table has no limit for x264 and x265."""


def check_values(context: av.VideoCodecContext, options: Mapping[str, str]) -> None:
    """Raise UsageError for a quality or a preset that is out of the encoder's range."""
    for option in context.supported_options.private:
        value = options.get(option.name)
        if value is None:
            continue
        if option.name in _QUALITY:
            most = min(option.max, _LARGEST) if context.name in _NAMES else option.max
            _check_number(context.name, option.name, value, (0, most))
        elif option.name in _SPEED:
            _check_speed(context.name, option, value)


def _check_speed(encoder: str, option: CodecOption, value: str) -> None:
    """A name where the encoder has names, or else a number within the option's limits."""
    what = _SPEED[option.name]
    names = _NAMES.get(encoder) or tuple(choice.name for choice in option.choices)
    if value.lower() in names or (names and value.isdigit() and int(value) < len(names)):
        return
    if names:
        raise UsageError(f"encoder {encoder} has no {what} '{value}'; it has: {', '.join(names)}")
    if option.min < option.max:  # else its values are text that only the encoder knows
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
