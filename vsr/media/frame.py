"""Defines `Frame`: picture planes with format, time and timestamps of every stage.

The only module that converts PyAV's pictures to planes and back.
"""

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from time import perf_counter
from typing import Any, Final, cast

import av
import numpy as np
import numpy.typing as npt

from vsr.media.alpha import enlarge_alpha, has_alpha, join_alpha, opaque_format
from vsr.media.colour import RGB, Colour, code_scale
from vsr.media.plane_format import YUV420, PlaneFormat, is_grey, planes_for, same_planes
from vsr.media.side_data import with_side_data

Plane = npt.NDArray[np.unsignedinteger[Any]]
"""One picture plane, [height, width]: uint8, or uint16 above 8 bits."""
Planes = tuple[Plane, Plane, Plane]
"""Y, U and V planes; in 4:2:0 the chroma planes are ceil(height/2) x ceil(width/2).

For RGB (matrix code 0): G, B and R.
"""

PIXEL_FORMAT: Final = YUV420.pixel_format()
"""Pixel format in which live streams are read and written."""
_NO_PLANE: Final = np.empty((0, 0), np.uint8)
_GREY: Final = re.compile(r"gray|ya8|(gray|ya)(9|10|12|14|16)[lb]e")
_SIMD_SAMPLES: Final = 64
"""Maximum number of samples that one of swscale's SIMD instructions processes."""
SWSCALE_MATRIX: Final = {RGB: 1, 1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""H.273 matrix code -> swscale's code for the same coefficients (5 and 6 are equal); swscale needs
none if both sides are RGB."""


@dataclass(slots=True)
class Stamps:
    """Times of one frame at every stage, in seconds of `time.perf_counter`."""

    read: float = 0.0
    """Time at which its packet was read from the input."""
    decoded: float = 0.0
    """Time at which its planes were ready."""
    wait_s: float = 0.0
    """Waiting time of the decoder between the two, in seconds: for later stages and, when it
    decodes one frame at a time, for the packets that B-frames need first."""
    infer_start: float = 0.0
    infer_end: float = 0.0
    encode_start: float = 0.0
    """Time at which it was passed to the encoder."""
    encoded: float = 0.0
    """Time at which the encoder returned its packet, encoder delay included."""
    muxed: float = 0.0
    """Time at which the muxer had accepted that packet."""
    sent: float = 0.0
    """Live: time at which the slowest output had written that packet; NaN: none did. Files: 0."""


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
    """Duration in units of `time_base`; 0 if unknown."""
    format: PlaneFormat = YUV420
    colour: Colour = field(default_factory=Colour)
    """Colour space of the planes' code values."""
    stamps: Stamps = field(default_factory=Stamps)
    rung: str = ""
    """Name of the model that made this frame; empty before the upscaler."""
    event: str = ""
    """Error or special treatment (`concealed`, `resized`, `repeated`); else empty."""

    side_data: av.VideoFrame | None = None
    """Small picture that carries this frame's side data, such as captions; see
    `vsr.media.side_data`."""
    alpha: Plane | None = None
    """Alpha plane in the source's size and the bit depth of `format`; None: opaque."""

    def __repr__(self) -> str:
        """Return size, format and times in one line, without the samples."""
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
        """Convert to R'G'B' uint8 [height, width, 3] in full range, by swscale; a copy."""
        return cast(
            npt.NDArray[np.uint8],
            convert_picture(picture_of(self), "rgb24", self.colour).to_ndarray(),
        )

    def without_planes(self) -> "Frame":
        """Copy the frame without its planes, to keep its times only."""
        return replace(self, planes=(_NO_PLANE,) * 3, side_data=None, alpha=None)

    def with_planes(self, planes: Planes, rung: str) -> "Frame":
        """Copy the frame with other planes, made by the model `rung`."""
        return replace(self, planes=planes, rung=rung)


def as_bytes(plane: Plane) -> npt.NDArray[np.uint8]:
    """Return the same memory as bytes, [height, width * bytes per sample]; copied only if a row's
    samples are not contiguous."""
    side_by_side = plane.strides[-1] == plane.itemsize
    return (plane if side_by_side else np.ascontiguousarray(plane)).view(np.uint8)


def planes_of(
    picture: av.VideoFrame, size: tuple[int, int], colour: Colour, form: PlaneFormat = YUV420,
    own: Colour | None = None,
) -> Planes:  # fmt: skip
    """Convert a decoded picture to planes of `size` (width, height), `form` and `colour`.

    `own` is the picture's colour; None: it is `colour`.

    Planes that match already are not copied: the arrays are views of FFmpeg's buffers (padded
    rows, read-only), which they keep alive. Anything else goes through swscale, with matrix and
    range set: otherwise it would assume BT.601 and compress full range.
    """
    if _GREY.fullmatch(picture.format.name) and colour.matrix != RGB:
        chroma = np.full(form.chroma(*size)[::-1], 2 ** (form.bits - 1), form.dtype)
        return _grey(picture, size, (own or colour, colour), form), chroma, chroma
    wanted = form.pixel_format(colour.matrix == RGB)
    same_size = (picture.width, picture.height) == size
    same_colour = own is None or own.same_codes(colour)
    if not (same_size and same_colour and same_planes(picture.format.name, wanted)):
        picture = _reformatted(picture, size, wanted, (own or colour, colour))
    y, u, v = (cast(Plane, np.from_dlpack(plane)) for plane in picture.planes[:3])
    return y, u, v


def _grey(
    picture: av.VideoFrame, size: tuple[int, int], colours: tuple[Colour, Colour], form: PlaneFormat
) -> Plane:
    """Return the luma plane of a grey picture in the bit depth of `form`, without its alpha.

    Its range is converted from the first of `colours` to the second.

    swscale treats all grey as full range when converting to YUV, so it only changes the size here.
    """
    bits = picture.format.components[0].bits
    codes = _grey_codes(picture)
    if (picture.width, picture.height) != size:
        plain = "gray" if bits == 8 else "gray16le"
        scaled = av.VideoFrame.from_ndarray(codes, format=plain).reformat(
            width=size[0], height=size[1], interpolation="BICUBIC", threads=swscale_threads(size[0])
        )
        codes = cast(Plane, np.from_dlpack(scaled.planes[0]))
    own, to = colours
    if bits == form.bits and own.full_range == to.full_range:
        return codes
    (gain, *_), (low, *_) = code_scale(own, bits)
    (to_gain, *_), (to_low, *_) = code_scale(to, form.bits)
    scaled = np.rint((codes - low) * (to_gain / gain) + to_low)
    return np.clip(scaled, 0, 2**form.bits - 1).astype(form.dtype)


def _grey_codes(picture: av.VideoFrame) -> Plane:
    """Return the luma codes of a grey picture, [height, width] uint8 or uint16, without its alpha.

    They are read directly from memory, as swscale's conversion from `ya16le` to grey was seen to
    differ from run to run.
    """
    parts, order = picture.format.components, ">" if picture.format.is_big_endian else "<"
    stored = np.dtype(np.uint8 if parts[0].bits == 8 else f"{order}u2")
    memory = np.frombuffer(memoryview(picture.planes[0]), stored)
    codes = memory.reshape(picture.height, -1)[:, : picture.width * len(parts) : len(parts)]
    return codes.astype(stored.newbyteorder("="))


def picture_of(frame: Frame) -> av.VideoFrame:
    """Make a picture from a frame's planes; it shares memory with writable, contiguous planes.

    Other planes, such as a decoder's, are copied: DLPack does not export read-only memory.
    """
    planes = tuple(
        plane if plane.flags.writeable and plane.flags.c_contiguous else np.array(plane)
        for plane in frame.planes
    )
    name = frame.format.pixel_format(frame.colour.matrix == RGB)
    picture = av.VideoFrame.from_dlpack(planes, format=name)
    return _timed(picture, frame)


def encoder_picture(frame: Frame, pixel_format: str, codec: str = "") -> av.VideoFrame:
    """Make an encoder's picture from a frame, converted if the encoder takes another format.

    `codec`: FFmpeg's name of the codec, as in `Colour.encoded`.
    """
    colour = frame.colour.encoded(pixel_format, codec)
    made = _with_alpha if has_alpha(pixel_format) else _in_format
    picture = with_side_data(_timed(made(frame, pixel_format, colour), frame), frame.side_data)
    picture.colorspace, picture.color_range = colour.matrix, colour.range_code
    # some encoders, such as ProRes, read these from the first picture
    picture.color_primaries, picture.color_trc = colour.primaries, colour.transfer
    return picture


def _in_format(frame: Frame, pixel_format: str, to: Colour) -> av.VideoFrame:
    picture = picture_of(frame)
    if picture.format.name == pixel_format and to == frame.colour:
        return picture
    if not is_grey(pixel_format):
        size = (picture.width, picture.height)
        return _reformatted(picture, size, pixel_format, (frame.colour, to))
    # swscale treats all grey as full range
    bits = planes_for(pixel_format).bits
    if bits != frame.format.bits or frame.colour.matrix == RGB:
        plain = replace(frame.format, bits=bits).pixel_format()
        picture = convert_picture(picture, plain, frame.colour)
    luma = np.array(np.from_dlpack(picture.planes[0]))
    return av.VideoFrame.from_dlpack((luma,), format=pixel_format)


def _with_alpha(frame: Frame, pixel_format: str, to: Colour) -> av.VideoFrame:
    """Convert a frame to a format with alpha; opaque if the frame has no alpha."""
    bits = planes_for(pixel_format).bits
    plain = opaque_format(pixel_format)
    colours = [np.array(np.from_dlpack(p)) for p in _in_format(frame, plain, to).planes]
    alpha = enlarge_alpha(frame.alpha, frame.planes[0].shape, frame.format.bits, bits)
    return join_alpha(colours, alpha, pixel_format)


def convert_picture(picture: av.VideoFrame, pixel_format: str, colour: Colour) -> av.VideoFrame:
    """Convert a picture of `colour` to another pixel format, by swscale.

    YUV to YUV keeps matrix and range; to or from RGB the colour changes as in `Colour.encoded`.
    """
    to = colour.encoded(pixel_format)
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
    """Return the number of threads for conversions to that width; None: swscale's default.

    swscale writes past the end of a row whose width is not a multiple of `_SIMD_SAMPLES`; with
    several threads that overwrites the result of another thread.
    """
    return 1 if width % _SIMD_SAMPLES else None


def _timed(picture: av.VideoFrame, frame: Frame) -> av.VideoFrame:
    picture.pts, picture.time_base = frame.pts, frame.time_base
    picture.duration = frame.duration
    return picture


def now() -> float:
    """Return the time on the clock of all `Stamps`, in seconds."""
    return perf_counter()
