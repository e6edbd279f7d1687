"""Runs with the flicker filter: how steady a still clip becomes, and the same bits on every way."""

import json
import threading
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import vsr
from tests.clips import make_still_clip
from vsr.errors import UsageError
from vsr.inference.models import names
from vsr.media.clips import ClipCutter, Cuts
from vsr.media.frame import Frame
from vsr.media.reading import Reading
from vsr.media.source import Source

FRAMES, SECONDS = 70, 0.4
"""Frames of a clip, and length of a segment in seconds: 10 frames."""
Luma = npt.NDArray[np.int16]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A still clip whose frames 10 and 11, the first of a segment, equal frame 9."""
    folder = tmp_path_factory.mktemp("flicker")
    return make_still_clip(
        folder / "still.mkv", 0, frames=FRAMES, key_frames=8, repeated=(4, 10, 11, 25)
    )


def _run(source: Path, target: Path, **options: object) -> vsr.Report:
    options = {"model": "rt-sharp", "codec": "ffv1", "segment": SECONDS} | options
    return vsr.upscale(source, target, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> Path:
    """The output of one run in segments."""
    target = source.with_name("undisturbed.mkv")
    assert _run(source, target).exit_code == 0
    return target


def _lumas(path: Path) -> list[Luma]:
    with av.open(str(path)) as container:
        return [p.to_ndarray()[: p.height].astype(np.int16) for p in container.decode(video=0)]


def _flicker(lumas: list[Luma]) -> float:
    return float(np.mean([np.abs(b - a).mean() for a, b in pairwise(lumas)]))


def _same(first: list[Luma], second: list[Luma]) -> list[bool]:
    return [bool(np.array_equal(a, b)) for a, b in zip(first, second, strict=True)]


# steadiness


@pytest.mark.parametrize("crf", [23, 28])
@pytest.mark.parametrize("sharp", [name for name in names() if name.endswith("-sharp")])
def test_a_still_clip_is_steady_with_a_sharp_network(tmp_path: Path, sharp: str, crf: int) -> None:
    source, found = make_still_clip(tmp_path / "still.mkv", crf), {}
    for name, model, options in (
        ("bicubic", "bicubic", {}),
        ("default", sharp, {}),
        ("without", sharp, {"flicker_filter": False}),
    ):
        target = tmp_path / f"{name}.mkv"
        report = _run(source, target, model=model, segment=0, **options)
        assert report.facts()["output"]["flicker_filter"] is (name == "default")
        found[name] = _flicker(_lumas(target))
    assert found["default"] <= 1.3 * found["bicubic"] < found["without"]


@pytest.mark.parametrize(("model", "noise"), [("rt-sharp", 40.0), ("c-dcscn", 4.0)])
def test_what_moves_everywhere_and_other_networks_remain_as_they_are(
    tmp_path: Path, model: str, noise: float
) -> None:
    source = make_still_clip(tmp_path / "in.mkv", 0, frames=5, noise=noise)
    made = []
    for name, wanted in (("default", None), ("off", False)):
        _run(source, tmp_path / f"{name}.mkv", model=model, flicker_filter=wanted)
        made.append(_lumas(tmp_path / f"{name}.mkv"))
    assert all(_same(*made))


# the same bits


def test_each_segment_is_filtered_from_frames_before_it_on(
    tmp_path: Path, source: Path, undisturbed: Path
) -> None:
    """With 10 frames a segment, these are the 10 of the segment before it."""
    found = _lumas(undisturbed)
    frames = [frame for frame in Source(str(source)) if isinstance(frame, Frame)]
    for segment in range(7):
        begin, end = max(0, 10 * segment - 10), 10 * segment + 10
        made = vsr.upscale_frames(frames[begin:end], model="rt-sharp")
        expected = [frame.planes[0].astype(np.int16) for frame in made][-10:]
        assert all(_same(found[end - 10 : end], expected)), segment


def test_a_still_picture_does_not_change_where_segments_meet(tmp_path: Path) -> None:
    source = make_still_clip(tmp_path / "in.mkv", 28, frames=60)
    _run(source, tmp_path / "out.mkv", segment=0.8)  # 20 frames
    changes = [np.abs(b - a).mean() for a, b in pairwise(_lumas(tmp_path / "out.mkv"))]
    others = [c for k, c in enumerate(changes, 1) if k % 20 and k > 16]
    assert max(changes[19], changes[39]) <= max(others)


def test_two_workers_write_what_one_does(tmp_path: Path, source: Path, undisturbed: Path) -> None:
    report = _run(source, tmp_path / "out.mkv", jobs=2)
    assert report.facts()["output"]["flicker_filter"] is True
    assert all(_same(_lumas(tmp_path / "out.mkv"), _lumas(undisturbed)))


def test_the_frames_before_a_segment_are_decoded_from_an_early_key_frame(tmp_path: Path) -> None:
    """As the segment's own frames are: 2 s before the first one that is used."""
    path = make_still_clip(tmp_path / "in.mkv", 40, frames=200, key_frames=10)
    with closing(Source(str(path))) as source:
        cuts = Cuts.of(source.first_time, 25, source.info.rate)
    assert cuts.lead == Fraction(16, 25)
    for clip in ClipCutter(str(path), Reading(), cuts).clips(tmp_path, lambda _: True):
        with av.open(str(clip.path)) as container:
            first = next(p for p in container.demux(video=0) if p.pts is not None)
            assert first.pts is not None
            begin = first.pts * first.time_base + clip.shift
        assert begin <= max(cuts.first, clip.begin - cuts.lead - 2)


