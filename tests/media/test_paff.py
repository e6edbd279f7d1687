"""Tests of H.264 with PAFF and MBAFF: every picture is read completely, with its exact time."""

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
import pytest

from tests import paff
from tests.facts import contents
from tests.files.test_faithful import upscaled
from tests.media.test_deinterlace import (
    AUTO,
    COUNT,
    FLAGS,
    combs,
    frames,
    scene,
    woven,
)
from tests.media.test_deinterlace import write as written_by_x264
from vsr.media.filters import Filtering

KINDS: Final = {
    "fields": [True] * COUNT,
    "mixed": [k % 5 != 2 for k in range(COUNT)],
    "frames": [False] * COUNT,
}


def _film(path: Path, kind: str, lower_first: bool = False) -> Path:
    units = list(paff.pictures([woven(k, lower_first) for k in range(COUNT)], KINDS[kind],
                               lower_first))  # fmt: skip
    return paff.write(path, units, joined=path.suffix != ".ts")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
def test_every_picture_of_fields_is_one_frame(tmp_path: Path, kind: str, suffix: str) -> None:
    found = frames(_film(tmp_path / f"in{suffix}", kind))
    assert len(found) == COUNT
    for k, frame in enumerate(found):
        assert np.array_equal(frame.planes[0], woven(k))
    steps = {b.pts * b.time_base - a.pts * a.time_base for a, b in itertools.pairwise(found)}
    assert steps == {Fraction(1, 25)}


@pytest.mark.parametrize("lower_first", [False, True])
def test_field_pictures_are_deinterlaced(tmp_path: Path, lower_first: bool) -> None:
    path = _film(tmp_path / "in.ts", "fields", lower_first)
    before, after = frames(path), frames(path, AUTO)
    assert combs(before) > 0.9
    assert combs(after) < 0.01
    first = [scene(2 * k) for k in range(COUNT)]
    errors = [
        float(np.abs(a.planes[0].astype(int) - b).mean()) for a, b in zip(after, first, strict=True)
    ]
    assert np.mean(errors) < 4


def test_bob_makes_a_frame_of_each_field_picture(tmp_path: Path) -> None:
    found = frames(_film(tmp_path / "in.ts", "fields"), Filtering(deinterlace="bob"))
    assert len(found) == 2 * COUNT
    times = [frame.pts * frame.time_base for frame in found]
    assert [time - times[0] for time in times] == [Fraction(k, 50) for k in range(2 * COUNT)]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_film_of_fields_goes_from_file_to_file(tmp_path: Path, name: str) -> None:
    result, report = upscaled(_film(tmp_path / "in.ts", "mixed"), name)
    assert (result.frames, report.exit_code, report.lost) == (COUNT, 0, 0)
    first = result.pts[0]
    assert [time - first for time in result.pts] == [Fraction(k, 25) for k in range(COUNT)]


def test_x264_makes_mixed_macroblocks_and_they_are_found(tmp_path: Path) -> None:
    path = written_by_x264(tmp_path / "in.mkv", [woven(k) for k in range(COUNT)], FLAGS)
    with av.open(str(path)) as source:
        extradata = source.streams.video[0].codec_context.extradata
        assert extradata is not None
    assert _is_mbaff(extradata)
    result, report = upscaled(path, "out.mp4")
    assert (result.frames, report.exit_code) == (COUNT, 0)
    assert combs(frames(path, AUTO)) < 0.01
    assert contents(path).interlaced


def _is_mbaff(extradata: bytes) -> bool:
    """Return whether an avcC's SPS has frame_mbs_only_flag 0, mb_adaptive_frame_field_flag 1."""
    size = int.from_bytes(extradata[6:8], "big")
    unit = extradata[8 : 8 + size].replace(b"\0\0\3", b"\0\0")
    text = "".join(format(byte, "08b") for byte in unit)
    at, profile = 32, unit[1]

    def golomb() -> int:
        nonlocal at
        zeros = text.index("1", at) - at
        value = int(text[at + zeros : at + 2 * zeros + 1], 2) - 1
        at += 2 * zeros + 1
        return value

    golomb()
    if profile >= 100:
        for _ in range(3):  # chroma format, luma and chroma bits
            golomb()
        at += 2
    golomb()
    order = golomb()
    assert order in (0, 2)
    if order == 0:
        golomb()
    golomb()
    at += 1
    golomb()
    golomb()
    return text[at : at + 2] == "01"
