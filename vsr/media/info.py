"""Describes a video stream before its first frame is processed."""

import struct
from collections.abc import Container
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import av
from av.sidedata.sidedata import Type as SideType

from vsr.media.alpha import has_alpha
from vsr.media.aspect import AspectReader
from vsr.media.colour import RANGE_LIMITED, RGB, UNSPECIFIED, Colour, own_colour
from vsr.media.encoder import VideoFormat
from vsr.media.frame import Planes, planes_of
from vsr.media.hdr import Hdr10
from vsr.media.plane_format import YUV420, PlaneFormat, is_grey, is_rgb, planes_for
from vsr.media.side_data import side_data_in
from vsr.media.siting import siting_of
from vsr.media.spatial import markings_of, scale_markings
from vsr.media.stereo import StereoPacking

_UPRIGHT: Final = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_TRANSLATION: Final = (6, 7)
"""Indices of a display matrix's translation elements, in pixels."""
_INT32: Final = 2**31 - 1
"""Limit of a matrix element, clamped as a damaged file may hold any value."""


_DECLARE_NO_ASPECT: Final = frozenset(
    {"mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v", "hls", "flv", "live_flv", "rtsp"}
)
"""FFmpeg's formats that have the pixel aspect in their pictures only; in others, the container's
takes precedence."""
_UNKNOWN: Final = "unknown"
_NOT_KEPT: Final = {
    "A53_CC": "closed captions are",
    "AFD": "active format description is",
    "S12M_TIMECODE": "timecode of each picture is",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata is",
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata is",
}
"""Kind of side data to report when it is lost -> its description."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Properties of a video stream, from its tags and its first picture."""

    codec: str
    """FFmpeg's decoder name."""
    width: int
    height: int
    pixel_format: str
    colour: Colour
    time_base: Fraction
    rate: Fraction
    """Average frame rate in fps; only a hint, as every frame has a timestamp."""
    sample_aspect: Fraction | None
    display_matrix: tuple[int, ...] | None
    """FFmpeg's 3x3 rotation matrix, None if the picture is upright."""
    frames: int
    """Number of frames, declared or estimated; 0 if unknown."""
    duration: float | None
    """Duration in seconds; None if unknown."""
    interlaced: bool
    planes: PlaneFormat = YUV420
    """Plane format of its frames."""
    hdr: Hdr10 | None = None
    markings: frozenset[str] = frozenset()
    """Kinds of the first picture's side data, by PyAV's names."""
    stereo: StereoPacking | None = None
    """Packing of two views into a picture; None for one view."""
    spatial: bytes = b""
    """MP4 boxes that mark the pictures for headsets; see `vsr.media.spatial`."""
    separate_alpha: bool = False
    """Whether the container holds alpha that the decoder does not return (VP8 and VP9)."""

    @classmethod
    def of(
        cls,
        stream: av.VideoStream,
        picture: av.VideoFrame,
        container: "av.container.InputContainer",
    ) -> "VideoInfo":
        """Describe a stream from its first picture, its tags and its container."""
        context, duration = stream.codec_context, _duration(stream, container)
        # each may be far too high: the average if the container declares none (30000 seen for 25),
        # the guess if frame times vary; so the lower one is used
        rates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
        rate = min(rates, default=Fraction(25))
        assert stream.time_base is not None
        side_data = side_data_of(picture)
        matrix, pixels = _display_matrix(side_data, picture), picture.format.name
        colour = _colour(context, picture)
        return cls(
            codec=context.name,
            width=picture.width,
            height=picture.height,
            pixel_format=pixels,
            colour=colour,
            planes=replace(planes_for(pixels), siting=siting_of(stream, colour.matrix)),
            hdr=Hdr10.of(side_data),
            time_base=stream.time_base,
            rate=Fraction(rate),
            sample_aspect=_aspect(stream, picture, container),
            display_matrix=None if matrix == _UPRIGHT else matrix,
            frames=stream.frames or round((duration or 0) * rate),
            duration=duration,
            interlaced=picture.interlaced_frame,
            markings=frozenset(side_data),
            stereo=StereoPacking.of(side_data.get(SideType.STEREO3D.name, b"")),
            spatial=markings_of(stream) if SideType.SPHERICAL.name in side_data else b"",
            separate_alpha=stream.metadata.get("alpha_mode") == "1" and not has_alpha(pixels),
        )

    @property
    def transparent(self) -> bool:
        """Whether the pixel format has an alpha plane or component."""
        return has_alpha(self.pixel_format)

    @property
    def step(self) -> int:
        """Average frame interval, in units of `time_base`."""
        return max(1, round(1 / (self.rate * self.time_base)))

    def output_for(self, size: tuple[int, int]) -> VideoFormat:
        """Return the output format of this video with pictures of that size (width, height)."""
        matrix = self.display_matrix
        if matrix is not None:
            share = size[0] / self.width
            matrix = tuple(
                max(-_INT32, min(round(value * share), _INT32)) if k in _TRANSLATION else value
                for k, value in enumerate(matrix)
            )
        return VideoFormat(
            size=size, rate=self.rate, time_base=self.time_base, colour=self.colour,
            planes=self.planes, grey=is_grey(self.pixel_format), hdr=self.hdr,
            sample_aspect=self.sample_aspect, display_matrix=matrix, stereo=self.stereo,
            spatial=scale_markings(self.spatial, Fraction(size[0], self.width)),
            alpha=self.transparent, spherical=SideType.SPHERICAL.name in self.markings,
        )  # fmt: skip

    def in_yuv420(self) -> "VideoInfo":
        """Return its properties after conversion to 8-bit 4:2:0 YUV, also from RGB."""
        colour = self.colour
        if colour.matrix == RGB:
            colour = Colour.from_tags(
                matrix=UNSPECIFIED, range_=RANGE_LIMITED, primaries=colour.primaries,
                transfer=colour.transfer, height=self.height, pix_fmt="",
            )  # fmt: skip
        return replace(self, colour=colour, planes=YUV420, hdr=None)

    def conversion(self, carried: Container[str] = ()) -> str | None:
        """Return a message on what is converted or lost before upscaling; None if nothing is.

        `carried` holds the kinds of side data that the encoder writes.
        """
        notes, own = [], planes_for(self.pixel_format)
        finer = (own.bits, -own.chroma_x, -own.chroma_y)
        kept = (self.planes.bits, -self.planes.chroma_x, -self.planes.chroma_y)
        if any(have > keep for have, keep in zip(finer, kept, strict=True)):
            what = "RGB pictures are" if is_rgb(self.pixel_format) else f"{self.pixel_format} is"
            kept_as = f"{self.planes.bits}-bit {self.planes.subsampling}"
            notes.append(f"{what} converted to {kept_as} before upscaling")
        if self.separate_alpha:  # other alpha is kept, or the sink reports its loss
            notes.append("its transparency is lost")
        notes += [
            f"its {words} left out"
            for kind, words in _NOT_KEPT.items()
            if kind in self.markings and kind not in carried
        ]
        if self.interlaced:
            notes.append(
                "the video is interlaced and is upscaled as whole frames (--deinterlace off)"
            )
        return "; ".join(notes) or None


