"""Tests that a timecode names the frame that it is written for."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

import vsr
from tests.clips import Clip, make_clip
from vsr.media.timecode import advanced_timecode

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("before", "frames", "rate", "after"),
    [
        ("01:00:00:00", 25, Fraction(25), "01:00:01:00"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
        ("00:00:59:29", 1, NTSC, "00:01:00:00"),
        ("00:00:59;29", 1, NTSC, "00:01:00;02"),
        ("00:09:59;29", 1, NTSC, "00:10:00;00"),
        ("00:10:59;29", 1, NTSC, "00:11:00;02"),
        ("00:00:59.29", 1, NTSC, "00:01:00.02"),
        ("23:59:59;29", 1, NTSC, "00:00:00;00"),
        ("00:00:59;59", 1, 2 * NTSC, "00:01:00;04"),
        ("00:00:00;00", 107_892, NTSC, "01:00:00;00"),
        ("01:00:00:00", 30, Fraction(19001, 634), "01:00:01:00"),
        ("01:00:00:00", 24, Fraction(24000, 1001), "01:00:01:00"),
    ],
)
def test_a_timecode_counts_frames(before: str, frames: int, rate: Fraction, after: str) -> None:
    assert advanced_timecode(before, frames / rate, rate) == after


def test_drop_frame_timecode_counts_every_frame_once() -> None:
    found = {advanced_timecode("00:00:00;00", k / NTSC, NTSC) for k in range(0, 40_000)}
    assert len(found) == 40_000
    assert not {f"00:{minute:02d}:00;00" for minute in (1, 2, 9, 11)} & found
    assert {"00:00:00;00", "00:10:00;00", "00:20:00;00"} <= found


@pytest.mark.parametrize(
    ("timecode", "rate"),
    [
        ("an hour", Fraction(25)),
        ("01:00:00:00", None),
        ("01:00:00:00", Fraction(273, 10)),
        ("01:00:00;00", Fraction(25)),
        ("01:00:00:29", Fraction(25)),
    ],
)
def test_a_timecode_that_cannot_be_advanced_is_unknown(timecode: str, rate: Any) -> None:
    assert advanced_timecode(timecode, Fraction(1), rate) is None


def _timecoded(path: Path, pts: Any = None) -> Path:
    """Write a MOV with a timecode track."""
    tags = {"timecode": "01:00:00:00"}
    return make_clip(path, Clip(frames=60, audio=(), pts=pts, metadata=tags))


def _timecodes(path: Path) -> set[str]:
    with av.open(str(path)) as container:
        tags = [container.metadata, *(stream.metadata for stream in container.streams)]
        found = [{key.lower(): value for key, value in each.items()} for each in tags]
    return {each["timecode"] for each in found if "timecode" in each}


@pytest.mark.parametrize("ending", [".mov", ".mp4", ".mkv"])
@pytest.mark.parametrize("options", [{}, {"segment": 1}, {"segment": 1, "jobs": 2}])
def test_the_timecode_belongs_to_the_first_frame(
    tmp_path: Path, ending: str, options: dict[str, Any]
) -> None:
    source = _timecoded(tmp_path / "in.mov")
    assert _timecodes(source) == {"01:00:00:00"}
    target = tmp_path / f"out{ending}"
    settings: dict[str, Any] = {"model": "bicubic", "preset": "ultrafast", "overwrite": True}
    vsr.upscale(source, target, **settings, **options)
    assert _timecodes(target) == {"01:00:00:00"}
    vsr.upscale(source, target, start_frame=30, **settings, **options)
    assert _timecodes(target) == {"01:00:01:05"}


def test_a_timecode_of_unknown_rate_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times = [round(1000 * k / 27.3) for k in range(60)]
    source, target = _timecoded(tmp_path / "in.mov", pts=times), tmp_path / "out.mov"
    vsr.upscale(source, target, model="bicubic", preset="ultrafast", start_frame=30)
    assert _timecodes(target) == set()
    assert "the timecode 01:00:00:00 is left out" in caplog.text
