"""Tests that reading after a seek gives the same frames as reading from the beginning."""

import gc
import weakref
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.clips import Clip, make_clip
from vsr.media.filters import Filtering
from vsr.media.frame import Frame
from vsr.media.reading import Reading
from vsr.media.source import Source

SHORT_GOPS = {"g": "30", "bf": "3"}
OPEN_GOPS = {"g": "30", "bf": "3", "x264-params": "open-gop=1"}
UNEVEN = [40 * k + (7 * k) % 30 for k in range(300)]


def _frames(source: Source) -> list[Frame]:
    return [item for item in source if isinstance(item, Frame)]


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("in.mp4", Clip(frames=300, options=SHORT_GOPS)),
        ("in.mkv", Clip(frames=300, options=OPEN_GOPS)),
        ("in.mp4", Clip(frames=300, options=OPEN_GOPS, start=1.3)),
        ("in.mkv", Clip(frames=300, options=SHORT_GOPS, pts=UNEVEN)),
        ("in.mov", Clip(frames=300, options={"g": "1000"}, rate=Fraction(30000, 1001))),
        ("in.mkv", Clip(frames=200, codec="libx265", options={"preset": "ultrafast", "g": "25"})),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.codec}-{len(value.options)}",
)
def test_the_frames_behind_are_those_of_one_reading(tmp_path: Path, name: str, clip: Clip) -> None:
    path = str(make_clip(tmp_path / name, clip))
    with closing(Source(path)) as source:
        everything = _frames(source)
    for index in (0, 77, 149, len(everything) - 2):
        with closing(Source(path)) as source:
            assert source.skip_to(index, everything[index].pts)
            rest = _frames(source)
            assert source.losses.lost == 0
        assert [(f.index, f.pts) for f in rest] == [
            (f.index, f.pts) for f in everything[index + 1 :]
        ]
        for ours, theirs in zip(rest, everything[index + 1 :], strict=True):
            assert all(map(np.array_equal, ours.planes, theirs.planes))


def test_frames_up_to_that_one_come_first_and_are_not_kept(tmp_path: Path) -> None:
    path = str(make_clip(tmp_path / "in.mp4", Clip(frames=200, options=SHORT_GOPS)))
    with closing(Source(path)) as source:
        everything = _frames(source)
    with closing(Source(path)) as source:
        lead = 10 / source.info.rate
        assert source.skip_to(149, everything[149].pts, lead)
        items = (item for item in source if isinstance(item, Frame))
        first = next(items)
        assert (first.index, first.pts) == (140, everything[140].pts)
        known = weakref.ref(first.planes[0])
        del first
        rest = [(f.index, f.pts) for f in items]
        gc.collect()
        assert known() is None
    assert rest == [(f.index, f.pts) for f in everything[141:]]


def test_most_of_what_is_before_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(make_clip(tmp_path / "in.mp4", Clip(frames=500, options=SHORT_GOPS)))
    made: list[object] = []
    planes = Reading().planes
    reading = Reading(planes=lambda picture, info: (made.append(0), planes(picture, info))[1])
    with closing(Source(path, reading)) as source:
        assert source.skip_to(449, 449 * source.info.step)
    assert len(made) < 100


@pytest.mark.parametrize(
    ("name", "filtering", "pts"),
    [
        ("in.ts", Filtering(), 0),  # the container has no index
        ("in.mp4", Filtering(filters="fps=20"), 0),  # frames depend on all previous ones
        ("in.mp4", Filtering(detelecine=True), 0),
        ("in.mp4", Filtering(), 3),  # no frame has this pts
        ("in.mp4", Filtering(), 10**9),
    ],
)
def test_what_is_not_found_exactly_is_said(
    tmp_path: Path, name: str, filtering: Filtering, pts: int
) -> None:
    path = str(make_clip(tmp_path / name, Clip(frames=30)))
    with closing(Source(path, Reading(filtering=filtering))) as source:
        assert not source.skip_to(9, 9 * source.info.step + pts)
