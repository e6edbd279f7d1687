"""Chooses the frame to show while there is no source: the last one, later a slate."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import av
import numpy as np

from vsr.errors import InputError, reason
from vsr.media.colour import RGB, SDR, Colour
from vsr.media.decoder import flush_decoder
from vsr.media.frame import Planes
from vsr.media.location import absolute_path
from vsr.media.plane_format import YUV420, PlaneFormat
from vsr.media.tone import ColourConverter

_DARKENING: Final = 4
"""Divisor of luma and chroma for darkening the last frame if there is no slate image."""
_BLACK: Final = 16
_NEUTRAL: Final = 128
_HIGH_BITS: Final = 10
"""Bit depth of frames with more than 8 bits."""


class Slate:
    """Chooses the frame to show without a source: after `after` s, the slate. Not thread-safe."""

    def __init__(self, after: float, image: Path | None = None) -> None:
        """Read the image; without one, the slate is the darkened last frame. Raises InputError."""
        self._after = after
        self._image = None if image is None else _read(image)
        self._planes: Planes | None = None
        self._began: float | None = None
        self._shown_until = 0.0
        self.showing = ""
        """Name of what replaces the source's frames; empty while the source delivers."""
        self.seconds = 0.0
        """Total time that the slate was shown, in seconds."""

    def fit(
        self, size: tuple[int, int], colour: Colour, plane_format: PlaneFormat = YUV420
    ) -> None:
        """Convert the image to the output's size (width, height), colour and format."""
        if self._image is not None:
            self._planes = _fit_image(self._image, size, colour, plane_format)

    def end(self) -> None:
        """Reset, because the source delivers frames again."""
        self._began, self.showing = None, ""
        if self._image is None:
            self._planes = None

    def show(self, last: Planes, wall: float) -> Planes:
        """Return the frame to show at `wall` (s) if none is newer than `last`."""
        self._began = wall if self._began is None else self._began
        if wall - self._began <= self._after:
            self.showing, self._shown_until = "the last picture", wall
            return last
        self.seconds += max(0.0, wall - self._shown_until)
        self.showing, self._shown_until = "the slate", wall
        if self._planes is None:
            self._planes = darkened(last)
        return self._planes


def darkened(planes: Planes) -> Planes:
    """Darken a frame of 8 or 10 bits to a quarter of its luma and chroma, in either range."""
    y, u, v = planes
    unit = 1 if y.dtype == np.uint8 else 2 ** (_HIGH_BITS - 8)
    black, grey = _BLACK * unit, _NEUTRAL * unit
    rest = grey - grey // _DARKENING
    return (
        black + (y - black) // _DARKENING * (y > black),
        u // _DARKENING + rest,
        v // _DARKENING + rest,
    )


def _read(path: Path) -> av.VideoFrame:
    try:
        with av.open(absolute_path(str(path))) as file:
            frames = file.decode(video=0)
            image, following = next(frames), next(frames, None)
            flush_decoder(file.streams.video[0].codec_context)
    except (av.error.FFmpegError, OSError, StopIteration, IndexError, ValueError) as exc:
        raise InputError(f"cannot read the slate {path} as an image: {reason(exc)}") from exc
    if following is not None:
        raise InputError(
            f"the slate {path} is a video, and only an image is shown: save one of its frames as "
            "a .png"
        )
    return image


def _fit_image(
    picture: av.VideoFrame, size: tuple[int, int], colour: Colour, plane_format: PlaneFormat
) -> Planes:
    """Scale a frame to fit a size and centre it on black."""
    ratio = min(size[0] / picture.width, size[1] / picture.height)
    width, height = (max(2, int(n * ratio) // 2 * 2) for n in (picture.width, picture.height))
    small = picture.reformat(format="rgb24", width=width, height=height, interpolation="BICUBIC")
    rgb = np.zeros((size[1], size[0], 3), np.uint8)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    rgb[top : top + height, left : left + width] = small.to_ndarray()
    whole = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    plain = replace(SDR, matrix=RGB, full_range=True)
    y, u, v = ColourConverter().planes(whole, plain, colour, size, plane_format)
    return np.array(y), np.array(u), np.array(v)
