"""`vsr compare`: FFmpeg's scores, frames matched by time, and a page of the differences."""

import json
import math
import re
import subprocess
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import vsr
from tests.clips import Clip, make_clip
from tests.programs import CHROMIUM, FFMPEG, needs_chromium, needs_ffmpeg
from tests.report.test_pages import FLAGS
from vsr.cli.main import main
from vsr.compare import candidates
from vsr.compare.candidates import CandidateSettings, compare_models
from vsr.compare.compare import CompareSettings, compare
from vsr.compare.moments import MAX_WORST, MomentSelector
from vsr.compare.page import render_page
from vsr.compare.scores import ScoredPicture
from vsr.compare.summary import summary
from vsr.media.frame import picture_of
from vsr.media.limits import processor_count
from vsr.plan.cost import Cost

SILENT = {"audio": (), "size": (96, 64), "frames": 30}
LOSSLESS = {"qp": "0", "preset": "ultrafast"}
COARSE = {"crf": "38", "preset": "ultrafast"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original and copies: coarse, small, 10-bit, late, and without every third frame."""
    folder = tmp_path_factory.mktemp("compared")
    make_clip(folder / "truth.mkv", Clip(**SILENT, options=LOSSLESS))
    make_clip(folder / "coarse.mp4", Clip(**SILENT, options=COARSE))
    make_clip(folder / "small.mkv", Clip(**SILENT | {"size": (48, 32)}, options=LOSSLESS))
    deep = Clip(**SILENT, pixel_format="yuv420p10le", codec="libx265", options={"crf": "30"})
    make_clip(folder / "deep.mkv", deep)
    make_clip(folder / "late.mkv", Clip(**SILENT, start=2.0, options=LOSSLESS))
    kept = [40 * k for k in range(30) if k % 3]
    uneven = Clip(**SILENT | {"frames": len(kept)}, pts=kept, options=LOSSLESS)
    make_clip(folder / "uneven.mkv", uneven)
    return folder


def _ffmpegs(name: str, main_: Path, reference: Path, scale: str = "") -> list[float]:
    """Return the scores of the ffmpeg program, per frame."""
    graph = f"[0]{scale or 'null'}[a];[a][1]{name}=stats_file=-"
    words = [
        FFMPEG,
        "-v",
        "error",
        "-i",
        main_,
        "-i",
        reference,
        "-lavfi",
        graph,
        "-f",
        "null",
        "-",
    ]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    key = {"psnr": "psnr_avg", "ssim": "All"}[name]
    return [float(value) for value in re.findall(rf"{key}:(\S+)", told)]


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "scale"), [("coarse.mp4", ""), ("small.mkv", "scale=96:64:flags=bicubic+accurate_rnd")]
)
def test_figures_are_those_of_ffmpeg(folder: Path, name: str, scale: str) -> None:
    found = compare([folder / name], folder / "truth.mkv")
    for measure, digits in (("psnr", 0.01), ("ssim", 0.001)):
        theirs = _ffmpegs(measure, folder / name, folder / "truth.mkv", scale)
        assert len(theirs) == 30
        assert found.series(0, measure) == pytest.approx(theirs, abs=digits)


@needs_ffmpeg
def test_the_mean_psnr_is_ffmpegs_average(folder: Path) -> None:
    words = [FFMPEG, "-i", folder / "coarse.mp4", "-i", folder / "truth.mkv", "-lavfi", "psnr"]
    told = subprocess.run([*words, "-f", "null", "-"], capture_output=True, text=True, check=True)
    average = float(re.findall(r"average:(\S+)", told.stderr)[-1])
    totals = compare([folder / "coarse.mp4"], folder / "truth.mkv").totals(0)
    assert totals["psnr"]["mean"] == pytest.approx(average, abs=0.01)
    assert totals["psnr"]["min"] <= totals["psnr"]["p5"] <= totals["psnr"]["p50"]  # type: ignore[operator]


def test_ten_bits_are_measured_against_eight(folder: Path) -> None:
    found = compare([folder / "deep.mkv"], folder / "truth.mkv")
    assert 25 < (found.totals(0)["psnr"]["mean"] or 0) < 60
    assert (
        "deep.mkv was converted to the reference's pixel format (yuv420p) for the comparison"
        in found.notes
    )


def test_a_video_of_another_aspect_ratio_is_said_to_be_distorted(
    folder: Path, tmp_path: Path
) -> None:
    wide = make_clip(tmp_path / "wide.mkv", Clip(**SILENT | {"size": (96, 32)}, options=LOSSLESS))
    notes = compare([wide, folder / "small.mkv"], folder / "truth.mkv").notes
    upscaled = "was upscaled to 96x64 (bicubic) for the comparison"
    assert f"wide.mkv {upscaled}, which distorts it: crop it first" in notes
    assert f"small.mkv {upscaled}" in notes


def test_equal_videos_are_said_to_be_equal(folder: Path) -> None:
    found = compare([folder / "truth.mkv", folder / "truth.mkv", folder / "coarse.mp4"])
    told = found.as_json()
    assert told["videos"][0]["totals"]["psnr"]["mean"] is None
    assert told["videos"][0]["totals"]["ssim"]["min"] == 1.0
    assert {row["videos"][0]["psnr"] for row in told["ledger"]} == {None}
    assert "all frames of truth.mkv are identical to the reference's" in summary(found)
    assert "NaN" not in json.dumps(told) and "Infinity" not in json.dumps(told)
    assert "identical" in render_page(found)


def test_videos_that_all_equal_the_reference_have_no_infinite_difference(folder: Path) -> None:
    found = compare([folder / "truth.mkv"] * 3)
    assert summary(found) == 2 * ["all frames of truth.mkv are identical to the reference's"]


# matching of frames


def test_frames_without_a_partner_are_counted_and_left_out(folder: Path) -> None:
    found = compare([folder / "truth.mkv", folder / "uneven.mkv"])
    assert len(found.rows) == 20
    assert [round(row.time * 25) for row in found.rows] == [k for k in range(30) if k % 3]
    assert list(found.unmatched_frames) == [10, 0]
    assert "10 frames of truth.mkv have no matching frame: skipped" in found.notes


def test_frames_that_are_close_to_one_another_are_matched_with_the_nearest(tmp_path: Path) -> None:
    """One 25 fps video has 8 frames 10 ms apart; the other is the same without one of them."""
    times = [*range(0, 80, 10), 400, 800, 1200, 1600]
    whole = make_clip(tmp_path / "whole.mkv", Clip(pts=times, codec="ffv1", audio=()))
    lossless = vsr.EncoderSettings(codec="ffv1")
    with vsr.Writer(tmp_path / "less.mkv", like=whole, encoder=lossless) as less:
        for frame in vsr.frames(whole):
            if frame.index != 3:
                less.write(frame)
    for videos in ((whole, less.path), (less.path, whole)):
        found = compare(videos)
        assert sorted(found.unmatched_frames) == [0, 1]
        assert [math.isinf(row.values[0]["psnr"]) for row in found.rows] == 11 * [True]


def test_a_video_that_begins_later_is_compared_from_its_own_start_when_asked(folder: Path) -> None:
    ends = [folder / "truth.mkv", folder / "late.mkv"]
    with pytest.raises(vsr.InputError, match=r"first frames at 0.000 s, 2.000 s\): try --align"):
        compare(ends)
    found = compare(ends, settings=CompareSettings(align=True))
    assert len(found.rows) == 30
    assert all(math.isinf(row.values[0]["psnr"]) for row in found.rows)


def test_what_cannot_be_compared_is_told_in_a_line(folder: Path) -> None:
    with pytest.raises(vsr.UsageError, match="give two videos"):
        compare([folder / "truth.mkv"])
    with pytest.raises(vsr.InputError, match="no such file"):
        compare([folder / "truth.mkv", folder / "none.mkv"])
    with pytest.raises(vsr.UsageError, match="max_frames is 0"):
        CompareSettings(max_frames=0)


def test_the_worst_moment_is_the_one_that_is_damaged(folder: Path, tmp_path: Path) -> None:
    good = list(vsr.frames(str(folder / "truth.mkv")))
    with vsr.Writer(
        tmp_path / "bad.mkv",
        like=folder / "truth.mkv",
        encoder=vsr.EncoderSettings(codec="ffv1"),
    ) as out:
        for k, frame in enumerate(good):
            planes = tuple(255 - p if k in (7, 22) else p.copy() for p in frame.planes)
            out.write(frame.with_planes(planes, "x"))
    found = compare([tmp_path / "bad.mkv"], folder / "truth.mkv")
    assert sorted(m.index for m in found.moments if m.kind == "worst" and m.psnr < 20) == [7, 22]
    assert [m.kind for m in found.moments].count("median") == 1
    assert {worst["index"] for worst in found.as_json()["videos"][0]["worst"][:2]} == {7, 22}
    flicker = found.series(0, "flicker")
    assert set(flicker[1:].argsort()[-4:] + 1) == {7, 8, 22, 23}
    assert "it may flicker" in " ".join(summary(found))


def test_selecting_moments_takes_no_memory_per_frame(folder: Path) -> None:
    picture = picture_of(next(iter(vsr.frames(folder / "truth.mkv"))))
    reference = ScoredPicture(picture, {}, None)
    rng = np.random.default_rng(3)
    values = [*rng.uniform(20, 60, 999), math.inf, 130.0, *rng.uniform(30, 40, 1000)]
    selector, sizes = MomentSelector(), []
    tracemalloc.start()
    try:
        for k, psnr in enumerate(values):
            scored = (reference, ScoredPicture(picture, {"psnr": float(psnr)}, None))
            selector.add(k, k / 25, scored)
            if k in (200, len(values) - 1):
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 4000  # 1,800 floats would take at least 43,000 bytes
    median = float(np.median(np.minimum(values, 100)))
    assert selector._psnr.median() == pytest.approx(median, abs=0.006)
    samples = [m.psnr for m in selector._samples]
    assert selector.moments()[-1].psnr == min(samples, key=lambda psnr: abs(psnr - median))
    worst = [m.psnr for m in selector.moments()[:-1]]
    assert worst[0] == min(values) and worst == sorted(worst) and len(worst) == MAX_WORST


# the command


def _compare(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, words)])


def test_the_command_writes_page_figures_and_picture(folder: Path, tmp_path: Path) -> None:
    made = [tmp_path / f"out.{kind}" for kind in ("html", "json", "png")]
    words = [word for path in made for word in ("-o", path)]
    both = (folder / "coarse.mp4", folder / "small.mkv", "--reference", folder / "truth.mkv")
    done = _compare(*both, *words)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == "30 frames at 96x64 against truth.mkv"
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == ["coarse.mp4", "small.mkv"]
    told = json.loads(made[1].read_text("utf-8"))
    assert told["schema"] == "vsr-compare/1"
    assert [len(told["videos"]), told["frames"], len(told["ledger"])] == [2, 30, 30]
    assert made[2].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    [sheet] = vsr.frames(made[2])
    assert (sheet.planes[0].shape[1], sheet.planes[0].shape[0]) == (3 * 96, 64)
    again = _compare(*both, "-o", made[0])
    assert (again.exit_code, "exists: use -y" in again.stderr) == (2, True)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("-o", "x.txt"), "unsupported output format 'x.txt': use a name with .html, .json, .png"),
        (("--at", "1:2:3:4"), "is not a time such as 70 or 01:10"),
        (("b.mkv", "--models", "bicubic"), "--models requires exactly one video"),
    ],
)
def test_usage_errors(folder: Path, words: tuple[str, ...], complaint: str) -> None:
    done = _compare(folder / "truth.mkv", *words)
    assert (done.exit_code, complaint in done.stderr) == (2, True), done.stderr


def test_an_output_is_none_of_the_inputs(tmp_path: Path) -> None:
    pictures = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]
    for path in pictures:
        path.write_bytes(b"whatever it holds")
    for path in pictures:
        done = _compare(*pictures[:2], "--reference", pictures[2], "-o", path, "-y")
        assert (done.exit_code, f"are the same file: {path}" in done.stderr) == (2, True)
        assert path.read_bytes() == b"whatever it holds"


def test_an_output_without_a_folder_is_told_before_the_work(folder: Path, tmp_path: Path) -> None:
    done = _compare("not-even-read.mkv", "b.mkv", "-o", tmp_path / "none" / "page.html")
    assert (done.exit_code, f"folder {tmp_path / 'none'} does not exist" in done.stderr) == (
        1,
        True,
    )


def test_models_are_compared_on_a_piece_of_ones_own_video(folder: Path, tmp_path: Path) -> None:
    done = _compare(
        folder / "coarse.mp4", "--models", "c-dcscn-stream", "--at", "0:00.4", "--seconds", "0.2",
        "-o", tmp_path / "page.html",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "5 frames at 192x128 against bicubic" in done.stdout
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "no original to compare with" in text
    assert re.search(r"c-dcscn-stream: [\d.]+ ms per frame, [\d.e+]+ times real time", text)


def test_a_frame_of_a_candidate_takes_what_the_network_alone_takes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame's time from submission to result includes other frames, computed concurrently."""
    monkeypatch.setattr(candidates, "network_cost_at_size", lambda *_: Cost(9.0, 4.0))
    found = compare_models(
        folder / "coarse.mp4", CandidateSettings(models=["c-dcscn"], seconds=0.1)
    )
    expected = Cost(9.0, 4.0).alone_ms(processor_count())
    assert [v.ms_per_frame for v in (found.reference, *found.videos)] == [expected, expected]


def test_a_piece_is_where_it_was_asked_for(folder: Path) -> None:
    with pytest.raises(vsr.UsageError, match="no model to compare: name at least one"):
        CandidateSettings(models=["bicubic"])
    with pytest.raises(vsr.UsageError, match=r"invalid excerpt: start -1.0 s, duration 1.0 s;"):
        CandidateSettings(models=["c-dcscn"], at=-1.0)
    late = CandidateSettings(models=["c-dcscn"], at=1.2)
    with pytest.raises(vsr.UsageError, match=r"no frames at 1.2 s: its last frame is at 1.160 s"):
        compare_models(folder / "truth.mkv", late)
    found = compare_models(
        folder / "truth.mkv", CandidateSettings(models=["c-dcscn"], at=0.4, seconds=0.2)
    )
    frames = list(vsr.frames(folder / "truth.mkv"))[10:15]
    assert [Fraction(round(1000 * float(f.time)), 1000) for f in frames] == [
        Fraction(2, 5) + Fraction(k, 25) for k in range(5)
    ]
    assert len(found.rows) == len(frames)


@needs_chromium
def test_a_browser_shows_the_pictures_and_runs_no_script_of_names(
    folder: Path, tmp_path: Path
) -> None:
    evil = tmp_path / "<script>document.title='x'<script>.mkv"
    evil.write_bytes((folder / "coarse.mp4").read_bytes())
    made = tmp_path / "page.html"
    assert _compare(folder / "truth.mkv", evil, "-o", made).exit_code == 0
    words = [
        CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000",
        "--dump-dom", made.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    dom = done.stdout
    assert "<title>x</title>" not in dom
    assert not re.search(r'id="viewer"[^>]*hidden', dom)
    buttons = re.findall(r'<button type="button" aria-pressed="(\w+)"><img', dom)
    assert buttons[0] == "true" and set(buttons[1:]) <= {"false"}
    assert len(re.findall(r'src="data:image/webp;base64', dom)) == 2 + len(buttons)
    assert "//" not in re.sub(r"base64,[\w+/=]*", "", made.read_text("utf-8"))  # no URL
