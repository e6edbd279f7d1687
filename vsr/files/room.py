"""Fits a run into the available memory, or raises an error if its pictures are too large."""

from dataclasses import dataclass, replace
from typing import Final

from vsr.errors import InputError
from vsr.files.ends import AnySource
from vsr.inference.upscaler import Outline, Upscaler
from vsr.media.encoder import EncoderSettings
from vsr.media.limits import format_bytes, free_memory
from vsr.media.pictures.stills import PILLOW
from vsr.media.plane_format import PlaneFormat
from vsr.media.prefetch import MAX_QUEUE_BYTES

_SHARE: Final = 8
"""Divisor of the memory limit: pictures waiting between two stages may use 1/8 of it."""
_STAGES: Final = 2
"""Pictures per stage: one in progress, and one waiting for the next stage."""
_HELD: Final = {
    "libx264": 60, "libx265": 125, "libsvtav1": 105, "libvpx-vp9": 100, PILLOW: 2, "gif": 8,
    "apng": 8,
}  # fmt: skip
"""Memory use of encoders at our default presets, in output pictures, measured at 1080p.

Pillow: colours as packed pixels, and an internal copy; GIF and APNG have alpha, and filters.
"""
_HELD_FRUGALLY: Final = {"libx264": 23, "libx265": 46}
_HELD_OTHERS: Final = 16
_FRUGAL: Final = {
    "libx264": ("x264-params", {"rc-lookahead": "0", "sync-lookahead": "0", "bframes": "0"}),
    "libx265": ("x265-params", {"rc-lookahead": "0", "frame-threads": "1", "bframes": "0"}),
}
"""Encoder parameters that reduce the number of buffered pictures."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """Settings with which a run keeps its pictures within the memory limit."""

    encoder: EncoderSettings
    waiting: int
    """Limit for the items waiting between two stages, in bytes."""
    note: str | None = None
    """Message on what was changed to fit; None if nothing."""


def room_for(
    source: AnySource,
    upscaler: Upscaler | Outline,
    encoder: str,
    settings: EncoderSettings,
    allowed: int | None,
) -> Room:
    """Plan the memory of a run, for a source's pictures and an FFmpeg encoder (or Pillow).

    `allowed`: memory limit in bytes; None: all free memory. Raises InputError if not even one
    picture at a time fits.
    """
    limit = free_memory() if allowed is None else allowed
    if limit is None:
        return Room(encoder=settings, waiting=MAX_QUEUE_BYTES)
    small = _bytes(source.plane_format, upscaler.size)
    large = _bytes(source.plane_format, upscaler.out_size)
    waiting = min(MAX_QUEUE_BYTES, limit // _SHARE)
    held = source.pictures_held * small + _STAGES * (small + large)
    held += sum(max(size, min(waiting, 8 * size)) for size in (small, large))

    def needed(encoder_held: int) -> int:
        return held + encoder_held * large

    usual = _HELD.get(encoder, _HELD_OTHERS)
    if needed(usual) <= limit:
        return Room(encoder=settings, waiting=waiting)
    if encoder in _FRUGAL and needed(_HELD_FRUGALLY[encoder]) <= limit:
        note = (
            f"{format_bytes(needed(usual))} of memory would be used and {format_bytes(limit)} "
            f"may be: "
            f"{encoder} encodes without looking ahead"
        )
        return Room(encoder=_frugal(encoder, settings), waiting=waiting, note=note)
    least = needed(_HELD_FRUGALLY.get(encoder, usual))
    raise InputError(
        f"{source.name}: pictures of {_size(upscaler.size)}, enlarged to "
        f"{_size(upscaler.out_size)}, take about {format_bytes(least)} of memory, "
        f"and {format_bytes(limit)} may be used: take a smaller --scale, or more memory"
    )


def _frugal(encoder: str, settings: EncoderSettings) -> EncoderSettings:
    """Return the settings with the parameters of `_FRUGAL` that they do not already set."""
    name, wanted = _FRUGAL[encoder]
    given = settings.options.get(name, "")
    parts = [given] if given else []
    parts += [f"{key}={value}" for key, value in wanted.items() if f"{key}=" not in given]
    return replace(settings, options={**settings.options, name: ":".join(parts)})


def _bytes(form: PlaneFormat, size: tuple[int, int]) -> int:
    """Return the size of a picture's planes, in bytes."""
    width, height = form.chroma(*size)
    return (size[0] * size[1] + 2 * width * height) * form.dtype.itemsize


def _size(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))
