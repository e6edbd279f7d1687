"""Describes changes of a video's size, aspect and colour mid-stream, as broadcasts have them."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import av

from vsr.media.colour import Colour, own_colour
from vsr.media.info import VideoInfo

_MAX_ASPECT_ERROR: Final = 0.01
"""Relative difference below which aspect ratios count as equal: sizes are whole numbers."""
_MATRIX_NAMES: Final = {
    1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020"
}  # fmt: skip


def changes_of(
    picture: av.VideoFrame, aspect: Fraction | None, info: VideoInfo, first: Colour, fitted: bool
) -> Iterator[tuple[str, str]]:
    """Yield (kind, message) for each way in which a picture differs from the stream's first one.

    `aspect`: the picture's pixel aspect; `info`: the stream's properties; `first`: the colour of
    its first picture; `fitted`: whether pictures of another display aspect get black bars.
    """
    if (picture.width, picture.height) != (info.width, info.height):
        yield (
            "size",
            (
                f"changes size to {picture.width}x{picture.height} mid-stream: "
                f"its frames are resized to {info.width}x{info.height} before upscaling"
            ),
        )
    was = Fraction(info.width, info.height) * (info.sample_aspect or 1)
    now = Fraction(picture.width, picture.height) * (aspect or 1)
    if abs(now / was - 1) > _MAX_ASPECT_ERROR:
        result = (
            "these frames get black bars" if fitted
            else "the output keeps the first, so these frames are distorted"
        )  # fmt: skip
        yield (
            "aspect",
            (
                f"changes its aspect ratio from {float(was):.2f} to {float(now):.2f} mid-stream: "
                f"{result}"
            ),
        )
    own = own_colour(picture, first)
    if own != first:
        yield from _colour_changes(own, first)


def _colour_changes(own: Colour, first: Colour) -> Iterator[tuple[str, str]]:
    if not own.same_codes(first):
        yield (
            "colour",
            (
                f"changes its colour from {_name(first)} to {_name(own)} mid-stream: "
                "these frames are converted to the first"
            ),
        )
    if (own.primaries, own.transfer) != (first.primaries, first.transfer):
        words = "changes its colour primaries or transfer mid-stream"
        yield "tags", f"{words}: the output keeps the first tags"


def _name(colour: Colour) -> str:
    extent = "full" if colour.full_range else "limited"
    return f"{_MATRIX_NAMES.get(colour.matrix, 'RGB')} in {extent} range"