def native_planes(picture: av.VideoFrame, info: VideoInfo) -> Planes:
    """Convert a picture to planes in the size, format and colour of the stream's first picture."""
    own = own_colour(picture, info.colour)
    return planes_of(picture, (info.width, info.height), info.colour, info.planes, own)


def _colour(context: av.VideoCodecContext, picture: av.VideoFrame) -> Colour:
    """Return a stream's colour: R'G'B' for RGB formats, else YUV according to its tags."""
    primaries = _tag(picture.color_primaries, context.color_primaries)
    transfer = _tag(picture.color_trc, context.color_trc)
    range_ = picture.color_range or context.color_range
    if is_rgb(picture.format.name):
        return Colour.of_rgb(range_=range_, primaries=primaries, transfer=transfer)
    return Colour.from_tags(
        matrix=_tag(picture.colorspace, context.colorspace), range_=range_, primaries=primaries,
        transfer=transfer, height=picture.height, pix_fmt=picture.format.name,
    )  # fmt: skip


def _aspect(
    stream: av.VideoStream, picture: av.VideoFrame, container: "av.container.InputContainer"
) -> Fraction | None:
    """Return the pixel aspect of a stream's first picture; None if undeclared.

    FFmpeg takes the stream's from what it read when it opened the file, maybe from a later picture.
    """
    of_stream = stream.sample_aspect_ratio
    if not _DECLARE_NO_ASPECT & set(container.format.name.split(",")):
        return of_stream
    found = AspectReader().of(picture)
    return of_stream if found is None or (found == 1 and of_stream is None) else found


def _duration(stream: av.VideoStream, container: "av.container.InputContainer") -> float | None:
    """Return the duration (s) that the stream, or else the container, declares; None if unknown."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def side_data_of(picture: av.VideoFrame) -> dict[str, bytes]:
    """Return a picture's side data by PyAV's kind names; only `unknown` if PyAV lacks a kind."""
    try:
        found = list(side_data_in(picture))
    except ValueError:  # such as EXIF
        return {_UNKNOWN: b""}
    return {data.type.name: bytes(data) for data in found}


def _display_matrix(side_data: dict[str, bytes], picture: av.VideoFrame) -> tuple[int, ...] | None:
    if SideType.DISPLAYMATRIX.name in side_data:
        return struct.unpack("=9i", side_data[SideType.DISPLAYMATRIX.name])
    if _UNKNOWN in side_data:  # make it from the angle
        a, b = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}.get(picture.rotation % 360, (1, 0))
        one = 1 << 16
        return a * one, b * one, 0, -b * one, a * one, 0, 0, 0, 1 << 30
    return None


def _tag(of_frame: int, of_stream: int) -> int:
    return of_stream if of_frame == UNSPECIFIED else of_frame
