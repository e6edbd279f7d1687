"""Y4M: rate, pixel aspect and timing of its header, which is all that it stores of them."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

import vsr
from tests.clips import Clip, make_clip
from tests.facts import contents
from tests.files.test_faithful import upscaled
from vsr.errors import UsageError

NTSC = Fraction(30000, 1001)
VARIABLE = [0, 20, 50, 120, 130, 200, 333, 340, 500, 510, 700, 901]


def _header(data: bytes) -> list[str]:
    return data.partition(b"\n")[0].decode().split()


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("rate", [Fraction(25), NTSC])
def test_the_rate_is_the_inputs(
    tmp_path: Path, ending: str, rate: Fraction, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_clip(tmp_path / f"in.{ending}", Clip(rate=rate, audio=()))
    result, report = upscaled(source, "out.y4m", preset=None)
    assert f"F{rate.numerator}:{rate.denominator}" in _header((tmp_path / "out.y4m").read_bytes())
    assert (result.frames, report.notes) == (12, [])
    assert result.pts == [k / rate for k in range(12)]
    assert not caplog.records
    back, _ = upscaled(tmp_path / "out.y4m", "back.mkv")
    times = [float(time) for time in back.pts]
    assert times == pytest.approx([float(k / rate) for k in range(12)], abs=0.001)


def test_the_pixel_aspect_is_kept_both_ways(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(sar=Fraction(16, 11), audio=()))
    result, report = upscaled(source, "out.y4m", preset=None)
    assert (result.sar, result.frames, report.notes) == (Fraction(16, 11), 12, [])
    assert upscaled(tmp_path / "out.y4m", "back.mp4")[0].sar == Fraction(16, 11)
    command = [sys.executable, "-m", "vsr", "run", source, "-", "--model", "bicubic", "-f", "y4m"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == (tmp_path / "out.y4m").read_bytes()
    assert "A16:11" in _header(done.stdout)


def test_times_that_vary_are_lost_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(pts=VARIABLE, audio=()))
    result, _ = upscaled(source, "out.y4m", preset=None)
    assert result.frames == 12
    assert [r.getMessage() for r in caplog.records if "times of the frames vary" in r.getMessage()]
    caplog.clear()
    constant, _ = upscaled(source, "even.y4m", preset=None, filters="fps=25")
    assert constant.pts == [Fraction(k, 25) for k in range(constant.frames)]
    assert float(constant.pts[-1]) == pytest.approx(VARIABLE[-1] / 1000, abs=0.05)
    assert not caplog.records


@pytest.mark.parametrize("siting", ["left", "center", "topleft"])
def test_the_chroma_siting_is_kept_both_ways(tmp_path: Path, siting: str) -> None:
    """The frames of all have equal samples, so only the header differs."""
    options = {"chroma_sample_location": siting}
    clip = Clip(codec="rawvideo", audio=(), frames=2, options=options)
    source = make_clip(tmp_path / "in.y4m", clip)
    assert _siting(source) == siting
    _, report = upscaled(source, "out.y4m", preset=None)
    assert (_siting(tmp_path / "out.y4m"), report.notes) == (siting, [])
    upscaled(tmp_path / "out.y4m", "back.mp4")
    assert _siting(tmp_path / "back.mp4") == siting


def test_raw_video_without_a_siting_has_the_usual_one(tmp_path: Path) -> None:
    assert _siting(make_clip(tmp_path / "in.nut", Clip(codec="rawvideo", audio=()))) == "left"


@pytest.mark.parametrize(
    ("pixels", "siting", "kept"),
    [("yuv420p10le", "topleft", False), ("yuv420p10le", "left", True), ("yuv420p", "top", False)],
)
def test_a_chroma_siting_without_a_name_is_lost_with_a_word(
    tmp_path: Path, pixels: str, siting: str, kept: bool
) -> None:
    options = {"chroma_sample_location": siting}
    clip = Clip(codec="ffv1", pixel_format=pixels, audio=(), frames=2, options=options)
    source = make_clip(tmp_path / "in.mkv", clip)
    _, report = upscaled(source, "out.y4m", preset=None)
    lost = f"out.y4m cannot contain the chroma siting ({siting}): left out"
    assert report.notes == ([] if kept else [lost])


def _siting(path: Path) -> str:
    with vsr.frames(path) as reader:
        return reader.info.planes.siting


def test_a_codec_that_y4m_does_not_hold_is_refused(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(audio=()))
    with pytest.raises(UsageError, match=r"use \.mp4 or \.mkv, or leave out --codec"):
        upscaled(source, "out.y4m", codec="h264")


def test_a_failure_leaves_nothing_of_an_output_with_a_pixel_aspect(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(sar=Fraction(4, 3), audio=()))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="an error of the caller"):
        upscaled(source, "out.y4m", preset=None, on_progress=_fail)
    assert sorted(tmp_path.iterdir()) == before
    assert contents(source).frames == 12


def _fail(*_: object) -> None:
    raise ValueError("an error of the caller")
