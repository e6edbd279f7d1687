"""Tests that interlaced video is detected by flags and content, and that frame times are exact."""

import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

import vsr
from vsr.cli.main import main
from vsr.errors import UsageError
from vsr.files.settings import RunSettings
from vsr.live.input.source import LiveSource
from vsr.media import fields
from vsr.media.filters import NO_FILTERS, Filtering, split_chain
from vsr.media.frame import Frame
from vsr.media.reading import Reading
from vsr.media.source import Source

Luma = npt.NDArray[np.uint8]
WIDTH, HEIGHT, COUNT = 96, 64, 25
FLAGS = {"x264-params": "tff=1:keyint=5"}
BFF = {"x264-params": "bff=1"}


def scene(moment: float) -> Luma:
    """Return a texture that pans by 5 pixels per field, at a time in fields."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    x = x + 5 * moment
    waves = 60 * np.sin(x / 4) * np.cos(y / 9) + 40 * np.sin(x / 11 + y / 7)
    return np.clip(128 + waves, 0, 255).astype(np.uint8)


def woven(number: int, lower_first: bool = False) -> Luma:
    """Return an interlaced picture, woven from two fields of different times."""
    first, second = scene(2 * number), scene(2 * number + 1)
    upper, lower = (second, first) if lower_first else (first, second)
    picture = upper.copy()
    picture[1::2] = lower[1::2]
    return picture


def write(path: Path, pictures: Sequence[Luma], options: dict[str, str], rate: int = 25) -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "8", "preset": "ultrafast", **options}
        flat = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
        for number, luma in enumerate(pictures):
            picture = av.VideoFrame.from_dlpack((luma, flat.copy(), flat.copy()), format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, rate)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def frames(path: Path, filtering: Filtering = NO_FILTERS) -> list[Frame]:
    source = Source(str(path), Reading(filtering=filtering))
    found = [item for item in source if isinstance(item, Frame)]
    assert source.info.rate == pytest.approx(1 / float(found[1].time - found[0].time), rel=0.02)
    source.close()
    return found


def combs(found: Sequence[Frame]) -> float:
    """Return the share of frames that FFmpeg's idet, at its default threshold, finds interlaced."""
    graph = av.filter.Graph()
    size = f"{WIDTH}x{HEIGHT}"
    nodes = [graph.add("buffer", f"video_size={size}:pix_fmt=gray:time_base=1/25")]
    nodes += [graph.add("idet"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    for number, frame in enumerate(found):
        picture = av.VideoFrame.from_ndarray(np.array(frame.planes[0]), format="gray")
        picture.pts, picture.time_base = number, Fraction(1, 25)
        graph.vpush(picture)
    graph.vpush(None)
    last: dict[str, str] = {}
    while True:
        try:
            last = dict(graph.vpull().metadata)
        except (av.error.BlockingIOError, av.error.EOFError):
            break
    kinds = {k: float(last[f"lavfi.idet.multiple.{k}"]) for k in ("tff", "bff", "progressive")}
    return (kinds["tff"] + kinds["bff"]) / len(found)


def same(some: Sequence[Frame], others: Sequence[Frame]) -> bool:
    pairs = zip(some, others, strict=True)
    return all(np.array_equal(a.planes[0], b.planes[0]) and a.time == b.time for a, b in pairs)


AUTO = Filtering(deinterlace="auto")


@pytest.mark.parametrize(
    ("lower_first", "options"),
    [(False, FLAGS), (True, BFF), (False, {}), (True, {})],
    ids=["tff", "bff", "tff without flags", "bff without flags"],
)
def test_combs_are_found_and_gone(
    tmp_path: Path, lower_first: bool, options: dict[str, str]
) -> None:
    pictures = [woven(k, lower_first) for k in range(COUNT)]
    path = write(tmp_path / "in.mkv", pictures, options)
    before, after = frames(path), frames(path, AUTO)
    assert [frame.time for frame in after] == [frame.time for frame in before]
    assert combs(before) > 0.9
    assert combs(after) < 0.01
    # the result shows the first field's time, not the second's
    moments = [scene(2 * k) for k in range(COUNT)]
    errors = [
        np.abs(frame.planes[0].astype(float) - truth)[4:-4, 4:-4].mean()
        for frame, truth in zip(after[2:-2], moments[2:-2], strict=True)
    ]
    assert max(errors) < 6


def test_a_run_that_measures_networks_first_says_once_that_it_deinterlaces(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "in.mkv", [woven(k) for k in range(COUNT)], FLAGS)
    with caplog.at_level(logging.INFO):
        vsr.upscale(path, tmp_path / "out.mkv", max_frames=2)
    assert caplog.messages.count("deinterlacing (auto)") == 1


@pytest.mark.parametrize("options", [{}, FLAGS], ids=["plain", "flagged as interlaced"])
def test_progressive_video_is_left_alone(tmp_path: Path, options: dict[str, str]) -> None:
    path = write(tmp_path / "in.mkv", [scene(2 * k) for k in range(COUNT)], options)
    assert same(frames(path, AUTO), frames(path))


def test_mixed_video_switches_with_every_frame(tmp_path: Path) -> None:
    """The middle third is combed, the others progressive; all frames are flagged as interlaced."""
    pictures = [scene(2 * k) if k < 20 or k >= 40 else woven(k) for k in range(60)]
    path = write(tmp_path / "in.mkv", pictures, FLAGS)
    plain, after = frames(path), frames(path, AUTO)
    alike = [np.array_equal(a.planes[0], b.planes[0]) for a, b in zip(plain, after, strict=True)]
    assert all(alike[:18]) and all(alike[-14:])  # idet needs a few pictures to decide
    assert not any(alike[24:38])
    assert combs(after[24:38]) < 0.01


def test_every_field_becomes_a_frame_half_way_between(tmp_path: Path) -> None:
    path = write(tmp_path / "in.mp4", [woven(k) for k in range(COUNT)], FLAGS)
    report = vsr.upscale(
        path, tmp_path / "out.mp4", model="bicubic", deinterlace="bob", preset="ultrafast"
    )
    assert (report.frames_in, report.frames_out) == (50, 50)
    with av.open(str(tmp_path / "out.mp4")) as file:
        stream = file.streams.video[0]
        times = [frame.pts * stream.time_base for frame in file.decode(stream)]
        assert stream.average_rate == 50
    first = frames(path)[0]
    start = first.pts * first.time_base
    assert times == [start + Fraction(k, 50) for k in range(50)]


def test_film_is_taken_out_of_30_frames_a_second(tmp_path: Path) -> None:
    film = [scene(3 * k) for k in range(24)]
    telecined = []
    for k in range(0, 24, 4):  # 3:2 pulldown: AA BB BC CD DD, two of them woven
        a, b, c, d = film[k : k + 4]
        mixed = [(a, a), (b, b), (b, c), (c, d), (d, d)]
        for upper, lower in mixed:
            picture = upper.copy()
            picture[1::2] = lower[1::2]
            telecined.append(picture)
    path = write(tmp_path / "in.mkv", telecined, FLAGS, rate=30)
    after = frames(path, Filtering(detelecine=True))
    assert len(after) == 24
    assert combs(after) < 0.01
    assert after[0].time == pytest.approx(frames(path)[0].time, abs=1e-6)
    steps = np.diff([frame.time for frame in after])
    assert np.abs(steps - 1 / 24).max() < 1e-6
    for frame, truth in zip(after, film, strict=True):
        assert np.abs(frame.planes[0].astype(float) - truth).mean() < 4


def test_live_pictures_with_combs_are_deinterlaced(tmp_path: Path) -> None:
    """Detected by their flags, with a delay of two pictures and unchanged times."""
    path = write(tmp_path / "in.ts", [woven(k) for k in range(COUNT)], FLAGS)
    found = {}
    for mode in ("off", "auto", "bob"):
        source = LiveSource(path.as_uri(), 5.0, deinterlace=mode)
        found[mode] = [item for item in source if isinstance(item, Frame)]
        source.close()
    assert combs(found["off"]) > 0.9
    assert combs(found["auto"]) < 0.01
    assert [frame.time for frame in found["auto"]] == [frame.time for frame in found["off"]]
    assert len(found["bob"]) == 2 * COUNT


def test_off_leaves_combs_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "in.mkv", [woven(k) for k in range(3)], FLAGS)
    report = vsr.upscale(path, tmp_path / "out.mkv", model="bicubic", deinterlace="off")
    assert "interlaced" in " ".join(report.notes)
    report = vsr.upscale(path, tmp_path / "out.mkv", model="bicubic", overwrite=True)
    assert "interlaced" not in " ".join(report.notes)


def test_looking_judges_by_shares() -> None:
    def order(flagged: int, upper: int, lower: int, plain: int) -> str:
        return fields.Fields.of(flagged, upper, lower, plain).order

    assert order(0, 0, 0, 100) == order(0, 2, 0, 0) == order(0, 10, 5, 80) == ""
    assert (order(0, 30, 1, 60), order(0, 1, 30, 60)) == ("tff", "bff")
    assert (order(100, 90, 0, 5), order(100, 0, 0, 90), order(100, 0, 0, 0)) == ("", "prog", "")


def test_filters_before_the_network(tmp_path: Path) -> None:
    path = write(tmp_path / "in.mkv", [scene(k) for k in range(COUNT)], {})
    report = vsr.upscale(
        path, tmp_path / "out.mkv", model="bicubic", filters="crop=48:32:8:4, fps=5"
    )
    assert (report.frames_in, report.frames_out) == (5, 5)
    with av.open(str(tmp_path / "out.mkv")) as file:
        stream = file.streams.video[0]
        shown = list(file.decode(stream))
        assert [f.time for f in shown] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=0.001)
        assert (shown[0].width, shown[0].height) == (96, 64)
    truths = [frame.planes[0][4:36, 8:56] for frame in frames(path)[:5]]
    small = shown[0].reformat(width=48, height=32, format="gray").to_ndarray().astype(float)
    assert min(np.abs(small - truth).mean() for truth in truths) < 12


