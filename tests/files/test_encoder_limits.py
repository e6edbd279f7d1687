"""Encoders that take less than others: MPEG-1, MPEG-2, MPEG-4 and JPEG."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.clips import Clip, make_clip
from tests.facts import contents
from tests.files.test_faithful import upscaled
from vsr.errors import OutputError

VARIABLE = [0, 20, 50, 120, 130, 200, 333, 340, 500, 510, 700, 901]
NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize("source", ["in.mp4", "in.ts", "in.mkv"])
@pytest.mark.parametrize(
    ("codec", "target"),
    [
        ("mpeg1video", "out.mkv"), ("mpeg2video", "out.mkv"), ("mpeg2video", "out.ts"),
        ("mpeg4", "out.mov"), ("mpeg4", "out.ts"), ("mjpeg", "out.mov"),
    ],
)  # fmt: skip
def test_they_start_from_any_container(
    tmp_path: Path, source: str, codec: str, target: str
) -> None:
    clip = make_clip(tmp_path / source, Clip(rate=NTSC))
    result, report = upscaled(clip, target, codec=codec, preset=None)
    assert (report.exit_code, result.frames) == (0, 12)
    first = result.pts[0]
    steps = [float(time - first) for time in result.pts]
    assert steps == pytest.approx([float(k / NTSC) for k in range(12)], abs=0.0011)


@pytest.mark.parametrize("b_frames", ["0", "2"])
@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4"])
def test_the_times_are_the_inputs_to_the_tick(tmp_path: Path, codec: str, b_frames: str) -> None:
    source = make_clip(tmp_path / "in.ts", Clip(frames=40))
    options = {"bf": b_frames}
    result, _ = upscaled(source, "out.mp4", codec=codec, preset=None, encoder_options=options)
    assert result.pts == contents(source).pts
    with av.open(str(tmp_path / "out.mp4")) as container:
        packets: list[Any] = [p for p in container.demux(video=0) if p.size]
    dts = [p.dts for p in packets]
    assert dts == sorted(set(dts))
    assert all(p.dts <= p.pts for p in packets)
    assert {p.duration * p.time_base for p in packets} == {Fraction(1, 25)}


def test_mpeg_4_keeps_times_that_vary(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.ts", Clip(pts=VARIABLE, audio=()))
    result, _ = upscaled(source, "out.mov", codec="mpeg4", preset=None)
    assert result.pts == contents(source).pts
    assert [round(1000 * (t - result.pts[0])) for t in result.pts] == VARIABLE


def test_mpeg_2_keeps_times_that_vary_at_a_usual_rate(tmp_path: Path) -> None:
    """Of 25 fps on average: one frame comes too late."""
    times = [0, 40, 80, 130, 160, 200, 240, 280, 320, 360, 400, 440]
    source = make_clip(tmp_path / "in.mkv", Clip(pts=times, audio=()))
    result, _ = upscaled(source, "out.mkv", codec="mpeg2video", preset=None)
    assert result.pts == contents(source).pts


def test_a_rate_that_mpeg_2_does_not_take_is_named(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(rate=Fraction(1533, 100), audio=()))
    with pytest.raises(OutputError, match=r"at 128x96, 15.3\d* fps: .*--vf fps=25") as caught:
        upscaled(source, "out.mkv", codec="mpeg2video", preset=None)
    assert "()" not in str(caught.value)
    even, _ = upscaled(source, "out.mkv", codec="mpeg2video", preset=None, filters="fps=25")
    assert even.pts[1] - even.pts[0] == Fraction(1, 25)


@pytest.mark.parametrize(
    ("sar", "codec", "target", "kept"),
    [
        ((3, 4), "mpeg2video", "out.ts", True), ((16, 11), "mpeg2video", "out.ts", False),
        ((16, 11), "mpeg2video", "out.mkv", False), ((16, 11), "mpeg2video", "out.mp4", True),
        ((16, 11), "mpeg1video", "out.ts", False), ((16, 11), "mpeg4", "out.ts", True),
        ((16, 11), "ffv1", "out.nut", False), ((16, 11), "mjpeg", "out.mov", True),
    ],
)  # fmt: skip
def test_a_pixel_aspect_is_kept_or_said_to_be_lost(
    tmp_path: Path, sar: tuple[int, int], codec: str, target: str, kept: bool
) -> None:
    """MPEG-1 and MPEG-2 hold a few aspects, and the encoder takes the nearest of them."""
    clip = Clip(size=(160, 90), sar=Fraction(*sar), audio=(), frames=3)
    source = make_clip(tmp_path / "in.mp4", clip)
    result, report = upscaled(source, target, codec=codec, preset=None)
    assert (result.sar == Fraction(*sar)) == kept
    assert any("pixel aspect" in note for note in report.notes) != kept


@pytest.mark.parametrize("pixels", [None, "yuvj420p", "yuv420p"])
def test_jpeg_has_full_range_and_the_same_colours(tmp_path: Path, pixels: str | None) -> None:
    """Its decoders assume full range and BT.601, whatever the container says."""
    source = make_clip(tmp_path / "in.mp4", Clip(frames=2, audio=()))
    upscaled(source, "reference.mkv", codec="ffv1", preset=None)
    options = {"qmin": "1", "qmax": "1"}
    result, report = upscaled(
        source, "out.mov", codec="mjpeg", preset=None, pixel_format=pixels, encoder_options=options
    )
    assert (result.range, result.matrix, report.notes) == (2, 5, [])
    own, wanted = (_rgb(tmp_path / name) for name in ("out.mov", "reference.mkv"))
    assert np.abs(own - wanted).mean() < 2
    assert abs((own - wanted).mean()) < 1.5


def _rgb(path: Path) -> "np.ndarray[Any, Any]":
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    matrix = {1: "ITU709", 5: "ITU601"}[int(frame.colorspace)]
    rgb = frame.reformat(
        format="rgb24", src_colorspace=matrix, src_color_range=frame.color_range,
        dst_color_range="JPEG",
    )  # fmt: skip
    return rgb.to_ndarray().astype(int)
