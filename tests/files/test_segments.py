"""Runs in segments: the output equals that of one run, and no finished work is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

import vsr
from tests.clips import Clip, make_clip
from tests.facts import contents
from vsr.errors import OutputError, UsageError, VsrError
from vsr.media.source import Source

ROOT = Path(__file__).parents[2]
FRAMES, RATE = 60, 25
SECONDS = 0.4
"""Length of a segment, in seconds: 10 frames."""
SOURCE = Clip(
    frames=FRAMES,
    audio=("aac", "libopus"),
    subtitles="srt",
    chapters=((0.0, 1.0, "one"), (1.0, 2.4, "two")),
)
Packets = list[tuple[int, bytes]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("segments") / "in.mkv", SOURCE)


def _run(source: Path, target: Path, **options: object) -> vsr.Report:
    options = {"model": "bicubic", "preset": "ultrafast", "segment": SECONDS} | options
    return vsr.upscale(source, target, **options)  # type: ignore[arg-type]


def _packets(path: Path) -> Packets:
    """Return (pts, bytes) of every video packet."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        return [(p.pts or 0, bytes(p)) for p in container.demux(video) if p.size]


def _coded(path: Path) -> list[bytes]:
    return [packet[1] for packet in _packets(path)]


def _folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.vsr")


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> Path:
    """The output of one run in segments."""
    target = source.with_name("undisturbed.mkv")
    assert _run(source, target).exit_code == 0
    return target


