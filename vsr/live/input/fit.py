"""Converts every session's pictures to the size, shape and colour of the first session.

An output goes on whatever its source comes back with. So a later picture is scaled into the first
one's frame with its own shape, black beside or above it, and its codes are converted to the first
one's colours. HDR is converted to SDR: outputs carry 8 bits, in which PQ and HLG show bands, and
most players of live streams show them pale.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import av
import numpy as np

from vsr.media.colour import HDR_TRANSFERS, SDR, Colour
from vsr.media.frame import PIXEL_FORMAT, Planes, planes_of
from vsr.media.info import VideoInfo
from vsr.media.tone import Converter

_SAME_SHAPE: Final = 0.01
"""Shapes that differ by less are taken as one: sizes are whole, often even, numbers of pixels."""
_NEUTRAL: Final = 128


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Size, colour and pixel aspect that all pictures of a relay are converted to."""

    size: tuple[int, int]
    """Width and height."""
    colour: Colour
    sample_aspect: Fraction | None

    @classmethod
    def of(cls, info: VideoInfo) -> "Canvas":
        """The canvas for a first session with these facts."""
        colour = SDR if info.colour.is_hdr else info.colour
        return cls(size=(info.width, info.height), colour=colour, sample_aspect=info.sample_aspect)

    def presented(self, info: VideoInfo) -> VideoInfo:
        """A session's facts after its pictures are converted."""
        return replace(
            info, width=self.size[0], height=self.size[1], colour=self.colour,
            sample_aspect=self.sample_aspect,
        )  # fmt: skip

    def notes(self, info: VideoInfo) -> list[str]:
        """Describe what is lost or changed of a session's pictures."""
        found = []
        if info.colour.is_hdr:
            name = HDR_TRANSFERS[info.colour.transfer]
            found.append(f"its HDR ({name}) is converted to SDR (BT.709): outputs carry 8 bits")
        said = replace(info, colour=SDR).conversion()
        found += [said] if said else []
        box = self.box((info.width, info.height), info.sample_aspect)
        if box != self.size:
            found.append(
                f"its {info.width}x{info.height} pixels are fitted into {box[0]}x{box[1]} of the "
                f"output's {self.size[0]}x{self.size[1]} (before upscaling), black around them"
            )
        return found

    def box(self, size: tuple[int, int], sample_aspect: Fraction | None) -> tuple[int, int]:
        """Return (width, height) of a picture of another size and pixel aspect on the canvas."""
        width, height = self.size
        ours = width * (self.sample_aspect or 1) / Fraction(height)
        share = size[0] * (sample_aspect or 1) / Fraction(size[1]) / ours
        if abs(share - 1) < _SAME_SHAPE:
            return self.size
        if share > 1:
            return width, max(2, round(height / share) // 2 * 2)
        return max(2, round(width * share) // 2 * 2), height


class PictureFit:
    """EngineQueue decoded pictures into planes on a canvas. For one thread."""

    def __init__(self, canvas: Canvas | None = None) -> None:
        """Without a canvas, the first picture settles it."""
        self._canvas = canvas
        self._converter = Converter()

    @property
    def canvas(self) -> Canvas:
        """What pictures are converted to; known after the first."""
        assert self._canvas is not None
        return self._canvas

    def planes(self, picture: av.VideoFrame, info: VideoInfo) -> Planes:
        """Convert a picture to 8-bit 4:2:0 planes of the canvas; `info` is the session's."""
        self._canvas = canvas = self._canvas or Canvas.of(info)
        size, colour = (picture.width, picture.height), _colour_of(picture, info)
        box = canvas.box(size, info.sample_aspect)
        if colour == canvas.colour and box == canvas.size:
            return planes_of(picture, canvas.size, colour)
        return _padded(self._converted(picture, colour, box), canvas)

    def _converted(self, picture: av.VideoFrame, colour: Colour, box: tuple[int, int]) -> Planes:
        if picture.format.name.startswith("gray"):  # swscale would take it as full range
            own = planes_of(picture, (picture.width, picture.height), colour)
            picture = av.VideoFrame.from_dlpack(tuple(map(np.array, own)), format=PIXEL_FORMAT)
        return self._converter.planes(picture, colour, self.canvas.colour, box)


def _colour_of(picture: av.VideoFrame, info: VideoInfo) -> Colour:
    """A picture's own colour, which may differ from the session's if its size does."""
    if (picture.width, picture.height) == (info.width, info.height):
        return info.colour
    return Colour.from_tags(
        matrix=picture.colorspace, range_=picture.color_range,
        primaries=picture.color_primaries, transfer=picture.color_trc,
        height=picture.height, pix_fmt=picture.format.name,
    )  # fmt: skip


def _padded(planes: Planes, canvas: Canvas) -> Planes:
    """Centre planes on a black canvas; planes that fill it are returned unchanged."""
    width, height = canvas.size
    if planes[0].shape == (height, width):
        return planes
    black = 0 if canvas.colour.full_range else 16
    left = (width - planes[0].shape[1]) // 4 * 2
    top = (height - planes[0].shape[0]) // 4 * 2
    half = (height + 1) // 2, (width + 1) // 2
    shapes = (((height, width), 1, black), (half, 2, _NEUTRAL), (half, 2, _NEUTRAL))
    found = []
    for plane, (shape, step, fill) in zip(planes, shapes, strict=True):
        whole = np.full(shape, fill, np.uint8)
        y, x = top // step, left // step
        whole[y : y + plane.shape[0], x : x + plane.shape[1]] = plane
        found.append(whole)
    return found[0], found[1], found[2]
