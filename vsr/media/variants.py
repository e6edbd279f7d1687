"""Chooses one of a playlist's variants: the best, or the one that a user names."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av

from vsr.errors import InputError, UsageError
from vsr.media.bitrate import format_bitrate

BEST: Final = "best"
BITRATE: Final = "variant_bitrate"
"""FFmpeg's tag, with the bitrate, of a stream that only one variant of a playlist uses."""
_SIZE: Final = re.compile(r"(\d+)x(\d+)", re.IGNORECASE)

Fits = Callable[[tuple[int, int], Fraction | None], bool]
"""Callback: ((width, height), fps or None if unknown) -> whether it can be upscaled in time."""


@dataclass(frozen=True, kw_only=True)
class VariantChoice:
    """Selects a variant by its size or number; without either, the best that fits."""

    size: tuple[int, int] | None = None
    """(width, height) in pixels; None: any."""
    number: int | None = None
    """Position in the playlist, counted from 1; None: any."""
    fits: Fits = lambda *_: True

    @classmethod
    def parse(cls, text: str, fits: Fits = lambda *_: True) -> "VariantChoice":
        """Parse `best`, `WxH` or a number. Raises UsageError."""
        if text.lower() == BEST:
            return cls(fits=fits)
        if text.isdecimal() and int(text) > 0:
            return cls(number=int(text))
        found = _SIZE.fullmatch(text)
        if found is None:
            raise UsageError(f"variant '{text}': use best, a size (1280x720), or a number from 1")
        return cls(size=(int(found[1]), int(found[2])))

    def select(self, videos: Sequence[av.VideoStream], name: str) -> av.VideoStream:
        """Return the selected variant of a playlist.

        If no variant can be upscaled in time, the smallest is used. Raises InputError if there is
        no variant of the given size or number.
        """
        best_first = sorted(videos, key=rank, reverse=True)
        if self.number is None and self.size is None:
            if len(videos) == 1:
                return videos[0]
            fitting = (v for v in best_first[:-1] if self.fits(_size(v), v.average_rate))
            return next(fitting, best_first[-1])
        for number, video in enumerate(videos, 1):
            if number == self.number:
                return video
        named = [video for video in best_first if _size(video) == self.size]
        if not named:
            wanted = "x".join(map(str, self.size)) if self.size else f"number {self.number}"
            there = "; ".join(
                f"{n}: {describe_variant(video)}" for n, video in enumerate(videos, 1)
            )
            raise InputError(f"{name} has no variant {wanted}; it has {there}")
        return named[0]

    def check_unset(self, name: str) -> None:
        """Raise InputError if a variant is selected; for an input without variants."""
        if self.number is not None or self.size is not None:
            raise InputError(f"{name} is not a playlist with variants: omit --variant")


BEST_FIT: Final = VariantChoice()
"""Selects the best variant, however long it takes to upscale."""


def rank(video: av.VideoStream) -> tuple[int, int]:
    """Return (pixels, bitrate in bit/s) as a sort key."""
    width, height = _size(video)
    return width * height, int(video.metadata.get(BITRATE, 0))


def describe_variant(video: av.VideoStream) -> str:
    """Format a variant's size and bitrate for messages."""
    bits = int(video.metadata.get(BITRATE, 0))
    size = "x".join(map(str, _size(video)))
    return f"{size} at {format_bitrate(bits)}" if bits else size


def _size(video: av.VideoStream) -> tuple[int, int]:
    return video.codec_context.width, video.codec_context.height
