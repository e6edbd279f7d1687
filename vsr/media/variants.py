"""Which of a playlist's variants is used: the best, or the one that a user names."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av

from vsr.errors import InputError, UsageError
from vsr.media.bitrate import in_words

BEST: Final = "best"
BITRATE: Final = "variant_bitrate"
"""FFmpeg's tag of a stream that only one variant of a playlist uses."""
_SIZE: Final = re.compile(r"(\d+)x(\d+)", re.IGNORECASE)

Fits = Callable[[tuple[int, int], Fraction | None], bool]
"""(width and height, pictures per second if told) -> whether they can be enlarged in time."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A variant by its size or number; the best that fits without either."""

    size: tuple[int, int] | None = None
    """Width and height."""
    number: int | None = None
    """Counted from 1 in the playlist's order."""
    fits: Fits = lambda *_: True

    @classmethod
    def parse(cls, text: str, fits: Fits = lambda *_: True) -> "Wanted":
        """Read `best`, `WxH` or a number. Raises UsageError."""
        if text.lower() == BEST:
            return cls(fits=fits)
        if text.isdecimal() and int(text) > 0:
            return cls(number=int(text))
        found = _SIZE.fullmatch(text)
        if found is None:
            raise UsageError(f"variant '{text}': give best, a size (1280x720), or a number from 1")
        return cls(size=(int(found[1]), int(found[2])))

    def of(self, videos: Sequence[av.VideoStream], name: str) -> av.VideoStream:
        """Return the variant of a playlist that is meant.

        Without one that fits in time, the best is the smallest. Raises InputError where the one
        that is named is not there.
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
            there = "; ".join(f"{n}: {described(video)}" for n, video in enumerate(videos, 1))
            raise InputError(f"{name} has no variant {wanted}; it has {there}")
        return named[0]

    def check_none(self, name: str) -> None:
        """Raise InputError where one is named of an input without variants."""
        if self.number is not None or self.size is not None:
            raise InputError(f"{name} is no playlist with variants: leave out --variant")


BEST_FIT: Final = Wanted()
"""The best, whatever it takes to enlarge it."""


def rank(video: av.VideoStream) -> tuple[int, int]:
    """Pixels, then bits per second."""
    width, height = _size(video)
    return width * height, int(video.metadata.get(BITRATE, 0))


def described(video: av.VideoStream) -> str:
    """Size and bitrate in words."""
    bits = int(video.metadata.get(BITRATE, 0))
    size = "x".join(map(str, _size(video)))
    return f"{size} at {in_words(bits)}" if bits else size


def _size(video: av.VideoStream) -> tuple[int, int]:
    return video.codec_context.width, video.codec_context.height
