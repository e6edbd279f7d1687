"""Several workers on one file: same bytes as from one worker, and no finished work is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import pytest

import vsr
from tests.clips import Clip, cut_off, make_clip, remuxed
from tests.facts import contents
from vsr.errors import BackendError, UsageError, VsrError
from vsr.files.auto_jobs import AutoJobs
from vsr.files.crew import LocalCrew
from vsr.files.workers import devices_of

ROOT = Path(__file__).parents[2]
FRAMES = 60
SECONDS = 0.4
"""Length of a segment, in seconds: 10 frames."""
SOURCE = Clip(frames=FRAMES, audio=("aac",), subtitles="srt", chapters=((0.0, 1.0, "one"),))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("jobs") / "in.mkv", SOURCE)


@pytest.fixture(scope="module")
def alone(source: Path) -> Path:
    """The output of one worker."""
    target = source.with_name("alone.mkv")
    assert _run(source, target).exit_code == 0
    return target


def _run(source: Path, target: Path, **options: object) -> vsr.Report:
    options = {"model": "bicubic", "preset": "ultrafast", "segment": SECONDS} | options
    return vsr.upscale(source, target, **options)  # type: ignore[arg-type]


def _coded(path: Path) -> list[tuple[int, bytes]]:
    """Return (pts, bytes) of every video packet."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        return [(p.pts or 0, bytes(p)) for p in container.demux(video) if p.size]


def _folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.vsr")


# the same bytes


def test_two_workers_write_what_one_does(tmp_path: Path, source: Path, alone: Path) -> None:
    target, seen = tmp_path / "out.mkv", list[vsr.Progress]()
    report = _run(source, target, jobs=2, report=tmp_path / "r.csv", on_progress=seen.append)
    assert (report.frames_in, report.frames_out, report.exit_code) == (FRAMES, FRAMES, 0)
    assert _coded(target) == _coded(alone)
    assert contents(target) == contents(alone)
    assert (seen[-1].frames, seen[-1].total, seen[-1].finished) == (FRAMES, FRAMES, True)
    assert [p.frames for p in seen] == sorted(p.frames for p in seen)
    rows = list(report.ledger.rows())
    assert [row["index"] for row in rows] == list(range(FRAMES))
    assert [row["pts_s"] for row in rows] == [float(t) for t in contents(source).pts]
    assert all(row["total_ms"] > 0 for row in rows) and "host" not in rows[0]
    assert not _folder(target).exists()


