"""Defines `Frame`: picture planes with format, time and timestamps of every stage.

The only module that turns PyAV's pictures into planes and back.
"""

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from time import perf_counter
from typing import Any, Final, cast

import av
import numpy as np
import numpy.typing as npt

from vsr.media.alpha import enlarged, has_alpha, opaque_format, packed
from vsr.media.colour import RGB, Colour
from vsr.media.plane_format import YUV420, PlaneFormat, is_grey, is_rgb, planes_for, same_planes
from vsr.media.side_data import with_side_data

Plane = npt.NDArray[np.unsignedinteger[Any]]
"""One picture plane, [height, width]: uint8, or uint16 above 8 bits."""
Planes = tuple[Plane, Plane, Plane]
"""Y, U and V; in 4:2:0 the chroma planes are ceil(height/2) x ceil(width/2).

In RGB (matrix 0), G, B and R.
"""

PIXEL_FORMAT: Final = YUV420.pixel_format()
"""What live streams are read and written in."""
_NO_PLANE: Final = np.empty((0, 0), np.uint8)
_GREY: Final = re.compile(r"gray|ya8|(gray|ya)(9|10|12|14|16)[lb]e")
_WHOLE_ROW: Final = 64
"""Samples that swscale's instructions may work on at once."""
SWSCALE_MATRIX: Final = {RGB: 1, 1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""H.273 matrix code -> swscale's number of the same coefficients (5 and 6 are equal); where both
sides are RGB it asks for none."""


@dataclass(slots=True)
class Stamps:
    """Times of one frame at every stage, in seconds of `time.perf_counter`."""

    read: float = 0.0
    """When its packet was read from the input."""
    decoded: float = 0.0
    """When its planes were ready."""
    blocked: float = 0.0
    """Seconds between the two in which the decoder waited: for later stages, and, decoding one
    frame at a time, for the packets that B-frames need first."""
    infer_start: float = 0.0
    infer_end: float = 0.0
    encode_start: float = 0.0
    """When it was passed to the encoder."""
    encoded: float = 0.0
    """When its own packet came out of the encoder, encoder delay included."""
    muxed: float = 0.0
    """The muxer had taken that packet."""
    sent: float = 0.0
    """Live: the slowest output had written that packet; NaN: none did. 0 for files."""


@dataclass(slots=True)
class Frame:
    """One picture between source and sink."""

    planes: Planes
    index: int
    """Position in the input, from 0."""
    pts: int
    """Presentation time in units of `time_base`."""
    time_base: Fraction
    duration: int
    """In units of `time_base`, 0 when the source does not say."""
    format: PlaneFormat = YUV420
    colour: Colour = field(default_factory=Colour)
    """What the planes' codes mean."""
    stamps: Stamps = field(default_factory=Stamps)
    rung: str = ""
    """The model that made this frame; empty before the upscaler."""
    event: str = ""
    """What went wrong or was done on the way (`concealed`, `resized`), else empty."""

    side_data: av.VideoFrame | None = None
    """A picture that has nothing but the captions of this one; see `vsr.media.side_data`."""
    alpha: Plane | None = None
    """How opaque it is, in the source's size and the bits of `format`; None: everywhere."""

    def __repr__(self) -> str:
        """Format, size and times in one line, without the samples."""
        height, width = self.planes[0].shape
        return (
            f"<Frame {self.index}: {width}x{height}, {self.format}, pts {self.pts} x "
            f"{self.time_base} s = {self.time:.3f} s>"
        )

    @property
    def time(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """R'G'B' uint8 [height, width, 3] in full range, by swscale; a copy."""
        return cast(
            npt.NDArray[np.uint8], converted(picture_of(self), "rgb24", self.colour).to_ndarray()
        )

    def bare(self) -> "Frame":
        """Copy the frame without its planes, to keep its times only."""
        return replace(self, planes=(_NO_PLANE,) * 3, side_data=None, alpha=None)

    def with_planes(self, planes: Planes, rung: str) -> "Frame":
        """Copy the frame with the planes of another picture, made by `rung`."""
        return replace(self, planes=planes, rung=rung)


def as_bytes(plane: Plane) -> npt.NDArray[np.uint8]:
    """The same memory as bytes, [height, width * bytes per sample]; copied only if a row's samples
    do not lie side by side."""
    side_by_side = plane.strides[-1] == plane.itemsize
    return (plane if side_by_side else np.ascontiguousarray(plane)).view(np.uint8)


def planes_of(
    picture: av.VideoFrame, size: tuple[int, int], colour: Colour, form: PlaneFormat = YUV420
) -> Planes:
    """Convert a decoded picture to planes of `size` (width, height), `form` and `colour`.

    Planes that are so already are not copied: the arrays are views of FFmpeg's buffers (padded
    rows, read-only), which they keep alive. Anything else goes through swscale, which is told
    matrix and range, or it would assume BT.601 and squeeze full range.
    """
    if _GREY.fullmatch(picture.format.name) and colour.matrix != RGB:
        chroma = np.full(form.chroma(*size)[::-1], 2 ** (form.bits - 1), form.dtype)
        return _grey(picture, size, colour, form), chroma, chroma
    wanted = form.pixel_format(colour.matrix == RGB)
    same_size = (picture.width, picture.height) == size
    if not same_size or not same_planes(picture.format.name, wanted):
        picture = _reformatted(picture, size, wanted, (colour, colour))
    y, u, v = (cast(Plane, np.from_dlpack(plane)) for plane in picture.planes[:3])
    return y, u, v


def _grey(
    picture: av.VideoFrame, size: tuple[int, int], colour: Colour, form: PlaneFormat
) -> Plane:
    """The luma plane of a grey picture in the bits of `form`, without its alpha.

    swscale takes all grey as full range on the way to YUV; it only changes the size here.
    """
    bits = picture.format.components[0].bits
    codes = _grey_codes(picture)
    if (picture.width, picture.height) != size:
        plain = "gray" if bits == 8 else "gray16le"
        scaled = av.VideoFrame.from_ndarray(codes, format=plain).reformat(
            width=size[0], height=size[1], interpolation="BICUBIC", threads=swscale_threads(size[0])
        )
        codes = cast(Plane, np.from_dlpack(scaled.planes[0]))
    if bits == form.bits:
        return codes
    top = 2**form.bits - 1
    step = (2**bits - 1) / top if colour.full_range else 2.0 ** (bits - form.bits)
    return np.clip(np.rint(codes / step), 0, top).astype(form.dtype)


def _grey_codes(picture: av.VideoFrame) -> Plane:
    """The luma codes of a grey picture [height, width], uint8 or uint16, without its alpha.

    Read from memory as they lie, for swscale's way from `ya16le` to grey was seen to differ from
    run to run.
    """
    parts, order = picture.format.components, ">" if picture.format.is_big_endian else "<"
    stored = np.dtype(np.uint8 if parts[0].bits == 8 else f"{order}u2")
    memory = np.frombuffer(memoryview(picture.planes[0]), stored)
    codes = memory.reshape(picture.height, -1)[:, : picture.width * len(parts) : len(parts)]
    return codes.astype(stored.newbyteorder("="))


def picture_of(frame: Frame) -> av.VideoFrame:
    """Make a picture of a frame's planes; it shares memory with writable, contiguous ones.

    Others, such as a decoder's, are copied: DLPack lends no read-only memory.
    """
    planes = tuple(
        plane if plane.flags.writeable and plane.flags.c_contiguous else np.array(plane)
        for plane in frame.planes
    )
    name = frame.format.pixel_format(frame.colour.matrix == RGB)
    picture = av.VideoFrame.from_dlpack(planes, format=name)
    return _timed(picture, frame)


def encodable(frame: Frame, pixel_format: str) -> av.VideoFrame:
    """Make an encoder's picture of a frame: its planes, or converted where the encoder takes
    another format."""
    made = _with_alpha if has_alpha(pixel_format) else _in_format
    picture = with_side_data(_timed(made(frame, pixel_format), frame), frame.side_data)
    colour = frame.colour.encoded(is_rgb(pixel_format))
    picture.colorspace, picture.color_range = colour.matrix, colour.range_code
    # some encoders, such as ProRes, read these of the first picture
    picture.color_primaries, picture.color_trc = colour.primaries, colour.transfer
    return picture


def _in_format(frame: Frame, pixel_format: str) -> av.VideoFrame:
    picture = picture_of(frame)
    if picture.format.name == pixel_format:
        return picture
    if not is_grey(pixel_format):
        return converted(picture, pixel_format, frame.colour)
    # swscale takes all grey as full range
    bits = planes_for(pixel_format).bits
    if bits != frame.format.bits or frame.colour.matrix == RGB:
        plain = replace(frame.format, bits=bits).pixel_format()
        picture = converted(picture, plain, frame.colour)
    luma = np.array(np.from_dlpack(picture.planes[0]))
    return av.VideoFrame.from_dlpack((luma,), format=pixel_format)


def _with_alpha(frame: Frame, pixel_format: str) -> av.VideoFrame:
    """The frame in a format with alpha; opaque where it says nothing."""
    bits = planes_for(pixel_format).bits
    plain = opaque_format(pixel_format)
    colours = [np.array(np.from_dlpack(p)) for p in _in_format(frame, plain).planes]
    alpha = enlarged(frame.alpha, frame.planes[0].shape, frame.format.bits, bits)
    return packed(colours, alpha, pixel_format)


def converted(picture: av.VideoFrame, pixel_format: str, colour: Colour) -> av.VideoFrame:
    """Convert a picture of that colour to another pixel format, by swscale.

    YUV keeps matrix and range, RGB becomes what `Colour.encoded` says.
    """
    to = colour.encoded(is_rgb(pixel_format))
    return _reformatted(picture, (picture.width, picture.height), pixel_format, (colour, to))


def _reformatted(
    picture: av.VideoFrame, size: tuple[int, int], pixel_format: str, colours: tuple[Colour, Colour]
) -> av.VideoFrame:
    """Convert a picture by swscale to a size, pixel format and (from, to) colour."""
    before, after = colours
    return picture.reformat(
        width=size[0],
        height=size[1],
        format=pixel_format,
        src_colorspace=SWSCALE_MATRIX[before.matrix],
        dst_colorspace=SWSCALE_MATRIX[after.matrix],
        src_color_range=before.range_code,
        dst_color_range=after.range_code,
        interpolation="BICUBIC",
        threads=swscale_threads(size[0]),
    )


def swscale_threads(width: int) -> int | None:
    """How many threads may convert to that width (None: as many as swscale likes).

    It writes past the end of uneven rows: over what another thread has done, if several work.
    """
    return 1 if width % _WHOLE_ROW else None


def _timed(picture: av.VideoFrame, frame: Frame) -> av.VideoFrame:
    picture.pts, picture.time_base = frame.pts, frame.time_base
    picture.duration = frame.duration
    return picture


def now() -> float:
    """Read the clock of all `Stamps`."""
    return perf_counter()
