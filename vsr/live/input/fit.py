"""Converts every session's pictures to the size, shape and colour of the first session.

An output goes on whatever its source comes back with. So a later picture is scaled into the first
one's frame with its own shape, black beside or above it, and its codes are converted to the first
one's colours and bits. Where outputs carry 8 bits, HDR is converted to SDR: PQ and HLG show bands
in them, and most players of live streams show them pale.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import av
import numpy as np

from vsr.media.colour import HDR_TRANSFERS, SDR, Colour
from vsr.media.frame import Planes, planes_of
from vsr.media.hdr import Hdr10
from vsr.media.info import VideoInfo
from vsr.media.plane_format import YUV420, PlaneFormat, planes_for
from vsr.media.tone import Converter

_SAME_SHAPE: Final = 0.01
"""Shapes that differ by less are taken as one: sizes are whole, often even, numbers of pixels."""
_DEEP: Final = 10
"""Bits of the pictures of outputs that carry more than 8."""


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What a relay's outputs carry of a source's pictures."""

    bits: int = 8
    """Per sample, of sources that have more than 8: 8 or 10."""
    side_data: frozenset[str] = frozenset()
    """Kinds that the encoder writes; see `vsr.media.side_data`."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Size, colour, bits and pixel aspect that all pictures of a relay are converted to."""

    size: tuple[int, int]
    """Width and height."""
    colour: Colour
    sample_aspect: Fraction | None
    planes: PlaneFormat = YUV420
    """8 or 10 bits in 4:2:0."""
    hdr: Hdr10 | None = None

    @classmethod
    def of(cls, info: VideoInfo, bits: int = 8) -> "Canvas":
        """The canvas for a first session with these facts, for outputs that carry so many bits."""
        size, own = (info.width, info.height), planes_for(info.pixel_format).bits
        if bits < _DEEP or not (own > 8 or info.colour.is_hdr):
            colour = SDR if info.colour.is_hdr else info.colour
            return cls(size=size, colour=colour, sample_aspect=info.sample_aspect)
        return cls(
            size=size, colour=info.colour, sample_aspect=info.sample_aspect,
            planes=replace(YUV420, bits=_DEEP, siting=info.planes.siting), hdr=info.hdr,
        )  # fmt: skip

    def presented(self, info: VideoInfo) -> VideoInfo:
        """A session's facts after its pictures are converted."""
        return replace(
            info, width=self.size[0], height=self.size[1], colour=self.colour,
            sample_aspect=self.sample_aspect, planes=self.planes, hdr=self.hdr,
        )  # fmt: skip

    def notes(self, info: VideoInfo, carried: Carried) -> list[str]:
        """Describe what is lost or changed of a session's pictures."""
        found = []
        if info.colour.transfer != self.colour.transfer and info.colour.is_hdr:
            name, to = HDR_TRANSFERS[info.colour.transfer], self.colour.transfer
            why = "SDR (BT.709): outputs carry 8 bits"
            why = f"that of the first session ({HDR_TRANSFERS[to]})" if self.colour.is_hdr else why
            found.append(f"its HDR ({name}) is converted to {why}")
        elif self.colour.is_hdr and not info.colour.is_hdr:
            found.append(f"its SDR is converted to HDR ({HDR_TRANSFERS[self.colour.transfer]})")
        said = replace(info, colour=SDR).conversion(carried.side_data)
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
    """Converts decoded pictures to planes on a canvas. For one thread."""

    def __init__(self, canvas: Canvas | None = None, bits: int = 8) -> None:
        """Without a canvas, the first picture settles it, for outputs that carry so many bits."""
        self._canvas, self._bits = canvas, bits
        self._converter = Converter()

    @property
    def canvas(self) -> Canvas:
        """What pictures are converted to; known after the first."""
        assert self._canvas is not None
        return self._canvas

    def seen_as(self, info: VideoInfo) -> VideoInfo:
        """The facts of a session's pictures in the canvas's format, in their own size and colour.

        The first session settles the canvas.
        """
        plain = info.in_yuv420()
        if self._canvas is None:
            first = replace(plain, planes=info.planes, hdr=info.hdr)
            self._canvas = Canvas.of(first, self._bits)
        return replace(plain, planes=self._canvas.planes)

    def planes(self, picture: av.VideoFrame, info: VideoInfo) -> Planes:
        """Convert a picture to planes of the canvas; `info` is what `seen_as` returned."""
        canvas = self.canvas
        size, colour = (picture.width, picture.height), _colour_of(picture, info)
        box = canvas.box(size, info.sample_aspect)
        if colour == canvas.colour and box == canvas.size:
            return planes_of(picture, canvas.size, colour, canvas.planes)
        return _padded(self._converted(picture, colour, box), canvas)

    def _converted(self, picture: av.VideoFrame, colour: Colour, box: tuple[int, int]) -> Planes:
        form = self.canvas.planes
        if picture.format.name.startswith("gray"):  # swscale would take it as full range
            own = planes_of(picture, (picture.width, picture.height), colour, form)
            name = form.pixel_format()
            picture = av.VideoFrame.from_dlpack(tuple(map(np.array, own)), format=name)
        return self._converter.planes(picture, colour, self.canvas.colour, box, form)


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
    form = canvas.planes
    unit = 2 ** (form.bits - 8)
    black, neutral = 0 if canvas.colour.full_range else 16 * unit, 128 * unit
    left = (width - planes[0].shape[1]) // 4 * 2
    top = (height - planes[0].shape[0]) // 4 * 2
    half = form.chroma(width, height)[::-1]
    shapes = (((height, width), 1, black), (half, 2, neutral), (half, 2, neutral))
    found = []
    for plane, (shape, step, fill) in zip(planes, shapes, strict=True):
        whole = np.full(shape, fill, form.dtype)
        y, x = top // step, left // step
        whole[y : y + plane.shape[0], x : x + plane.shape[1]] = plane
        found.append(whole)
    return found[0], found[1], found[2]
