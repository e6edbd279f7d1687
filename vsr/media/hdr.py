"""Reads HDR10 metadata (mastering display, content light level) and formats it for outputs."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from av.sidedata.sidedata import Type as SideType

from vsr.media.boxes import box

_MASTERING: Final = struct.Struct("=20i2i")
"""Layout of FFmpeg's AVMasteringDisplayMetadata: ten fractions, then two flags."""
_LIGHT: Final = struct.Struct("=2I")
"""Layout of FFmpeg's AVContentLightMetadata: MaxCLL and MaxFALL."""
_MDCV: Final = struct.Struct(">8H2I")
_MAX_UINT16: Final = 2**16 - 1
_SEI_CHROMA: Final = 50000
_SEI_LUMA: Final = 10000
"""Units per 1 of chromaticity and per cd/m2 in the SEI message (H.265 D.3.28)."""

HDR_ENCODERS: Final = ("libx264", "libx265", "libsvtav1")
"""Encoders that can write HDR10 metadata; for others only the container may hold it."""

Chromaticity = tuple[Fraction, Fraction]
"""CIE 1931 chromaticity x and y."""


@dataclass(frozen=True, kw_only=True)
class MasteringDisplay:
    """Colour volume of the mastering display (SMPTE ST 2086)."""

    red: Chromaticity
    green: Chromaticity
    blue: Chromaticity
    white: Chromaticity
    min_luminance: Fraction
    """Minimum luminance in cd/m2; `max_luminance` is the maximum."""
    max_luminance: Fraction


@dataclass(frozen=True, kw_only=True)
class Hdr10:
    """Static HDR metadata of a stream; a missing part is None."""

    display: MasteringDisplay | None = None
    light: tuple[int, int] | None = None
    """MaxCLL and MaxFALL in cd/m2 (CTA-861.3)."""

    @classmethod
    def of(cls, side_data: Mapping[str, bytes]) -> "Hdr10 | None":
        """Parse a picture's side data (PyAV's name of the kind -> content); None if it has none."""
        display = _display(side_data.get(SideType.MASTERING_DISPLAY_METADATA.name, b""))
        found = side_data.get(SideType.CONTENT_LIGHT_LEVEL.name, b"")
        light = _LIGHT.unpack_from(found) if len(found) >= _LIGHT.size else None
        return cls(display=display, light=light) if display or light else None

    @property
    def boxes(self) -> bytes:
        """MP4 boxes `mdcv` and `clli` with this metadata (ISO/IEC 14496-12, 12.1.5)."""
        made = b""
        if self.display is not None:
            points = _chromaticities(self.display).values()
            chroma = [round(value * _SEI_CHROMA) for point in points for value in point]
            luminance = (self.display.max_luminance, self.display.min_luminance)
            levels = [round(value * _SEI_LUMA) for value in luminance]
            made += box(b"mdcv", _MDCV.pack(*chroma, *levels))
        if self.light is not None:
            limited = (min(level, _MAX_UINT16) for level in self.light)
            made += box(b"clli", struct.pack(">2H", *limited))
        return made

    def parameters(self, encoder: str) -> tuple[str, list[str]]:
        """Return the parameter-list option of one of `HDR_ENCODERS`, and its parameters."""
        if encoder == "libsvtav1":
            return "svtav1-params", self._svtav1()
        if encoder == "libx265":
            return "x265-params", self._x26x("master-display", "max-cll")
        return "x264-params", self._x26x("mastering-display", "cll")

    def _x26x(self, display: str, light: str) -> list[str]:
        found = []
        if self.display is not None:
            points = _chromaticities(self.display)
            most, least = self.display.max_luminance, self.display.min_luminance
            text = "".join(
                f"{name}({round(x * _SEI_CHROMA)},{round(y * _SEI_CHROMA)})"
                for name, (x, y) in points.items()
            )
            range_ = f"L({round(most * _SEI_LUMA)},{round(least * _SEI_LUMA)})"
            found.append(f"{display}={text}{range_}")
        if self.light is not None:
            found.append(f"{light}={self.light[0]},{self.light[1]}")
        return found

    def _svtav1(self) -> list[str]:
        found = []
        if self.display is not None:
            text = "".join(
                f"{name}({float(x):.5f},{float(y):.5f})"
                for name, (x, y) in _chromaticities(self.display).items()
            )
            most, least = self.display.max_luminance, self.display.min_luminance
            range_ = f"L({float(most):.4f},{float(least):.4f})"
            found.append(f"mastering-display={text}{range_}")
        if self.light is not None:
            found.append(f"content-light={self.light[0]},{self.light[1]}")
        return found


def _chromaticities(display: MasteringDisplay) -> dict[str, Chromaticity]:
    """Return the chromaticities in the order that the encoders expect."""
    return {"G": display.green, "B": display.blue, "R": display.red, "WP": display.white}


def _display(data: bytes) -> MasteringDisplay | None:
    """Parse FFmpeg's struct; None if a part is missing, as encoders need all of it."""
    if len(data) < _MASTERING.size:
        return None
    *numbers, has_primaries, has_luminance = _MASTERING.unpack_from(data)
    if not (has_primaries and has_luminance) or 0 in numbers[1::2]:
        return None
    values = [Fraction(n, d) for n, d in zip(numbers[::2], numbers[1::2], strict=True)]
    pairs = list(zip(values[:8:2], values[1:8:2], strict=True))
    red, green, blue, white = pairs
    return MasteringDisplay(
        red=red,
        green=green,
        blue=blue,
        white=white,
        min_luminance=values[8],
        max_luminance=values[9],
    )
