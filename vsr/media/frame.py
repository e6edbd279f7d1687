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

from vsr.errors import UsageError
from vsr.media.colour import RANGE_FULL, Colour

Plane = npt.NDArray[np.unsignedinteger[Any]]
"""One picture plane, [height, width]: uint8, or uint16 above 8 bits."""
Planes = tuple[Plane, Plane, Plane]
"""Y, U and V; in 4:2:0 the chroma planes are ceil(height/2) x ceil(width/2).

In RGB (matrix 0), G, B and R.
"""

PIXEL_FORMAT: Final = "yuv420p"
"""What the engine reads and writes; other formats are converted by `planes_of`."""
_NO_PLANE: Final = np.empty((0, 0), np.uint8)
_NATIVE: Final = frozenset({"yuv420p", "yuvj420p"})
_GREY: Final = re.compile(r"gray|ya8|(gray|ya)(9|10|12|14|16)[lb]e")
SWSCALE_MATRIX: Final = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""H.273 matrix code -> swscale's number of the same coefficients (5 and 6 are equal)."""


@dataclass(frozen=True, kw_only=True)
class PlaneFormat:
    """Sample depth and chroma subsampling of a picture's planes."""

    bits: int = 8
    """Bits per sample."""
    chroma_x: int = 2
    """Luma columns per chroma column."""
    chroma_y: int = 2
    """Luma rows per chroma row."""

    def __str__(self) -> str:
        return f"{self.bits} bits, chroma 1/{self.chroma_x} x 1/{self.chroma_y}"

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """Of a plane's samples."""
        return np.dtype(np.uint8) if self.bits == 8 else np.dtype(np.uint16)

    def chroma(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of a chroma plane of a picture of that size, rounded up."""
        return -(-width // self.chroma_x), -(-height // self.chroma_y)

    def output(self, width: int, height: int, scale: int) -> tuple[int, int]:
        """(width, height) of the enlarged luma plane, rounded up to whole chroma samples.

        H.264 and HEVC cannot express an odd 4:2:0 size; the added column or row (odd input at
        x3 only) repeats the edge.
        """
        w, h = self.chroma(width * scale, height * scale)
        return w * self.chroma_x, h * self.chroma_y


YUV420: Final = PlaneFormat()
"""8-bit 4:2:0: what files and streams are read and written in."""


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
        """R'G'B' uint8 [height, width, 3] in full range, by swscale; a copy.

        Raises UsageError for planes that are not 8-bit 4:2:0.
        """
        if self.format != YUV420:
            raise UsageError(f"a frame of {self.format} cannot be converted to RGB yet")
        matrix = SWSCALE_MATRIX[self.colour.matrix]
        picture = picture_of(self).reformat(
            format="rgb24", src_colorspace=matrix, dst_colorspace=matrix,
            src_color_range=self.colour.range_code, dst_color_range=RANGE_FULL,
            interpolation="BICUBIC",
        )  # fmt: skip
        return cast(npt.NDArray[np.uint8], picture.to_ndarray())

    def bare(self) -> "Frame":
        """Copy the frame without its planes, to keep its times only."""
        return replace(self, planes=(_NO_PLANE,) * 3)

    def with_planes(self, planes: Planes, rung: str) -> "Frame":
        """Copy the frame with the planes of another picture, made by `rung`."""
        return replace(self, planes=planes, rung=rung)


def as_bytes(plane: Plane) -> npt.NDArray[np.uint8]:
    """The same memory as bytes, [height, width * bytes per sample], without a copy."""
    return plane.view(np.uint8)


def planes_of(picture: av.VideoFrame, size: tuple[int, int], colour: Colour) -> Planes:
    """Convert a decoded picture to Y, U, V planes of `size` (width, height), 8-bit 4:2:0.

    A native picture of that size is not copied: the arrays are views of FFmpeg's buffers
    (padded rows, read-only), which they keep alive. Anything else goes through swscale, which is
    told matrix and range, or it would assume BT.601 and squeeze full range.
    """
    if _GREY.fullmatch(picture.format.name):
        width, height = YUV420.chroma(*size)
        flat = np.full((height, width), 128, np.uint8)
        return _grey(picture, size, colour), flat, flat
    if picture.format.name not in _NATIVE or (picture.width, picture.height) != size:
        matrix = SWSCALE_MATRIX[colour.matrix]
        picture = picture.reformat(
            width=size[0],
            height=size[1],
            format=PIXEL_FORMAT,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=colour.range_code,
            dst_color_range=colour.range_code,
            interpolation="BICUBIC",
        )
    y, u, v = (cast(Plane, np.from_dlpack(plane)) for plane in picture.planes)
    return y, u, v


def _grey(picture: av.VideoFrame, size: tuple[int, int], colour: Colour) -> Plane:
    """The luma plane of a grey picture in 8 bits, without its alpha.

    swscale takes all grey as full range on the way to YUV; it only changes the size here.
    """
    bits = picture.format.components[0].bits
    codes = _grey_codes(picture)
    if (picture.width, picture.height) != size:
        plain = "gray" if bits == 8 else "gray16le"
        scaled = av.VideoFrame.from_ndarray(codes, format=plain).reformat(
            width=size[0], height=size[1], interpolation="BICUBIC"
        )
        codes = cast(Plane, np.from_dlpack(scaled.planes[0]))
    if bits == 8:
        return codes
    step = (2**bits - 1) / 255 if colour.full_range else 2 ** (bits - 8)
    return np.clip(np.rint(codes / step), 0, 255).astype(np.uint8)


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


def is_native(pixel_format: str) -> bool:
    """Whether engines read this pixel format without conversion."""
    return pixel_format in _NATIVE


def picture_of(frame: Frame) -> av.VideoFrame:
    """Make an encoder's picture of a frame; it shares memory with writable, contiguous planes.

    Others, such as a decoder's, are copied: DLPack lends no read-only memory.
    """
    planes = tuple(
        plane if plane.flags.writeable and plane.flags.c_contiguous else np.array(plane)
        for plane in frame.planes
    )
    picture = av.VideoFrame.from_dlpack(planes, format=PIXEL_FORMAT)
    picture.pts, picture.time_base = frame.pts, frame.time_base
    picture.duration = frame.duration
    return picture


def now() -> float:
    """Read the clock of all `Stamps`."""
    return perf_counter()
