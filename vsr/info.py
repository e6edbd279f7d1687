"""What is known of a video stream before its first frame is processed."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av

from vsr.colour import Colour
from vsr.frame import is_native

_PQ: Final = 16  # transfer of SMPTE ST 2084, H.273


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known of the video stream before the first frame is processed."""

    stream: av.VideoStream
    width: int
    height: int
    pixel_format: str
    colour: Colour
    time_base: Fraction
    rate: Fraction
    """Average frame rate; only a hint, frames carry their own time."""
    sample_aspect: Fraction | None
    display_matrix: bytes | None
    """FFmpeg's 3x3 rotation matrix (36 bytes), None when the picture is upright."""
    frames: int
    """Frames announced or estimated, 0 when unknown."""
    duration: float | None
    """Seconds, None when unknown."""
    interlaced: bool

    @property
    def transparent(self) -> bool:
        """Whether the pixel format has an alpha plane or component."""
        return any(component.is_alpha for component in av.VideoFormat(self.pixel_format).components)

    @property
    def step(self) -> int:
        """Units of `time_base` from one frame to the next at the average rate."""
        return max(1, round(1 / (self.rate * self.time_base)))

    def conversion(self) -> str | None:
        """In words, what happens to a format the engine does not read as it is; else None."""
        notes = []
        if not is_native(self.pixel_format):
            notes.append(f"{self.pixel_format} is converted to 8-bit 4:2:0 before upscaling")
            if self.transparent:
                notes.append("its transparency is lost")
        if self.colour.transfer == _PQ:
            notes.append("its HDR10 metadata is left out")
        if self.interlaced:
            notes.append(
                "the video is interlaced and is upscaled as whole frames, without deinterlacing"
            )
        return "; ".join(notes) or None
