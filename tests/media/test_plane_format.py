"""Tests of plane formats: conversion from pixel formats, and the pixel formats of encoders."""

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import pytest

from vsr.errors import UsageError
from vsr.media.colour import RGB, Colour
from vsr.media.encoder import EncoderSettings, VideoFormat, encoder_name, open_encoder
from vsr.media.frame import Frame, Planes, encoder_picture, picture_of, planes_of
from vsr.media.plane_format import PlaneFormat, is_grey, is_rgb, planes_for

PQ = Colour(matrix=9, primaries=9, transfer=16)
FULL_RGB = Colour(matrix=RGB, full_range=True)


def form(bits: int, subsampling: str = "420") -> PlaneFormat:
    across, down = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[subsampling]
    return PlaneFormat(bits=bits, chroma_x=across, chroma_y=down)


@pytest.mark.parametrize(
    ("names", "planes"),
    [
        ("yuv420p yuvj420p yuva420p nv12 gray ya8 yuv410p", form(8)),
        ("yuv422p yuyv422 uyvy422 nv16 yuv411p", form(8, "422")),
        ("yuv444p yuv440p nv24 rgb24 bgra gbrp gbrap pal8 rgb565le bgr0", form(8, "444")),
        ("yuv420p9le", form(9)),
        ("yuv420p10le yuv420p10be p010le gray10le", form(10)),
        ("yuv422p10le p210le y210le", form(10, "422")),
        ("yuv444p10le gbrp10le gbrap10le x2rgb10le xv30le", form(10, "444")),
        ("yuv420p12le gray12le", form(12)),
        ("yuv444p12le gbrp12le xv36le", form(12, "444")),
        ("gray16le p016le", form(16)),
        ("rgb48le rgba64le", form(16, "444")),
    ],
)
def test_a_pixel_format_keeps_its_depth_and_chroma(names: str, planes: PlaneFormat) -> None:
    assert {name: planes_for(name) for name in names.split()} == dict.fromkeys(
        names.split(), planes
    )


def test_rgb_and_grey_are_told_from_yuv() -> None:
    names = ("yuv420p", "gray", "ya16le", "gbrp10le", "pal8", "rgb24", "nv12")
    assert [name for name in names if is_rgb(name)] == ["gbrp10le", "pal8", "rgb24"]
    assert [name for name in names if is_grey(name)] == ["gray", "ya16le"]


def random_frame(planes: PlaneFormat, colour: Colour, size: tuple[int, int] = (34, 18)) -> Frame:
    random = np.random.default_rng(planes.bits)
    shapes = [size, planes.chroma(*size), planes.chroma(*size)]
    y, u, v = (random.integers(0, 2**planes.bits, (h, w), planes.dtype) for w, h in shapes)
    return Frame(
        planes=(y, u, v), index=0, pts=7, time_base=Fraction(1, 25), duration=1, format=planes,
        colour=colour,
    )  # fmt: skip


def assert_equal(ours: Planes, theirs: Planes) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 16])
@pytest.mark.parametrize("kind", ["420", "422", "444", "rgb"])
def test_planes_come_back_from_a_picture_as_they_were(bits: int, kind: str) -> None:
    colour = FULL_RGB if kind == "rgb" else Colour()
    planes = form(bits, "444" if kind == "rgb" else kind)
    frame = random_frame(planes, colour)
    picture = picture_of(frame)
    assert (planes_for(picture.format.name), picture.pts) == (planes, 7)
    assert_equal(planes_of(picture, (34, 18), colour, planes), frame.planes)


@pytest.mark.parametrize(
    ("packed", "planar", "colour"),
    [
        ("p010le", form(10), Colour()),
        ("nv12", form(8), Colour()),
        ("yuv444p12be", form(12, "444"), Colour()),
        ("rgb24", form(8, "444"), FULL_RGB),
        ("rgb48le", form(16, "444"), FULL_RGB),
        ("yuva444p10le", form(10, "444"), Colour()),
    ],
)
def test_packed_pixels_are_unpacked_exactly(
    packed: str, planar: PlaneFormat, colour: Colour
) -> None:
    frame = random_frame(planar, colour)
    picture = encoder_picture(frame, packed)
    assert picture.format.name == packed
    assert_equal(planes_of(picture, (34, 18), colour, planar), frame.planes)


