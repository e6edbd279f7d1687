"""Recordings of a relay: the files after a process is killed or while the disk is full."""

import errno
import os
import signal
import threading
from pathlib import Path

import av
import pytest

from bench.recordings import numbers, writer_of
from tests.rtmp import wait_for
from tests.streams import Marked, RelayProcess, make_marked
from vsr.live.output import recording as recording_module
from vsr.live.output.recording import Recording, unused_path

CLIP = Marked(seconds=8.0, size=(64, 36), sound=None)
HEADER = 2048
"""File size in bytes, larger than a header and smaller than a second of video."""


def _recording(tmp_path: Path, name: str) -> tuple[RelayProcess, Path]:
    clip = make_marked(tmp_path / "in.flv", CLIP)
    return RelayProcess(tmp_path / "relay", str(clip), str(tmp_path / name), "--loop"), (
        tmp_path / name
    )


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("name", ["rec.mp4", "rec.mkv"])
def test_a_killed_process_leaves_a_file_that_plays_to_its_last_second(
    tmp_path: Path, name: str
) -> None:
    relay, path = _recording(tmp_path, name)
    second = path.with_stem(f"{path.stem}-2")
    with relay:
        wait_for(lambda: path.exists() and path.stat().st_size > 3 * HEADER, 40, relay.said)
        before = path.stat().st_size
        os.kill(writer_of(path), signal.SIGKILL)
        wait_for(lambda: second.exists() and second.stat().st_size > HEADER, 40, relay.said)
        relay.process.kill()
    assert path.stat().st_size >= before
    assert len(numbers(path)) > 20
    wait_for(lambda: _plays(second), 20, "the process did not finish what it had")


def _plays(path: Path) -> bool:
    try:
        return len(numbers(path)) > 0
    except av.error.FFmpegError:
        return False


def test_a_finished_mp4_is_an_ordinary_one(tmp_path: Path) -> None:
    relay, path = _recording(tmp_path, "rec.mp4")
    with relay:
        wait_for(lambda: path.exists() and path.stat().st_size > 3 * HEADER, 40, relay.said)
        relay.stop(signal.SIGINT)
    data = path.read_bytes()
    assert b"moov" in data[-len(data) // 2 :]
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.frames > 20  # from the index, which a fragmented file lacks
        assert sum(1 for _ in file.decode(video=0)) == stream.frames


def test_a_recording_waits_for_room_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    room = threading.Event()
    write = os.write

    def full(fd: int, data: memoryview) -> int:
        if len(calls) == 1 and not room.is_set():
            raise OSError(errno.ENOSPC, "no space")
        return write(fd, data[:3])

    def on_full() -> None:
        calls.append("full")
        room.set()

    monkeypatch.setattr(recording_module, "_FULL_DISK_RETRY_S", 0.01)
    monkeypatch.setattr(os, "write", full)
    file = Recording(str(tmp_path / "rec.ts"), on_full)
    assert file.write(b"abcdefgh") == 8
    calls.append("half full")
    assert file.write(b"ijkl") == 4
    assert calls == ["half full", "full"]
    assert (file.tell(), file.seek(0)) == (12, 0)
    monkeypatch.undo()
    file.close()
    assert (tmp_path / "rec.ts").read_bytes() == b"abcdefghijkl"


def test_other_errors_than_a_full_disk_are_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_fd: int, _data: memoryview) -> int:
        raise OSError(errno.EIO, "broken")

    file = Recording(str(tmp_path / "rec.ts"), lambda: None)
    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(OSError, match="broken"):
        file.write(b"a")
    monkeypatch.undo()
    file.discard()
    assert not (tmp_path / "rec.ts").exists()
    file.close()


def test_a_recording_takes_no_others_name(tmp_path: Path) -> None:
    (tmp_path / "rec.ts").touch()
    assert unused_path(str(tmp_path / "rec.ts")) == str(tmp_path / "rec-2.ts")
    with pytest.raises(FileExistsError):
        Recording(str(tmp_path / "rec.ts"), lambda: None)


def test_a_recording_into_a_link_is_where_the_link_points_to(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "rec.ts", tmp_path / "link.ts"
    real.parent.mkdir()
    link.symlink_to(real)
    Recording(unused_path(str(link)), lambda: None).close()
    assert real.exists()
    assert unused_path(str(link)) == str(real.with_name("rec-2.ts"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to(tmp_path / "pipe")
    assert unused_path(str(tmp_path / "to-pipe")) == str(tmp_path / "to-pipe")