def test_two_workers_do_so_from_a_later_frame_on(tmp_path: Path, source: Path) -> None:
    for jobs in (1, 2):
        _run(source, tmp_path / f"{jobs}.mkv", jobs=jobs, start_frame=13, max_frames=33)
    assert all(_same(_lumas(tmp_path / "1.mkv"), _lumas(tmp_path / "2.mkv")))


@pytest.mark.parametrize(
    ("container", "start"), [("mkv", 0), ("mkv", 7), ("ts", 0), ("ts", 7)], ids=str
)
def test_a_resumed_run_writes_what_an_uninterrupted_one_does(
    tmp_path: Path, source: Path, container: str, start: int
) -> None:
    """Matroska is read on from a key frame, an MPEG transport stream from the start."""
    if container == "ts":
        source = make_still_clip(tmp_path / "still.ts", 0, frames=FRAMES, key_frames=8)
    whole, target, stop = tmp_path / "whole.mkv", tmp_path / "out.mkv", threading.Event()
    _run(source, whole, start_frame=start)

    def on_progress(progress: vsr.Progress) -> None:
        if progress.frames == 32:
            stop.set()

    first = vsr.upscale(
        source, target, model="rt-sharp", codec="ffv1", segment=SECONDS, on_progress=on_progress,
        stop=stop, start_frame=start,
    )  # fmt: skip
    assert first.exit_code == 130
    with pytest.raises(UsageError, match="flicker filter was True and is now False"):
        _run(source, target, flicker_filter=False, start_frame=start)
    report = _run(source, target, flicker_filter=True, start_frame=start)  # as it is by default
    assert report.exit_code == 0 and 30 <= report.taken_over < FRAMES - start
    assert all(_same(_lumas(target), _lumas(whole)))


def test_report_and_receipt_tell_whether_it_was_on(tmp_path: Path, source: Path) -> None:
    report, receipt = tmp_path / "r.json", tmp_path / "r.receipt.json"
    for wanted in (None, False):
        vsr.upscale(
            source, tmp_path / "out.mkv", model="rt-sharp", max_frames=2, flicker_filter=wanted,
            report=report, overwrite=True,
        )  # fmt: skip
        found = json.loads(report.read_text("utf-8"))["output"], json.loads(receipt.read_text())
        assert [facts["flicker_filter"] for facts in found] == [wanted is None] * 2


# Python


def test_frames_in_python_are_filtered_alike(source: Path) -> None:
    whole = source.with_name("whole.mkv")
    _run(source, whole, segment=0)

    def lumas(**options: bool | None) -> list[Luma]:
        made = vsr.upscale_frames(vsr.frames(source), model="rt-sharp", **options)  # type: ignore[arg-type]
        return [frame.planes[0].astype(np.int16) for frame in made]

    by_default, off = lumas(), lumas(flicker_filter=False)
    same = _same(by_default, off)
    assert same[0] and not any(same[1:10])
    assert all(_same(by_default, _lumas(whole)))


def test_pictures_written_as_pictures_are_not_filtered(tmp_path: Path, source: Path) -> None:
    pictures = [f for f in Source(str(source)) if isinstance(f, Frame)][:3]
    for k, frame in enumerate(pictures):
        Image.fromarray(np.array(frame.planes[0])).save(tmp_path / f"in_{k}.png")
    made = {}
    for name, wanted in (("on", True), ("off", False)):
        target = tmp_path / f"{name}_%d.png"
        report = vsr.upscale(
            tmp_path / "in_%d.png", target, model="rt-sharp", flicker_filter=wanted
        )
        assert report.facts()["output"]["flicker_filter"] is False
        made[name] = [(tmp_path / f"{name}_{k}.png").read_bytes() for k in range(3)]
    assert made["on"] == made["off"]
