"""What is known of a video stream before its first frame is processed."""

from dataclasses import dataclass
from fractions import Fraction

import av

from vsr.colour import Colour
from vsr.frame import is_native


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
    def step(self) -> int:
        """Units of `time_base` from one frame to the next at the average rate."""
        return max(1, round(1 / (self.rate * self.time_base)))

    def conversion(self) -> str | None:
        """In words, what happens to a format the engine does not read as it is; else None."""
        notes = []
        if not is_native(self.pixel_format):
            notes.append(f"{self.pixel_format} is converted to 8-bit 4:2:0 before upscaling")
        if self.interlaced:
            notes.append(
                "the video is interlaced and is upscaled as whole frames, without deinterlacing"
            )
        return "; ".join(notes) or None
