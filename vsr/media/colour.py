"""Maps a stream's colour tags to `Colour`, and `Colour` to conversion matrices."""

from dataclasses import dataclass, replace
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from vsr.media.plane_format import is_rgb

Array = npt.NDArray[np.floating]

# ITU-T H.273 code points, as FFmpeg numbers them
RANGE_LIMITED: Final = 1
RANGE_FULL: Final = 2
UNSPECIFIED: Final = 2
_BT709: Final = 1
_BT470BG: Final = 5
_SMPTE170M: Final = 6
_BT2020: Final = 9
PQ: Final = 16
HDR_TRANSFERS: Final = {PQ: "PQ", 18: "HLG"}
"""HDR transfer code -> name (H.273 table 3: SMPTE ST 2084 and ARIB STD-B67)."""

JPEG: Final = ("mjpeg", "ljpeg")
"""FFmpeg's names of JPEG as a video codec."""
RGB: Final = 0
"""Matrix code of R'G'B' pictures; their planes are G, B and R (H.273 table 4)."""
# matrix code -> (Kr, Kb); H.273 table 4
LUMA_WEIGHTS: Final[dict[int, tuple[float, float]]] = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.470BG, BT.601 at 625 lines
    6: (0.299, 0.114),  # SMPTE 170M, BT.601 at 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
}


@dataclass(frozen=True, kw_only=True)
class Colour:
    """Colour space of code values; the fields are H.273 code points as FFmpeg numbers them."""

    matrix: int = _BT709
    full_range: bool = False
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    @classmethod
    def of_rgb(cls, *, range_: int, primaries: int, transfer: int) -> "Colour":
        """Read the colour of R'G'B' from a stream's tags; full range if untagged."""
        full = range_ != RANGE_LIMITED
        return cls(matrix=RGB, full_range=full, primaries=primaries, transfer=transfer)

    @classmethod
    def from_tags(
        cls, *, matrix: int, range_: int, primaries: int, transfer: int, height: int, pix_fmt: str
    ) -> "Colour":
        """Read a stream's colour from its tags, with the usual defaults for missing ones.

        Untagged range is limited (full for `yuvj` formats), untagged matrix is BT.601 below
        720 lines and BT.709 otherwise. A matrix outside `LUMA_WEIGHTS` (RGB, YCgCo, constant
        luminance) counts as untagged.
        """
        if matrix not in LUMA_WEIGHTS:
            matrix = _SMPTE170M if height < 720 else _BT709
        full = range_ == RANGE_FULL or pix_fmt.startswith("yuvj")
        return cls(matrix=matrix, full_range=full, primaries=primaries, transfer=transfer)

    @property
    def is_hdr(self) -> bool:
        """Whether the transfer is PQ or HLG."""
        return self.transfer in HDR_TRANSFERS

    def encoded(self, pixel_format: str, codec: str = "") -> "Colour":
        """Return this colour after conversion to an encoder's pixel format.

        R'G'B' becomes limited-range YUV with the matrix of its primaries; any YUV becomes full
        R'G'B'. A `yuvj` format has full range; JPEG (by FFmpeg's name of the codec) has also
        BT.601's matrix, as its decoders read no tags.
        """
        if is_rgb(pixel_format):
            return self if self.matrix == RGB else replace(self, matrix=RGB, full_range=True)
        if codec in JPEG:
            return replace(self, matrix=_BT470BG, full_range=True)
        full = pixel_format.startswith("yuvj")
        if self.matrix != RGB:
            return replace(self, full_range=self.full_range or full)
        matrix = _BT2020 if self.primaries == _BT2020 else _BT709
        return replace(self, matrix=matrix, full_range=full)

    def same_codes(self, other: "Colour") -> bool:
        """Return whether code values mean the same R'G'B' in both."""
        weights = [LUMA_WEIGHTS.get(colour.matrix) for colour in (self, other)]
        return weights[0] == weights[1] and self.full_range == other.full_range

    @property
    def range_code(self) -> int:
        """Range tag to write; never unspecified."""
        return RANGE_FULL if self.full_range else RANGE_LIMITED


SDR: Final = Colour(matrix=_BT709, primaries=_BT709, transfer=_BT709)
"""Colour that HDR is converted to, if the output cannot hold HDR or on request."""


def own_colour(picture: av.VideoFrame, first: Colour) -> Colour:
    """Return the colour of a picture of a stream that began with the colour `first`.

    What it does not tag, and R'G'B', is as in the first picture.
    """
    name = picture.format.name
    if first.matrix == RGB or is_rgb(name):
        return first
    known, range_ = picture.colorspace in LUMA_WEIGHTS, picture.color_range
    full = first.full_range if range_ == 0 else range_ == RANGE_FULL
    return Colour(
        matrix=picture.colorspace if known else first.matrix,
        full_range=full or name.startswith("yuvj"),
        primaries=_tagged(picture.color_primaries, first.primaries),
        transfer=_tagged(picture.color_trc, first.transfer),
    )


def _tagged(own: int, first: int) -> int:
    return first if own == UNSPECIFIED else own


def code_from_rgb(colour: Colour, bits: int) -> tuple[Array, Array]:
    """Return (matrix [3, 3], offset [3]) from R'G'B' in 0..1 to code values (H.273 section 8.3).

    Rows are Y, U and V; for matrix code 0 they are G, B and R.
    """
    if colour.matrix == RGB:
        planes = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
        gain, offset = code_scale(colour, bits)
        return gain[:, None] * planes, offset
    kr, kb = LUMA_WEIGHTS[colour.matrix]
    kg = 1 - kr - kb
    yuv = np.array(
        [
            [kr, kg, kb],
            [-kr / (2 * (1 - kb)), -kg / (2 * (1 - kb)), 0.5],
            [0.5, -kg / (2 * (1 - kr)), -kb / (2 * (1 - kr))],
        ]
    )
    gain, offset = code_scale(colour, bits)
    return gain[:, None] * yuv, offset


def code_scale(colour: Colour, bits: int) -> tuple[Array, Array]:
    """Return gain and offset from Y in 0..1, U and V in -0.5..0.5 (RGB: 0..1) to code values."""
    step, top, middle = 2.0 ** (bits - 8), 2.0**bits - 1, 2.0 ** (bits - 1)
    if colour.matrix == RGB:
        gain, low = (top, 0.0) if colour.full_range else (219.0 * step, 16.0 * step)
        return np.full(3, gain), np.full(3, low)
    if colour.full_range:
        return np.array([top, top, top]), np.array([0.0, middle, middle])
    return step * np.array([219.0, 224.0, 224.0]), np.array([16 * step, middle, middle])
