"""Describes planes: sample depth, chroma subsampling and siting; reads FFmpeg's pixel formats."""

from dataclasses import dataclass
from functools import cache
from typing import Final

import av
import numpy as np

_DEPTHS: Final = (8, 9, 10, 12, 14, 16)
"""Bits per sample of FFmpeg's planar formats."""
_NAMES: Final = {(2, 2): "yuv420p", (2, 1): "yuv422p", (1, 1): "yuv444p"}
SITINGS: Final = {
    "left": (0.0, 0.5), "center": (0.5, 0.5), "topleft": (0.0, 0.0),
    "top": (0.5, 0.0), "bottomleft": (0.0, 1.0), "bottom": (0.5, 1.0),
}  # fmt: skip
"""FFmpeg's chroma siting name -> position of the first chroma sample of 4:2:0, in luma columns and
rows from the centre of the first luma sample (H.273 section 8.7)."""


@dataclass(frozen=True, kw_only=True)
class PlaneFormat:
    """Sample depth, chroma subsampling and chroma siting of a picture's planes."""

    bits: int = 8
    """Bits per sample, 8 to 16."""
    chroma_x: int = 2
    """Luma columns per chroma column: 2 (4:2:0 and 4:2:2) or 1 (4:4:4 and RGB)."""
    chroma_y: int = 2
    """Luma rows per chroma row: 2 (4:2:0) or 1."""
    siting: str = "left"
    """A key of `SITINGS`; without effect along an axis that is not subsampled."""

    def __str__(self) -> str:
        return f"{self.bits} bits, chroma 1/{self.chroma_x} x 1/{self.chroma_y}"

    @property
    def subsampling(self) -> str:
        """Chroma subsampling as text, such as `4:2:0`."""
        across, down = 4 // self.chroma_x, 2 // self.chroma_y
        return f"4:{across}:{across if down == 2 else 0}"

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """Dtype of a plane's samples."""
        return np.dtype(np.uint8) if self.bits == 8 else np.dtype(np.uint16)

    @property
    def chroma_place(self) -> tuple[float, float]:
        """Position (column, row) of the first chroma sample, as in `SITINGS`."""
        x, y = SITINGS[self.siting]
        return x if self.chroma_x > 1 else 0.0, y if self.chroma_y > 1 else 0.0

    def chroma(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) of a picture's chroma planes, rounded up."""
        return -(-width // self.chroma_x), -(-height // self.chroma_y)

    def output(self, width: int, height: int, scale: int) -> tuple[int, int]:
        """Return (width, height) of the enlarged luma plane, rounded up to whole chroma samples.

        H.264 and HEVC cannot express an odd 4:2:0 size; the added column or row (odd input at
        x3 only) repeats the edge.
        """
        w, h = self.chroma(width * scale, height * scale)
        return w * self.chroma_x, h * self.chroma_y

    def pixel_format(self, rgb: bool = False) -> str:
        """Return FFmpeg's name of this format: planes Y, U and V or, for RGB, G, B and R."""
        name = "gbrp" if rgb else _NAMES[self.chroma_x, self.chroma_y]
        return name if self.bits == 8 else f"{name}{self.bits}le"


YUV420: Final = PlaneFormat()
"""8-bit 4:2:0, the format of most files and streams."""


@cache
def is_rgb(pixel_format: str) -> bool:
    """Return whether pixels are R, G and B (also Bayer) or indices into a palette of them."""
    pixels = av.VideoFormat(pixel_format)
    return pixels.is_rgb or pixels.has_palette or pixels.is_bayer


@cache
def is_grey(pixel_format: str) -> bool:
    """Return whether pixels have luma only, with or without alpha."""
    colours = [part for part in av.VideoFormat(pixel_format).components if not part.is_alpha]
    return len(colours) == 1 and not is_rgb(pixel_format)


@cache
def planes_for(pixel_format: str) -> PlaneFormat:
    """Return the plane format that holds pictures of an FFmpeg pixel format without loss.

    Grey becomes 4:2:0 with constant chroma; 4:1:1, 4:1:0 and 4:4:0 become the next finer
    subsampling.
    """
    pixels = av.VideoFormat(pixel_format, 64, 64)
    found = max((part.bits for part in pixels.components if not part.is_alpha), default=8)
    bits = next((bits for bits in _DEPTHS if bits >= found), _DEPTHS[-1])
    if is_rgb(pixel_format):
        return PlaneFormat(bits=bits, chroma_x=1, chroma_y=1)
    if is_grey(pixel_format):
        return PlaneFormat(bits=bits)
    width, height = pixels.chroma_width() or 64, pixels.chroma_height() or 64
    across, down = 64 // width, 64 // height
    if across == 1:  # 4:4:4 and 4:4:0
        return PlaneFormat(bits=bits, chroma_x=1, chroma_y=1)
    return PlaneFormat(bits=bits, chroma_x=2, chroma_y=2 if down > 1 else 1)


def same_planes(pixel_format: str, planar: str) -> bool:
    """Return whether a format's first three planes have the memory layout of a planar format.

    Its range (`yuvj420p`) or alpha (`yuva420p`) may differ.
    """
    plain = pixel_format.replace("yuvj", "yuv").replace("yuva", "yuv").replace("gbrap", "gbrp")
    return plain == planar
