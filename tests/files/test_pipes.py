"""`vsr run - -`: video is read from stdin and written to stdout, without any other output."""

import array
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Final

import av
import pytest

import vsr
from tests.clips import Clip, make_clip
from vsr.errors import UsageError

VSR: Final = (sys.executable, "-m", "vsr", "run", "--model", "bicubic")


def _run(*words: str, data: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([*VSR, *words], input=data, capture_output=True, timeout=60, check=False)


def _streams(data: bytes) -> list[tuple[str, int]]:
    """Return (codec, number of packets) of every stream."""
    with av.open(io.BytesIO(data)) as file:
        counts = [0] * len(file.streams)
        for packet in file.demux():
            counts[packet.stream_index] += packet.size > 0
        names = [s.codec_context.name for s in file.streams if s.codec_context]
    return list(zip(names, counts, strict=True))


def _times(data: bytes) -> list[float]:
    with av.open(io.BytesIO(data)) as file:
        return [round(float(f.time or 0), 3) for f in file.decode(video=0)]


def _until_read(pipe: int) -> None:
    """Wait until the reader of the pipe has read all data in it."""
    waiting = array.array("i", [1])
    while waiting[0]:
        time.sleep(0.1)
        fcntl.ioctl(pipe, termios.FIONREAD, waiting)


PTS: Final = [0, 40, 80, 200, 240, 280]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MKV with audio and a variable frame rate."""
    return make_clip(tmp_path_factory.mktemp("pipes") / "in.mkv", Clip(pts=PTS, frames=6))


@pytest.mark.parametrize("container", ["mkv", "nut", "ts"])
def test_a_video_through_both_pipes(clip: Path, container: str) -> None:
    done = _run("-", "-", "--format", container, "--progress", "json", data=clip.read_bytes())
    assert done.returncode == 0, done.stderr
    (video, frames), (sound, _) = _streams(done.stdout)
    assert (video, frames, sound) == ("h264", 6, "aac")
    assert _times(done.stdout) == pytest.approx(
        [pts / 1000 + _times(done.stdout)[0] for pts in PTS]
    )
    said = [json.loads(line) for line in done.stderr.splitlines() if line.startswith(b"{")]
    assert said[-1]["progress"] == "end"


def test_an_mp4_with_its_index_at_the_end_is_named(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(size=(640, 480), frames=30))
    for name in ("-", "/dev/stdin"):
        done = _run(name, str(tmp_path / "out.mkv"), data=source.read_bytes())
        assert done.returncode == 1
        assert b"with its index at the end, which cannot be read from a pipe" in done.stderr
        assert done.stderr.count(b"\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("name", ["out.mkv", "link.mkv", "out.png"])
def test_a_named_pipe_is_not_replaced(tmp_path: Path, clip: Path, name: str) -> None:
    os.mkfifo(pipe := tmp_path / name.replace("link", "out"))
    if name == "link.mkv":
        (tmp_path / name).symlink_to(pipe)
    done = _run(str(clip), str(tmp_path / name), "-y", "--max-frames", "1")
    assert done.returncode == 1
    assert b"is a pipe or a device" in done.stderr and b"use - as OUTPUT" in done.stderr
    assert pipe.is_fifo()


def test_mkv_is_what_a_pipe_gets_by_itself(clip: Path) -> None:
    done = _run(str(clip), "-")
    assert done.stdout.startswith(b"\x1aE\xdf\xa3")
    assert done.stderr == b""


def test_y4m_is_pictures_for_any_program(clip: Path) -> None:
    done = _run(str(clip), "-", "-f", "y4m")
    assert done.returncode == 0
    head, *pictures = done.stdout.split(b"FRAME\n")
    assert head.startswith(b"YUV4MPEG2 W128 H96 ")
    assert [len(picture) for picture in pictures] == [128 * 96 * 3 // 2] * 6
    back = _run("-", "-", "-f", "y4m", data=done.stdout)
    assert back.stdout.startswith(b"YUV4MPEG2 W256 H192 ")
    assert back.stdout.count(b"FRAME\n") == 6
    assert b"left out" in done.stderr  # the audio


@pytest.mark.parametrize("ending", ["nut", "y4m"])
def test_files_of_the_same_containers(tmp_path: Path, clip: Path, ending: str) -> None:
    report = vsr.upscale(clip, tmp_path / f"out.{ending}", model="bicubic")
    assert (report.frames_out, report.lost) == (6, 0)


def test_a_reader_that_leaves_is_told_in_a_line(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(size=(160, 96), frames=400, audio=()))
    with subprocess.Popen(
        [*VSR, str(source), "-", "-f", "y4m"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1000)
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(30) == 1
    assert said.splitlines()[-1].startswith(b"vsr: error: stdout was closed by the reader (")


def test_ctrl_c_while_nothing_comes_through_stdin() -> None:
    with subprocess.Popen(
        [*VSR, "-", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(b"\x1aE\xdf\xa3")
        process.stdin.flush()
        _until_read(process.stdin.fileno())
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"stopped while stdin was being opened" in process.stderr.read()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-", "-", "-f", "mp4"], b"'mp4' cannot be written to a pipe; use one of mkv, nut"),
        (["-", "-", "--bitrate", "1M", "--passes", "2"], b"stdin can be read only once"),
    ],
)
def test_what_cannot_be_piped(words: list[str], complaint: bytes) -> None:
    done = _run(*words, data=b"nothing")
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == b""


def test_nonsense_through_stdin() -> None:
    done = _run("-", "-", data=os.urandom(5000))
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.count(b"\n") == 1
    assert b"stdin" in done.stderr


def test_from_python_into_a_descriptor(clip: Path) -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe:
        report = vsr.upscale(clip, f"pipe:{write}", model="bicubic", container="nut")
        os.close(write)
        assert _streams(pipe.read())[0] == ("h264", 6)
    assert report.output["name"] == "stdout"
    with pytest.raises(UsageError, match="cannot be written to a pipe"):
        vsr.upscale(clip, "pipe:1", model="bicubic", container="mov")
