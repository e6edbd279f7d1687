"""Fits a run into the available memory, or raises an error if its pictures are too large."""

from dataclasses import dataclass, replace
from typing import Final

from vsr.errors import InputError
from vsr.files.input_output import AnySource
from vsr.inference.upscaler import Outline, Upscaler
from vsr.media.encoder import EncoderSettings
from vsr.media.limits import format_bytes, free_memory
from vsr.media.pictures.stills import PILLOW
from vsr.media.plane_format import PlaneFormat
from vsr.media.prefetch import MAX_QUEUE_BYTES

_WAITING_DIVISOR: Final = 8
"""Divisor of the memory limit: pictures waiting between two stages may use 1/8 of it."""
_PICTURES_PER_STAGE: Final = 2
"""Pictures per stage: one in progress, and one waiting for the next stage."""
_BUFFERED_PICTURES: Final = {
    "libx264": 60, "libx265": 125, "libsvtav1": 105, "libvpx-vp9": 100, PILLOW: 2, "gif": 8,
    "apng": 8,
}  # fmt: skip
"""Memory use of encoders at our default presets, in output pictures, measured at 1080p.

Pillow: colours as packed pixels, and an internal copy; GIF and APNG have alpha, and filters.
"""
_BUFFERED_REDUCED: Final = {"libx264": 23, "libx265": 46}
_BUFFERED_DEFAULT: Final = 16
_FLICKER_FILTER: Final = (39, 11)
"""Memory use of the flicker filter, in input pictures and output pictures: 16 pictures before a
segment, one filter (20 and 8), and another one's state where segments meet (3 and 3)."""
_REDUCED_PARAMETERS: Final = {
    "libx264": ("x264-params", {"rc-lookahead": "0", "sync-lookahead": "0", "bframes": "0"}),
    "libx265": ("x265-params", {"rc-lookahead": "0", "frame-threads": "1", "bframes": "0"}),
}
"""Encoder parameters that reduce the number of buffered pictures."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Settings with which a run keeps its pictures within the memory limit."""

    encoder: EncoderSettings
    max_waiting_bytes: int
    """Limit for the items waiting between two stages, in bytes."""
    note: str | None = None
    """Message on what was changed to fit; None if nothing."""


def plan_memory(
    source: AnySource,
    upscaler: Upscaler | Outline,
    encoder: str,
    settings: EncoderSettings,
    memory_limit: int | None,
    flicker_filter: bool | None = None,
) -> MemoryPlan:
    """Plan the memory of a run, for a source's pictures and an FFmpeg encoder (or Pillow).

    `memory_limit`: in bytes; None: all free memory. Raises InputError if not even one
    picture at a time fits.
    """
    limit = free_memory() if memory_limit is None else memory_limit
    if limit is None:
        return MemoryPlan(encoder=settings, max_waiting_bytes=MAX_QUEUE_BYTES)
    in_bytes = _bytes(source.plane_format, upscaler.size)
    out_bytes = _bytes(source.plane_format, upscaler.out_size)
    max_waiting_bytes = min(MAX_QUEUE_BYTES, limit // _WAITING_DIVISOR)
    buffered_bytes = source.pictures_held * in_bytes + _PICTURES_PER_STAGE * (in_bytes + out_bytes)
    buffered_bytes += sum(
        max(size, min(max_waiting_bytes, 8 * size)) for size in (in_bytes, out_bytes)
    )

    if flicker_filter:
        buffered_bytes += _FLICKER_FILTER[0] * in_bytes + _FLICKER_FILTER[1] * out_bytes

    def needed(encoder_pictures: int) -> int:
        return buffered_bytes + encoder_pictures * out_bytes

    default_pictures = _BUFFERED_PICTURES.get(encoder, _BUFFERED_DEFAULT)
    if needed(default_pictures) <= limit:
        return MemoryPlan(encoder=settings, max_waiting_bytes=max_waiting_bytes)
    if encoder in _REDUCED_PARAMETERS and needed(_BUFFERED_REDUCED[encoder]) <= limit:
        note = (
            f"{encoder} encodes without lookahead: with it, the run would require "
            f"{format_bytes(needed(default_pictures))} of memory, and the limit is "
            f"{format_bytes(limit)}"
        )
        return MemoryPlan(
            encoder=_with_reduced_buffers(encoder, settings),
            max_waiting_bytes=max_waiting_bytes,
            note=note,
        )
    least = needed(_BUFFERED_REDUCED.get(encoder, default_pictures))
    raise InputError(
        f"{source.name}: upscaling frames from {_size(upscaler.size)} to "
        f"{_size(upscaler.out_size)} requires about {format_bytes(least)} of memory, and the limit "
        f"is {format_bytes(limit)}: use a smaller --scale or raise --max-memory"
    )


def _with_reduced_buffers(encoder: str, settings: EncoderSettings) -> EncoderSettings:
    """Return the settings with `_REDUCED_PARAMETERS`, except those that they already set."""
    name, parameters = _REDUCED_PARAMETERS[encoder]
    given = settings.options.get(name, "")
    parts = [given] if given else []
    parts += [f"{key}={value}" for key, value in parameters.items() if f"{key}=" not in given]
    return replace(settings, options={**settings.options, name: ":".join(parts)})


def _bytes(form: PlaneFormat, size: tuple[int, int]) -> int:
    """Return the size of a picture's planes, in bytes."""
    width, height = form.chroma(*size)
    return (size[0] * size[1] + 2 * width * height) * form.dtype.itemsize


def _size(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))