@pytest.mark.parametrize(
    "chain",
    ["nosuch", "overlay", "split", "anull", "crop=1,,negate", "a;b", "[x]negate", "movie=x"],
)
def test_filters_that_cannot_be(chain: str) -> None:
    with pytest.raises(UsageError):
        RunSettings(filters=chain)


def test_filters_that_do_not_fit_the_pictures(tmp_path: Path) -> None:
    path = write(tmp_path / "in.mkv", [scene(0)], {})
    with pytest.raises(UsageError, match="crop=500:500"):
        vsr.upscale(path, tmp_path / "out.mkv", model="bicubic", filters="crop=500:500")
    with pytest.raises(UsageError, match="nosuch"):
        vsr.upscale(path, tmp_path / "out.mkv", model="bicubic", filters="crop=nosuch=3")
    assert list(tmp_path.iterdir()) == [path]
    result = CliRunner().invoke(main, ["run", str(path), str(tmp_path / "o.mkv"), "--vf", "nope"])
    assert result.exit_code == 2 and "Traceback" not in result.output


def test_chains_are_split_as_ffmpeg_does() -> None:
    assert split_chain("crop=8:8,negate") == [("crop", "8:8"), ("negate", "")]
    assert split_chain("drawtext='a,b',hue=s=0") == [("drawtext", "'a,b'"), ("hue", "s=0")]
    assert split_chain(r"select=gt(n\,3)") == [("select", r"gt(n\,3)")]
    assert split_chain("") == []


def test_the_doctor_lists_filters() -> None:
    result = CliRunner().invoke(main, ["doctor", "--filters"])
    names = {line.split()[0] for line in result.output.splitlines()}
    assert {"crop", "bwdif", "fps", "eq"} & names >= {"crop", "bwdif", "fps"}
    assert not {"overlay", "anull", "color"} & names
