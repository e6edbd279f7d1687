"""Tests that the pixel aspect of filtered and of changing pictures is known."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

import vsr
from tests.clips import Clip, make_clip
from tests.facts import contents
from vsr.media.aspect import AspectReader
from vsr.media.filters import NO_FILTERS, Filtering, PictureFilters
from vsr.media.frame import Frame
from vsr.media.reading import Reading
from vsr.media.source import Source

WIDE = Clip(size=(64, 48), frames=3, audio=(), sar=Fraction(16, 11))


def _info_aspect(path: Path, filtering: Filtering) -> tuple[tuple[int, int], Fraction | None]:
    source = Source(str(path), Reading(filtering=filtering))
    assert all(isinstance(item, Frame) for item in source)
    info = source.info
    source.close()
    return (info.width, info.height), info.sample_aspect


@pytest.mark.parametrize(
    ("filters", "size", "aspect"),
    [
        ("setsar=1", (64, 48), Fraction(1)),
        ("scale=trunc(iw*sar/2)*2:ih,setsar=1", (92, 48), Fraction(1)),
        ("transpose=1", (48, 64), Fraction(11, 16)),
        ("scale=64:96", (64, 96), Fraction(32, 11)),
        ("negate", (64, 48), Fraction(16, 11)),
    ],
)
def test_filters_see_and_set_the_pixel_aspect(
    tmp_path: Path, filters: str, size: tuple[int, int], aspect: Fraction
) -> None:
    source = make_clip(tmp_path / "in.mp4", WIDE)
    assert _info_aspect(source, Filtering(filters=filters)) == (size, aspect)


@pytest.mark.parametrize("filtering", [NO_FILTERS, Filtering(deinterlace="bob")])
@pytest.mark.parametrize("aspect", [None, Fraction(1989, 1600)])
def test_other_filters_keep_the_pixel_aspect(
    tmp_path: Path, filtering: Filtering, aspect: Fraction | None
) -> None:
    source = make_clip(tmp_path / "in.ts", Clip(frames=3, audio=(), sar=aspect))
    found = _info_aspect(source, filtering)[1]
    assert (found or 1) == (aspect or 1)


def test_the_output_declares_the_filtered_pixel_aspect(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", WIDE)
    target = tmp_path / "out.mp4"
    vsr.upscale(source, target, model="bicubic", preset="ultrafast", filters="transpose=1")
    assert contents(target).sar == Fraction(11, 16)


def test_the_containers_pixel_aspect_takes_precedence(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", WIDE)
    data = source.read_bytes()
    place = data.index(b"pasp") + 4
    assert data[place : place + 8] == bytes((0, 0, 0, 16, 0, 0, 0, 11))
    source.write_bytes(data[:place] + bytes((0, 0, 0, 4, 0, 0, 0, 3)) + data[place + 8 :])
    assert _info_aspect(source, Filtering(filters="negate"))[1] == Fraction(4, 3)
    assert _info_aspect(source, Filtering(filters="transpose=1"))[1] == Fraction(3, 4)


@pytest.mark.parametrize("form", ["yuv420p", "gray10le", "rgb24", "pal8", "yuva444p10le", "ya8"])
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(3328, 2277), Fraction(64437, 36968)])
def test_the_aspect_of_a_picture_is_exact(form: str, aspect: Fraction) -> None:
    picture = av.VideoFrame(64, 48, form)
    picture.pts, picture.time_base = 7, Fraction(1, 25)
    filters = PictureFilters(Filtering(filters="null"))
    made = [*filters.feed(picture, Fraction(25), aspect), *filters.flush()]
    assert [AspectReader().of(each) for each in made] == [aspect]
    assert (picture.pts, picture.time_base) == (7, Fraction(1, 25))


def test_a_picture_that_ffmpeg_cannot_scale_has_no_known_aspect() -> None:
    assert AspectReader().of(av.VideoFrame(64, 48, "bayer_rggb8")) is None
