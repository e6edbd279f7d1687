"""Converts every session's frames to the size, aspect ratio and colour of the first session.

An output keeps its format, whatever format the source reconnects with. So later frames are scaled
to fit the first session's size with their aspect ratio kept, black beside or above them, and are
converted to the first session's colour and bit depth. If outputs carry 8 bits, HDR is converted to
SDR: PQ and HLG show banding in 8 bits, and most players of live streams show them pale.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import av
import numpy as np

from vsr.media.colour import HDR_TRANSFERS, SDR, Colour, own_colour
from vsr.media.frame import Planes, planes_of
from vsr.media.hdr import Hdr10
from vsr.media.info import VideoInfo
from vsr.media.plane_format import YUV420, PlaneFormat, planes_for
from vsr.media.tone import ColourConverter

_MAX_ASPECT_ERROR: Final = 0.01
"""Relative difference below which aspect ratios count as equal: sizes are whole, often even."""
_HIGH_BITS: Final = 10
"""Bit depth of the frames if outputs carry more than 8 bits."""


@dataclass(frozen=True, kw_only=True)
class OutputCapabilities:
    """Bit depth and side data of a source that a relay's outputs carry."""

    bits: int = 8
    """Bits per sample, 8 or 10, for sources that have more than 8."""
    side_data: frozenset[str] = frozenset()
    """Kinds of side data that the encoder writes; see `vsr.media.side_data`."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Size, colour, bits and pixel aspect that all frames of a relay are converted to."""

    size: tuple[int, int]
    """Width and height."""
    colour: Colour
    sample_aspect: Fraction | None
    planes: PlaneFormat = YUV420
    """Plane format: 4:2:0 with 8 or 10 bits."""
    hdr: Hdr10 | None = None

    @classmethod
    def of(cls, info: VideoInfo, bits: int = 8) -> "Canvas":
        """Return the canvas for a first session's info and outputs that carry `bits` per sample."""
        size, own = (info.width, info.height), planes_for(info.pixel_format).bits
        if bits < _HIGH_BITS or not (own > 8 or info.colour.is_hdr):
            colour = SDR if info.colour.is_hdr else info.colour
            return cls(size=size, colour=colour, sample_aspect=info.sample_aspect)
        return cls(
            size=size, colour=info.colour, sample_aspect=info.sample_aspect,
            planes=replace(YUV420, bits=_HIGH_BITS, siting=info.planes.siting), hdr=info.hdr,
        )  # fmt: skip

    def converted_info(self, info: VideoInfo) -> VideoInfo:
        """Return a session's info after its frames are converted."""
        return replace(
            info, width=self.size[0], height=self.size[1], colour=self.colour,
            sample_aspect=self.sample_aspect, planes=self.planes, hdr=self.hdr,
        )  # fmt: skip

    def notes(self, info: VideoInfo, capabilities: OutputCapabilities) -> list[str]:
        """Describe what is lost or changed in a session's frames."""
        notes = []
        if info.colour.transfer != self.colour.transfer and info.colour.is_hdr:
            name, to = HDR_TRANSFERS[info.colour.transfer], self.colour.transfer
            why = "SDR (BT.709): outputs carry 8 bits"
            why = f"that of the first session ({HDR_TRANSFERS[to]})" if self.colour.is_hdr else why
            notes.append(f"its HDR ({name}) is converted to {why}")
        elif self.colour.is_hdr and not info.colour.is_hdr:
            notes.append(f"its SDR is converted to HDR ({HDR_TRANSFERS[self.colour.transfer]})")
        note = replace(info, colour=SDR).conversion(capabilities.side_data)
        notes += [note] if note else []
        box = self.box((info.width, info.height), info.sample_aspect)
        if box != self.size:
            notes.append(
                f"its {info.width}x{info.height} pixels are fitted into {box[0]}x{box[1]} of the "
                f"output's {self.size[0]}x{self.size[1]} (before upscaling), black around them"
            )
        elif (info.width, info.height) != self.size:
            notes.append(
                f"its {info.width}x{info.height} pixels are resized to the output's "
                f"{self.size[0]}x{self.size[1]} (before upscaling)"
            )
        return notes

    def box(self, size: tuple[int, int], sample_aspect: Fraction | None) -> tuple[int, int]:
        """Return (width, height) on the canvas of a frame of another size and pixel aspect."""
        width, height = self.size
        ours = width * (self.sample_aspect or 1) / Fraction(height)
        ratio = size[0] * (sample_aspect or 1) / Fraction(size[1]) / ours
        if abs(ratio - 1) < _MAX_ASPECT_ERROR:
            return self.size
        if ratio > 1:
            return width, max(2, round(height / ratio) // 2 * 2)
        return max(2, round(width * ratio) // 2 * 2), height


class FrameFitter:
    """Converts decoded frames to planes on a canvas. Not thread-safe."""

    def __init__(self, canvas: Canvas | None = None, bits: int = 8) -> None:
        """Without a canvas, the first session sets it, for outputs that carry `bits` per sample."""
        self._canvas, self._bits = canvas, bits
        self._converter = ColourConverter()

    @property
    def canvas(self) -> Canvas:
        """Canvas that frames are converted to; set by the first `with_canvas_format`."""
        assert self._canvas is not None
        return self._canvas

    def with_canvas_format(self, info: VideoInfo) -> VideoInfo:
        """Return a session's info with the canvas's plane format, in its original size and colour.

        The first session sets the canvas.
        """
        plain = info.in_yuv420()
        if self._canvas is None:
            first = replace(plain, planes=info.planes, hdr=info.hdr)
            self._canvas = Canvas.of(first, self._bits)
        return replace(plain, planes=self._canvas.planes)

    def planes(self, picture: av.VideoFrame, info: VideoInfo) -> Planes:
        """Convert a frame to planes of the canvas.

        `info` is the result of `with_canvas_format`, with the frame's pixel aspect.
        """
        canvas = self.canvas
        size, colour = (picture.width, picture.height), _colour_of(picture, info)
        box = canvas.box(size, info.sample_aspect)
        if colour == canvas.colour and box == canvas.size:
            return planes_of(picture, canvas.size, colour, canvas.planes)
        return _padded(self._converted(picture, colour, box), canvas)

    def _converted(self, picture: av.VideoFrame, colour: Colour, box: tuple[int, int]) -> Planes:
        form = self.canvas.planes
        if picture.format.name.startswith("gray"):  # swscale would treat it as full range
            own = planes_of(picture, (picture.width, picture.height), colour, form)
            name = form.pixel_format()
            picture = av.VideoFrame.from_dlpack(tuple(map(np.array, own)), format=name)
        return self._converter.planes(picture, colour, self.canvas.colour, box, form)


def _colour_of(picture: av.VideoFrame, info: VideoInfo) -> Colour:
    """Return a frame's colour; without tags it is the session's, unless its size differs."""
    if (picture.width, picture.height) == (info.width, info.height):
        return own_colour(picture, info.colour)
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
    padded = []
    for plane, (shape, step, fill) in zip(planes, shapes, strict=True):
        whole = np.full(shape, fill, form.dtype)
        y, x = top // step, left // step
        whole[y : y + plane.shape[0], x : x + plane.shape[1]] = plane
        padded.append(whole)
    return padded[0], padded[1], padded[2]
