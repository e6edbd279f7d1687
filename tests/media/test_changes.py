"""Tests that a video whose aspect or colour changes mid-stream is converted, or the user told."""

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import vsr
from tests.facts import contents, pictures
from vsr.live.input.source import LiveSource
from vsr.media.filters import Filtering
from vsr.media.frame import Frame
from vsr.media.reading import Reading
from vsr.media.source import Source

SIZE, FRAMES = (64, 48), 6
RED_709, RED_601, RED_601_FULL = (63, 102, 240), (81, 90, 240), (76, 85, 255)
Codes = tuple[int, int, int]


def _part(
    path: Path, number: int, codes: Codes = RED_709, matrix: int = 1, range_: int = 1,
    aspect: Fraction = Fraction(1), transfer: int = 1, pixel_format: str = "yuv420p",
) -> bytes:  # fmt: skip
    """Return an MPEG-TS of one colour whose times follow those of earlier parts."""
    with av.open(str(path), "w", format="mpegts") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        (stream.width, stream.height), stream.pix_fmt = SIZE, pixel_format
        stream.options = {"preset": "ultrafast", "crf": "5"}
        context = stream.codec_context
        context.sample_aspect_ratio = aspect
        context.colorspace, context.color_range, context.color_trc = matrix, range_, transfer
        for k in range(FRAMES):
            picture = av.VideoFrame(*SIZE, pixel_format)
            for plane, code in zip(picture.planes, codes, strict=False):
                plane.update(bytes([code]) * plane.buffer_size)
            picture.pts, picture.time_base = k + number * FRAMES, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path.read_bytes()


def _joined(folder: Path, first: dict[str, Any], second: dict[str, Any]) -> Path:
    path, part = folder / "in.ts", folder / "part.ts"
    path.write_bytes(_part(part, 0, **first) + _part(part, 1, **second))
    return path


def _upscaled(source: Path, **options: Any) -> tuple[Path, vsr.Report]:
    target = source.with_name("out.mkv")
    return target, vsr.upscale(source, target, model="bicubic", preset="ultrafast", **options)


def _colours(path: Path) -> list[tuple[float, ...]]:
    return [tuple(float(np.mean(plane)) for plane in planes) for planes in pictures(path)]


@pytest.mark.parametrize("options", [{}, {"deinterlace": "frame"}, {"jobs": 2, "segment": 1}])
@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({}, {"codes": RED_601, "matrix": 6}, "BT.709 in limited range to BT.601 in limited"),
        ({"codes": RED_601, "matrix": 5}, {"matrix": 1}, "BT.601 in limited range to BT.709"),
        (
            {}, {"codes": RED_601_FULL, "matrix": 5, "range_": 2, "pixel_format": "yuvj420p"},
            "BT.709 in limited range to BT.601 in full",
        ),
    ],
)  # fmt: skip
def test_a_change_of_matrix_or_range_is_converted(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], said: str,
    options: dict[str, Any], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    target, report = _upscaled(_joined(tmp_path, first, second), **options)
    colours = _colours(target)
    assert len(colours) == 2 * FRAMES
    for colour in colours:
        assert colour == pytest.approx(first.get("codes", RED_709), abs=2.5)
    assert contents(target).matrix == first.get("matrix", 1)
    if "jobs" not in options:
        assert said in report.losses[0]
        assert said in caplog.text
    assert report.exit_code == 0


def test_equal_matrices_and_missing_tags_are_no_change(tmp_path: Path) -> None:
    for second in ({"codes": RED_601, "matrix": 6}, {"codes": RED_601, "matrix": 2, "range_": 0}):
        source = _joined(tmp_path, {"codes": RED_601, "matrix": 5}, second)
        target, report = _upscaled(source, overwrite=True)
        assert report.losses == []
        assert _colours(target)[-1] == pytest.approx(RED_601, abs=2.5)


def test_the_range_of_grey_pictures_is_converted(tmp_path: Path) -> None:
    limited = {"codes": (126,), "pixel_format": "gray"}
    source = _joined(tmp_path, limited, {**limited, "codes": (128,), "range_": 2})
    assert [colour[0] for colour in _colours(_upscaled(source)[0])] == pytest.approx(
        [126] * 2 * FRAMES, abs=1
    )


def test_a_change_of_transfer_is_named(tmp_path: Path) -> None:
    _, report = _upscaled(_joined(tmp_path, {}, {"transfer": 16}))
    assert len(report.losses) == 1
    assert "changes its colour primaries or transfer mid-stream" in report.losses[0]


@pytest.mark.parametrize("options", [{}, {"deinterlace": "frame"}])
def test_a_change_of_the_pixel_aspect_is_named_once(
    tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    source = _joined(tmp_path, {}, {"aspect": Fraction(4, 3)})
    target, report = _upscaled(source, **options)
    assert len(report.losses) == 1
    assert "changes its aspect ratio from 1.33 to 1.78 mid-stream" in report.losses[0]
    assert caplog.text.count("aspect ratio") == 1
    assert contents(target).sar == 1
    assert report.exit_code == 0


def test_a_worker_names_the_input_and_each_change_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = _joined(tmp_path, {}, {"aspect": Fraction(4, 3)})
    notes: dict[str, str] = {}
    for _ in range(2):  # as a worker reads several clips of one input
        with closing(Source(str(clip), Reading(name="film.ts", notes=notes))) as source:
            list(source)
    assert caplog.text.count("film.ts changes its aspect ratio") == 1
    assert clip.name not in caplog.text
    assert list(notes) == ["aspect"]


def test_filters_can_correct_a_change_of_the_pixel_aspect(tmp_path: Path) -> None:
    source = _joined(tmp_path, {}, {"aspect": Fraction(4, 3)})
    filters = "scale=64:48/sar,pad=64:48:0:(oh-ih)/2,setsar=1"
    reader = Source(str(source), Reading(filtering=Filtering(filters=filters)))
    with closing(reader):
        frames = [item for item in reader if isinstance(item, Frame)]
        assert reader.losses.notes == {}
    assert [int(frame.planes[0][0, 30]) < 30 for frame in frames] == [False] * 6 + [True] * 6


def test_a_relay_puts_bars_beside_frames_of_another_aspect(tmp_path: Path) -> None:
    source = _joined(tmp_path, {}, {"aspect": Fraction(4, 3)})
    with closing(LiveSource(str(source), 5.0)) as live:
        frames = [item for item in live if isinstance(item, Frame)]
        assert "these frames get black bars" in live.losses.notes["aspect"]
    assert [int(frame.planes[0][0, 30]) < 30 for frame in frames] == [False] * 6 + [True] * 6
    assert [frame.event for frame in frames] == [""] * 6 + ["resized"] * 6


def test_a_relay_converts_frames_of_another_matrix(tmp_path: Path) -> None:
    source = _joined(tmp_path, {}, {"codes": RED_601, "matrix": 5})
    with closing(LiveSource(str(source), 5.0)) as live:
        for frame in (item for item in live if isinstance(item, Frame)):
            found = [int(plane[10, 10]) for plane in frame.planes]
            assert found == pytest.approx(RED_709, abs=2.5)