def opened(codec: str, video: VideoFormat, pixel_format: str | None = None) -> str:
    """Return the pixel format that an encoder is opened with."""
    settings = EncoderSettings(codec=codec, pixel_format=pixel_format)
    context = av.CodecContext.create(encoder_name(settings, "matroska"), "w")
    assert isinstance(context, av.VideoCodecContext)
    open_encoder(context, settings, video)
    return context.pix_fmt or ""


def video(planes: PlaneFormat, colour: Colour | None = None, grey: bool = False) -> VideoFormat:
    return VideoFormat(
        size=(256, 128), rate=Fraction(25), time_base=Fraction(1, 25), planes=planes,
        colour=colour or Colour(), grey=grey,
    )  # fmt: skip


CODECS = ("h264", "hevc", "av1", "prores", "dnxhd", "ffv1")


@pytest.mark.parametrize(
    ("planes", "colour", "expected"),
    [
        (form(8), None, ["420p", "420p", "420p", "422p10le", "422p", "420p"]),
        (form(9), None, ["420p10le", "420p10le", "420p10le", "422p10le", "422p10le", "420p9le"]),
        (form(10), None, ["420p10le", "420p10le", "420p10le", "422p10le", "422p10le", "420p10le"]),
        (
            form(10, "422"), None,
            ["422p10le", "422p10le", "420p10le", "422p10le", "422p10le", "422p10le"],
        ),
        (
            form(12, "444"), None,
            ["444p10le", "444p12le", "420p10le", "444p10le", "444p10le", "444p12le"],
        ),
        (form(8), PQ, ["420p10le", "420p10le", "420p10le", "422p10le", "422p10le", "420p10le"]),
        (form(8, "444"), FULL_RGB, ["444p", "gbrp", "420p", "444p10le", "gbrp10le", "bgr0"]),
        (
            form(10, "444"), FULL_RGB,
            ["444p10le", "gbrp10le", "420p10le", "444p10le", "gbrp10le", "gbrp10le"],
        ),
    ],
    ids=str,
)  # fmt: skip
def test_the_encoder_gets_the_nearest_that_it_takes(
    planes: PlaneFormat, colour: Colour | None, expected: list[str]
) -> None:
    found = [opened(codec, video(planes, colour)) for codec in CODECS]
    assert [name.removeprefix("yuv") for name in found] == expected


def test_grey_stays_grey_where_no_player_minds() -> None:
    assert opened("ffv1", video(form(10), grey=True)) == "gray10le"
    assert opened("h264", video(form(8), grey=True)) == "yuv420p"
    assert opened("h264", video(form(8), grey=True), "gray") == "gray"


def defaults(planes: PlaneFormat, colour: Colour, pixel_format: str | None) -> Sequence[str]:
    settings = EncoderSettings(pixel_format=pixel_format)
    return [
        encoder_name(settings, container, video(planes, colour)) for container in ("mp4", "webm")
    ]


def test_the_default_codec_holds_10_bits_where_they_are_needed() -> None:
    deep, usual = ["libx265", "libsvtav1"], ["libx264", "libvpx-vp9"]
    assert defaults(form(8), Colour(), None) == usual
    assert defaults(form(10), Colour(), None) == deep
    assert defaults(form(8), PQ, None) == deep
    assert defaults(form(10), Colour(), "yuv420p") == usual


def test_hdr_in_8_bits_is_refused() -> None:
    with pytest.raises(UsageError, match=r"HDR \(PQ\) needs 10 bits, and libx264 gets yuv420p: "):
        opened("h264", video(form(10), PQ), "yuv420p")
    with pytest.raises(UsageError, match="--sdr"):
        opened("mpeg4", video(form(10), PQ))


def test_a_pixel_format_must_be_the_encoders() -> None:
    with pytest.raises(UsageError, match="libsvtav1 does not take yuv444p; it takes yuv420p, yuv"):
        opened("av1", video(form(8)), "yuv444p")
    with pytest.raises(UsageError, match="unknown pixel format 'p10'"):
        opened("h264", video(form(8)), "p10")


@pytest.mark.parametrize(("bits", "name"), [(8, "gray10le"), (10, "gray"), (10, "gray10le")])
def test_limited_range_stays_limited_in_grey(bits: int, name: str) -> None:
    """H.273: limited-range codes of n bits are 2^(n-8) times those of 8 bits."""
    frame = random_frame(form(bits), Colour())
    frame.planes[0][:] = 235 * 2 ** (bits - 8)
    luma = np.from_dlpack(encoder_picture(frame, name).planes[0])
    assert np.all(luma == 235 * 2 ** (planes_for(name).bits - 8))