@pytest.mark.parametrize(
    ("clip", "name", "options"),
    [
        (Clip(codec="libx264", frames=50, audio=()), "in.mp4", {"preset": "veryfast"}),
        (Clip(frames=50), "in.ts", {"codec": "hevc", "max_frames": 30, "start_frame": 7}),
        (Clip(frames=25), "in.mkv", {"codec": "av1", "preset": "12"}),
        (Clip(codec="libvpx-vp9", frames=25, audio=()), "in.webm", {"codec": "vp9", "preset": "8"}),
        (
            Clip(codec="prores_ks", pixel_format="yuv422p10le", frames=25),
            "in.mov",
            {"codec": "ffv1", "preset": None},
        ),
        (Clip(frames=7, pts=[0, 20, 50, 120, 900, 1900, 1940], start=1.3), "in.mp4", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_codecs_containers_and_times(
    tmp_path: Path, clip: Clip, name: str, options: dict[str, object]
) -> None:
    source = make_clip(tmp_path / name, clip)
    one, two = tmp_path / "one.mkv", tmp_path / "two.mkv"
    before = _run(source, one, **options)
    after = _run(source, two, jobs=2, **options)
    assert (after.frames_out, after.exit_code) == (before.frames_out, 0)
    assert _coded(two) == _coded(one)
    assert contents(two) == contents(one)


@pytest.mark.parametrize("name", ["in.mkv", "in.mp4"])
@pytest.mark.parametrize("options", [{}, {"max_frames": 5}, {"start_frame": 7}], ids=str)
def test_a_cut_off_input_is_reported_as_by_one_worker(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    clip = make_clip(tmp_path / f"whole_{name}", Clip(frames=FRAMES, options={"g": "10"}))
    if name == "in.mp4":
        clip = remuxed(clip, tmp_path / "first.mp4", movflags="faststart")
    source = cut_off(clip, tmp_path / name, 0.6)
    one = _run(source, tmp_path / "one.mkv", **options)
    two = _run(source, tmp_path / "two.mkv", jobs=2, **options)
    assert one.degraded == ("max_frames" not in options)
    assert (two.frames_out, two.lost, two.cut_off) == (one.frames_out, one.lost, one.cut_off)
    assert two.closing_words() == one.closing_words()


def test_a_network_computes_the_same_with_a_share_of_the_processors(
    tmp_path: Path, source: Path
) -> None:
    one, two = tmp_path / "one.mkv", tmp_path / "two.mkv"
    _run(source, one, model="c-dcscn", max_frames=20)
    _run(source, two, model="c-dcscn", max_frames=20, jobs=2)
    assert _coded(two) == _coded(one)


def test_several_devices_are_named_in_the_ledger(tmp_path: Path, source: Path, alone: Path) -> None:
    report = _run(source, tmp_path / "out.mkv", device="CPU,CPU", report=tmp_path / "r.csv")
    assert _coded(tmp_path / "out.mkv") == _coded(alone)
    assert all(row["host"] and row["device"] for row in report.ledger.rows())
    assert (tmp_path / "r.csv").read_text("utf-8").splitlines()[0].endswith("event,host,device")


def test_devices_with_commas() -> None:
    assert devices_of(None) == [None]
    assert devices_of("0, 1,2") == ["0", "1", "2"]
    assert devices_of("AUTO:GPU,CPU") == ["AUTO:GPU,CPU"]


def test_damaged_packets_cost_their_frames_alone(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.ts", Clip(frames=50, audio=()))
    source = cut_off(whole, tmp_path / "in.ts", 0.7)
    one, two = tmp_path / "one.mkv", tmp_path / "two.mkv"
    before, after = _run(source, one), _run(source, two, jobs=2)
    assert after.frames_out == before.frames_out < 50
    assert [pts for pts, _ in _coded(two)] == [pts for pts, _ in _coded(one)]


# no finished work is lost


def _command(source: Path, target: Path, *words: object) -> list[str]:
    command = [sys.executable, "-m", "vsr", "run", source, target, "--model", "bicubic"]
    return [str(w) for w in [*command, "--preset", "ultrafast", "--segment", SECONDS, *words]]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    return make_clip(folder / "in.mkv", Clip(size=(96, 72), frames=200, audio=()))


@pytest.fixture(scope="module")
def long_alone(long: Path) -> Path:
    target = long.with_name("alone.mkv")
    _run(long, target)
    return target


def _segments(target: Path) -> int:
    journal = _folder(target) / "journal.jsonl"
    return journal.read_text("utf-8").count('"file"') if journal.exists() else 0


def _children(of: int) -> list[int]:
    lists = [path.read_text("ascii") for path in Path(f"/proc/{of}/task").glob("*/children")]
    return [int(number) for listed in lists for number in listed.split()]


def _until(condition: object, run: "subprocess.Popen[bytes]") -> None:
    while not condition():  # type: ignore[operator]
        assert run.poll() is None, "it was done before it could be disturbed"
        time.sleep(0.005)


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
def test_after_workers_and_the_run_itself_are_killed_the_same_bytes_come(
    tmp_path: Path, long: Path, long_alone: Path
) -> None:
    target = tmp_path / "out.mkv"
    with subprocess.Popen(_command(long, target, "--jobs", 2), cwd=ROOT) as run:
        _until(lambda: _segments(target) >= 2, run)
        os.kill(_children(run.pid)[0], signal.SIGKILL)
        done = _segments(target)
        _until(lambda: _segments(target) >= done + 3, run)
        workers = _children(run.pid)
        run.kill()
    kept = _segments(target)
    assert run.returncode == -signal.SIGKILL and 5 <= kept < 20
    end = time.monotonic() + 30
    while any(_is_alive(worker) for worker in workers):
        assert time.monotonic() < end, "workers outlive their run"
        time.sleep(0.05)
    report = _run(long, target, jobs=2)
    assert (report.taken_over, report.frames_out) == (10 * kept, 200)
    assert _coded(target) == _coded(long_alone)


def _is_alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_stopped_run_leaves_a_playable_file_and_one_worker_goes_on(
    tmp_path: Path, long: Path, long_alone: Path
) -> None:
    target, stop = tmp_path / "out.mkv", threading.Event()

    def on_progress(progress: vsr.Progress) -> None:
        if progress.frames >= 45:
            stop.set()

    report = _run(long, target, jobs=2, on_progress=on_progress, stop=stop)
    assert report.exit_code == 130
    assert contents(target).frames == report.frames_out < 200
    assert "Run the same command to resume" in report.closing_words()[0]
    kept = _segments(target)
    assert kept >= 3
    report = _run(long, target)
    assert (report.exit_code, report.taken_over) == (0, 10 * kept)
    assert _coded(target) == _coded(long_alone)


def test_one_worker_fills_the_gaps_that_several_left(
    tmp_path: Path, source: Path, alone: Path
) -> None:
    target, stop = tmp_path / "out.mkv", threading.Event()

    def on_progress(progress: vsr.Progress) -> None:
        if progress.frames >= 35:
            stop.set()

    _run(source, target, jobs=1, on_progress=on_progress, stop=stop)
    journal = _folder(target) / "journal.jsonl"
    lines = journal.read_text("utf-8").splitlines()
    without = [line for line in lines if json.loads(line).get("number") != 1]
    assert len(without) == len(lines) - 1
    journal.write_text("".join(f"{line}\n" for line in without), "utf-8")
    report = _run(source, target, overwrite=True)
    assert report.taken_over == 10 * sum('"file"' in line for line in without) >= 20
    assert _coded(target) == _coded(alone)


def test_workers_that_cannot_start_end_the_run(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsr.files.crew._PROCESS", "no.such.module")
    with pytest.raises(BackendError, match="keep exiting unexpectedly"):
        _run(source, tmp_path / "out.mkv", jobs=2)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_worker_is_the_error_of_the_run(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = LocalCrew.send

    def without_a_clip(self: LocalCrew, worker: int, clip: object, target: Path) -> None:
        clip.path.write_bytes(b"no clip")  # type: ignore[attr-defined]
        send(self, worker, clip, target / "in" / "no" / "folder")  # type: ignore[arg-type]

    monkeypatch.setattr(LocalCrew, "send", without_a_clip)
    with pytest.raises(VsrError):
        _run(source, tmp_path / "out.mkv", jobs=2)


def test_a_segment_that_a_stop_leaves_empty_is_not_kept_as_lost(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = LocalCrew.send

    def stopped_before(self: LocalCrew, worker: int, clip: object, target: Path) -> None:
        self.stop()
        send(self, worker, clip, target)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalCrew, "send", stopped_before)
    with pytest.raises(VsrError):
        _run(source, tmp_path / "out.mkv", jobs=2)
    assert list(tmp_path.iterdir()) == []


# rejected options, and the number of workers that `auto` finds


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"filters": "negate"}, "--jobs: filters"),
        ({"segment": 0}, "--jobs requires segments"),
        ({"passes": 2, "bitrate": 100_000}, "--jobs: --passes 2 requires"),
        ({"jobs": None, "device": "CPU,CPU"}, "requires a single device"),
        ({"jobs": 0}, "jobs is 0"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    tmp_path: Path, source: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        _run(source, tmp_path / "out.mkv", **({"jobs": 2} | options))
    assert list(tmp_path.iterdir()) == []


def _found(most: int, rates: dict[int, float]) -> int:
    """Return the number of workers that `auto` settles on, given {workers: frames per second}."""
    auto, time_, frames = AutoJobs(max_jobs=most), 0.0, 0.0
    while not auto.is_settled and time_ < 1000:
        auto.change(time_, int(frames))
        time_ += 0.1
        frames += 0.1 * rates[auto.jobs]
    return auto.jobs


def test_auto_stops_where_one_more_is_no_quicker() -> None:
    assert _found(8, {1: 10, 2: 19, 3: 26, 4: 26.5, 5: 20}) == 3
    assert _found(2, {1: 10, 2: 19}) == 2
    assert _found(8, {1: 30, 2: 30}) == 1
    assert _found(1, {1: 30}) == 1


def test_auto_ends_with_the_same_bytes(tmp_path: Path, source: Path, alone: Path) -> None:
    assert _run(source, tmp_path / "out.mkv", jobs=None).frames_out == FRAMES
    assert _coded(tmp_path / "out.mkv") == _coded(alone)