# the output equals that of a run without segments


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.mkv", {"preset": "veryfast"}),  # with B frames
        ("out.mp4", {"preset": "veryfast"}),
        ("out.mp4", {"codec": "hevc"}),
        ("out.mp4", {"codec": "av1", "preset": "12"}),
        ("out.webm", {"preset": "8"}),
        ("out.mkv", {"codec": "ffv1", "preset": None}),
        ("out.ts", {}),
        ("out.flv", {}),
        ("out.mov", {"start_frame": 7, "max_frames": 33, "preset": "veryfast"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_times_and_other_streams_are_those_of_one_run(
    tmp_path: Path, source: Path, name: str, options: dict[str, object]
) -> None:
    plain, cut = tmp_path / f"plain-{name}", tmp_path / f"cut-{name}"
    _run(source, plain, segment=0, **options)
    report = _run(source, cut, **options)
    expected = options.get("max_frames", FRAMES)
    assert (report.frames_in, report.frames_out, report.exit_code) == (expected, expected, 0)
    before, after = contents(plain), contents(cut)
    assert after == before
    assert [packet[0] for packet in sorted(_packets(cut))] == [
        packet[0] for packet in sorted(_packets(plain))
    ]
    assert {p.name for p in tmp_path.iterdir()} == {plain.name, cut.name}


def test_segments_begin_with_key_frames_and_need_no_other(source: Path, undisturbed: Path) -> None:
    with av.open(str(undisturbed)) as container:
        video = container.streams.video[0]
        keys = [p.pts * p.time_base for p in container.demux(video) if p.size and p.is_keyframe]
    assert set(keys) >= {Fraction(10 * k, RATE) for k in range(FRAMES // 10)}


def test_two_runs_write_the_same_bytes(tmp_path: Path, source: Path, undisturbed: Path) -> None:
    _run(source, tmp_path / "out.mkv")
    assert _coded(tmp_path / "out.mkv") == _coded(undisturbed)


def test_an_output_whose_name_ffmpeg_takes_for_a_url_is_joined_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=12))
    monkeypatch.chdir(tmp_path)
    _run(source, Path("12:30.mp4"), segment=0.2)
    assert len(_packets(tmp_path / "12:30.mp4")) == 12


def test_times_before_zero_and_uneven_ones_are_kept(tmp_path: Path) -> None:
    times = [0, 20, 50, 120, 130, 200, 333, 340, 500, 510, 700, 901]
    source = make_clip(tmp_path / "in.mp4", Clip(pts=times, start=1.3))
    _run(source, tmp_path / "out.mp4", segment=0.12)
    assert contents(tmp_path / "out.mp4").pts == contents(source).pts


# no finished work is lost


def _killed_after(source: Path, target: Path, segments: int) -> int:
    """Kill the command once `segments` segments are done; return the number that is done then."""
    command = [sys.executable, "-m", "vsr", "run", source, target, "--model", "bicubic"]
    command += ["--preset", "ultrafast", "--segment", SECONDS]
    journal = _folder(target) / "journal.jsonl"
    with subprocess.Popen(list(map(str, command)), cwd=ROOT) as run:
        while run.poll() is None and _lines(journal) <= segments:
            time.sleep(0.002)
        run.kill()
    assert run.returncode == -signal.SIGKILL, "it was done before it could be killed"
    return _lines(journal) - 1


def _lines(journal: Path) -> int:
    return len(journal.read_text("utf-8").splitlines()) if journal.exists() else 0


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(size=(160, 120), frames=200))
    once, target = tmp_path / "once.mkv", tmp_path / "out.mkv"
    _run(source, once)
    done = [_killed_after(source, target, segments) for segments in (2, 8)]
    assert done == sorted(done) and done[-1] < 20
    report = _run(source, target)
    assert (report.frames_in, report.frames_out) == (200, 200)
    assert report.taken_over == 10 * done[-1]
    assert _coded(target) == _coded(once)
    assert contents(target) == contents(once)
    assert not _folder(target).exists()


def _stopped_at(frames: int) -> dict[str, object]:
    """Return options that stop a run once `frames` frames are done."""
    stop = threading.Event()

    def on_progress(progress: vsr.Progress) -> None:
        if progress.frames == frames:
            stop.set()

    return {"on_progress": on_progress, "stop": stop}


def test_a_stopped_run_leaves_a_playable_file_and_goes_on(
    tmp_path: Path, source: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.mkv"
    slow = Source.__init__

    def opened_slowly(self: Source, *arguments: Any) -> None:
        time.sleep(0.3)  # a stop is polled every 0.1 s
        slow(self, *arguments)

    monkeypatch.setattr(Source, "__init__", opened_slowly)
    report = _run(source, target, **_stopped_at(13))
    assert report.exit_code == 130
    assert 13 <= report.frames_out < FRAMES
    assert contents(target).frames == report.frames_out
    assert "Run the same command to resume" in report.closing_words()[0]
    report = _run(source, target)  # without `overwrite`
    assert report.exit_code == 0
    assert report.taken_over >= 10
    assert _coded(target) == _coded(undisturbed)


def test_a_file_that_was_changed_after_a_stopped_run_is_not_replaced(
    tmp_path: Path, source: Path
) -> None:
    target = tmp_path / "out.mkv"
    _run(source, target, **_stopped_at(13))
    target.write_bytes(b"something of mine")
    with pytest.raises(OutputError, match="the output exists"):
        _run(source, target)
    assert target.read_bytes() == b"something of mine"


@pytest.fixture
def stopped(tmp_path: Path, source: Path) -> Iterator[Path]:
    """The output of a run that was stopped after its first segment."""
    target = tmp_path / "out.mkv"
    _run(source, target, **_stopped_at(13))
    yield target


def _shortened(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _with_a_bit_flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_run_in_one_go_leaves_nothing_of_the_one_before(source: Path, stopped: Path) -> None:
    assert _folder(stopped).exists()
    report = _run(source, stopped, segment=0, restart=True)
    assert report.frames_out == FRAMES
    assert not _folder(stopped).exists()


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("options", [{}, {"passes": 2, "bitrate": 50_000}])
def test_a_run_in_one_go_does_not_delete_what_another_run_has_done(
    tmp_path: Path, stopped: Path, killed: bool, options: dict[str, object]
) -> None:
    other = make_clip(tmp_path / "other.mkv", Clip(frames=3))
    if killed:
        stopped.unlink()
    files = {file: file.read_bytes() for file in (*_folder(stopped).glob("*.*"), other)}
    with pytest.raises(UsageError, match=r"contains \d+ finished frames of another run.*--restart"):
        _run(other, stopped, segment=None, **options)
    assert {file: file.read_bytes() for file in files} == files
    assert stopped.exists() is not killed
    assert _run(other, stopped, segment=None, overwrite=True, **options).frames_out == 3
    assert not _folder(stopped).exists()


@pytest.mark.parametrize("damage", [_shortened, _with_a_bit_flipped, Path.unlink])
def test_a_damaged_segment_is_made_anew(
    source: Path, stopped: Path, undisturbed: Path, damage: Callable[[Path], None]
) -> None:
    damage(_folder(stopped) / "000000.nut")
    report = _run(source, stopped)
    assert report.taken_over == 0
    assert _coded(stopped) == _coded(undisturbed)


def test_a_journal_whose_last_line_is_cut_off_counts_up_to_there(
    source: Path, stopped: Path, undisturbed: Path
) -> None:
    journal = _folder(stopped) / "journal.jsonl"
    lines = [line for line in journal.read_text("utf-8").splitlines() if "interrupted" not in line]
    journal.write_text("\n".join(lines)[:-20], "utf-8")
    stopped.unlink()
    _run(source, stopped)
    assert _coded(stopped) == _coded(undisturbed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": 3}, "scale was 2 and is now 3"),
        ({"crf": 30}, "crf was not set and is now 30"),
        ({"encoder_options": {"g": "9"}}, "g was not set and is now 9"),
        ({"segment": 0.8}, "frames per segment was 10 and is now 20"),
        ({"audio": "none"}, "audio was copy and is now none"),
    ],
)
def test_other_settings_are_refused_in_words_until_told_to_begin_anew(
    source: Path, stopped: Path, options: dict[str, object], words: str
) -> None:
    done = {file.name: file.read_bytes() for file in _folder(stopped).glob("*.*")}
    with pytest.raises(UsageError, match=f"{words}.*--restart"):
        _run(source, stopped, **options)
    assert "000000.nut" in done
    assert {file.name: file.read_bytes() for file in _folder(stopped).glob("*.*")} == done
    report = _run(source, stopped, restart=True, overwrite=True, **options)
    assert (report.taken_over, report.frames_out) == (0, FRAMES)


def test_an_input_that_has_changed_is_refused(tmp_path: Path, source: Path) -> None:
    mine = tmp_path / "mine.mkv"
    mine.write_bytes(source.read_bytes())
    target = tmp_path / "out.mkv"
    _run(mine, target, **_stopped_at(13))
    then = mine.stat()
    os.utime(mine, ns=(1, 1))
    with pytest.raises(UsageError, match="the input has changed; use the same input"):
        _run(mine, target)
    os.utime(mine, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert _run(mine, target).taken_over >= 10  # the refusal deleted nothing


def test_a_second_run_into_the_same_output_is_refused(tmp_path: Path, source: Path) -> None:
    target, errors = tmp_path / "out.mkv", []

    def on_progress(progress: vsr.Progress) -> None:
        if progress.frames == 5:
            with pytest.raises(UsageError, match="another process is writing") as caught:
                _run(source, target)
            errors.append(caught)

    assert _run(source, target, on_progress=on_progress).exit_code == 0
    assert len(errors) == 1


def test_a_run_goes_on_when_a_full_disk_has_room_again(
    small_disk: Path, source: Path, undisturbed: Path
) -> None:
    ballast, target = small_disk / "ballast", small_disk / "out.mkv"
    ballast.write_bytes(bytes(170 * 1024))
    with pytest.raises(OutputError, match="disk is full"):
        _run(source, target)
    assert not target.exists()
    ballast.unlink()
    report = _run(source, target)
    assert report.exit_code == 0
    assert _coded(target) == _coded(undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


# when segments are used


def test_short_videos_are_written_in_one_go(tmp_path: Path, source: Path) -> None:
    seen: list[bool] = []
    target = tmp_path / "out.mkv"
    _run(source, target, segment=None, on_progress=lambda _: seen.append(_folder(target).exists()))
    assert set(seen) == {False}


def test_a_minute_of_video_is_cut(tmp_path: Path) -> None:
    source = make_clip(
        tmp_path / "in.mkv", Clip(size=(32, 32), frames=61, rate=Fraction(1), audio=())
    )
    seen: list[bool] = []
    target = tmp_path / "out.mkv"
    _run(source, target, segment=None, on_progress=lambda _: seen.append(_folder(target).exists()))
    assert seen[0] and len(seen) == 62
    assert contents(target).frames == 61


def test_a_minute_of_what_no_segment_holds_is_written_in_one_go(tmp_path: Path) -> None:
    source = make_clip(
        tmp_path / "in.mkv", Clip(size=(32, 32), frames=61, rate=Fraction(1), audio=())
    )
    _run(source, tmp_path / "out.mov", segment=None, codec="prores", preset=None)
    assert contents(tmp_path / "out.mov").frames == 61


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("out.gif", {}, "only a video file"),
        ("out.y4m", {"preset": None}, "cannot be divided into segments"),
        (
            "out.mov",
            {"preset": None, "codec": "prores"},
            "video of prores_ks cannot be divided into segments",
        ),
        ("out.mkv", {"passes": 2, "bitrate": 100_000}, "--passes 2 requires"),
    ],
)
def test_what_cannot_be_cut_is_said_where_it_was_asked_for(
    tmp_path: Path, source: Path, name: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(VsrError, match=f"--segment: .*{words}"):
        _run(source, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_nonsense_is_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match="segment is"):
        vsr.RunSettings(segment=seconds)
