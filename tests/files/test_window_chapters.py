"""Chapters of a window of the input: shifted by the window's start, cut at both ends."""

from fractions import Fraction
from pathlib import Path

import pytest

from tests.clips import Clip, make_clip
from tests.facts import contents
from vsr.files.upscale import upscale
from vsr.media.passthrough import cut_chapters

CHAPTERS = ((0.0, 0.2, "one"), (0.2, 0.48, "two"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("start", "count", "expected"),
    [
        (3, 6, [(0, Fraction(8, 100), "one"), (Fraction(8, 100), Fraction(24, 100), "two")]),
        (0, 3, [(0, Fraction(12, 100), "one")]),
        (6, None, [(0, Fraction(24, 100), "two")]),
    ],
)
def test_chapters_play_where_they_belong(
    tmp_path: Path, suffix: str, start: int, count: int | None, expected: list[object]
) -> None:
    source = make_clip(tmp_path / f"in{suffix}", Clip(frames=12, chapters=CHAPTERS))
    target = tmp_path / f"out{suffix}"
    upscale(source, target, model="bicubic", start_frame=start, max_frames=count)
    assert contents(target).chapters == expected


def test_a_broadcasts_clock_moves_chapters_along() -> None:
    base = Fraction(1, 1000)
    given = [
        {"id": k, "start": a, "end": b, "time_base": base, "metadata": {"title": str(k)}}
        for k, (a, b) in enumerate([(0, 3_600_000), (3_600_000, 3_605_000), (3_605_000, 3_700_000)])
    ]
    cut = cut_chapters(given, Fraction(3601), Fraction(3610))
    assert [(c["id"], c["start"], c["end"]) for c in cut] == [(1, 0, 4000), (2, 4000, 9000)]
    assert cut_chapters(given, Fraction(0), None) == given
