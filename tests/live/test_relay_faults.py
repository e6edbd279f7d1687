"""Unusual, damaged or missing sources of `vsr relay`: clear messages, and no hangs."""

import contextlib
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import pytest
from click.testing import CliRunner

from tests.programs import needs_nginx
from tests.rtmp import FPS, Server, free_port, wait_for
from tests.streams import ROOT, Marked, Publisher, Recorder, RelayProcess, make_marked
from vsr.cli.main import main

START = 40.0
"""Longest wait for a process to start on a busy machine, in seconds."""
MUTANTS = 200 if os.environ.get("VSR_ALL_FUZZ") == "1" else 50


def _await_end(relay: RelayProcess) -> None:
    """Wait for a relay that ends by itself."""
    relay.process.wait(START)
    assert "Traceback" not in relay.said


CLIPS = {
    "usual": (Marked(seconds=2), (320, 180)),
    "without sound": (Marked(seconds=2, sound=None), (320, 180)),
    "hevc": (Marked(seconds=2, codec="libx265"), (320, 180)),
    "begins late": (Marked(seconds=2, size=(162, 92), start_s=30), (324, 184)),
    "mp3": (Marked(seconds=2, sound="libmp3lame", rate=44_100), (320, 180)),
}


def test_files_go_to_their_ends_at_their_own_pace(tmp_path: Path) -> None:
    clips = {name: make_marked(tmp_path / f"{name}.flv", clip) for name, (clip, _) in CLIPS.items()}
    targets = {name: tmp_path / f"{name}.mkv" for name in clips}
    with contextlib.ExitStack() as stack:
        relays = {
            name: stack.enter_context(
                RelayProcess(tmp_path / name, str(clip), str(targets[name]), "--realtime")
            )
            for name, clip in clips.items()
        }
        for relay in relays.values():
            _await_end(relay)
    for name, (_, size) in CLIPS.items():
        relay = relays[name]
        assert relay.process.returncode == 0, relay.said
        assert relay.said.strip().endswith(f"{name}.flv ended")
        frames = relay.report["frames"]
        assert (frames["in"], frames["out"], frames["dropped"]) == (2 * FPS, 2 * FPS, 0)
        assert 0.5 * FPS < relay.report["fps"] < 1.15 * FPS  # includes the end, on a busy machine
        assert relay.report["live"]["nudged"] == 0
        with av.open(str(targets[name])) as out:
            context = out.streams.video[0].codec_context
            assert (context.width, context.height) == size
            assert [s.codec_context.name for s in out.streams.audio] == ["aac"]  # silent or not


def test_a_picture_of_odd_size_is_doubled(tmp_path: Path) -> None:
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("ffv1", rate=FPS)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 161, 91, "yuv420p"
        for _ in range(FPS):
            out.mux(stream.encode(av.VideoFrame(161, 91, "yuv420p")))
        out.mux(stream.encode(None))
    with RelayProcess(tmp_path, str(source), str(target)) as relay:
        _await_end(relay)
    assert relay.process.returncode == 0, relay.said
    assert relay.report["output"]["size"] == [322, 182]
    assert relay.report["frames"]["out"] == FPS


def test_a_truncated_file_is_relayed_as_far_as_it_goes(tmp_path: Path) -> None:
    source = make_marked(tmp_path / "in.flv", Marked(seconds=4))
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with RelayProcess(tmp_path, str(source), str(tmp_path / "out.mkv"), "--realtime") as relay:
        _await_end(relay)
    assert relay.process.returncode == 3
    assert "in.flv ended; the file is cut off: about" in relay.said
    assert FPS < relay.report["frames"]["out"] < 3 * FPS


def test_what_cannot_be_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "notes.flv").write_text("no video at all\n" * 100)
    target, nowhere = str(tmp_path / "out.mkv"), "rtmp://127.0.0.1/live/k3y"
    refused = f"rtmp://127.0.0.1:{free_port()}/live/k3y"
    with contextlib.ExitStack() as stack:
        garbage = f"rtmp://127.0.0.1:{stack.enter_context(_garbage())}/live/k3y"
        cases = {
            "no such file": (1, str(tmp_path / "none.flv"), target),
            "has no video that can be decoded (it holds audio)": (1, _sound_only(tmp_path), target),
            "is not a video": (1, str(tmp_path / "notes.flv"), target),
            "Connection refused; stopped after attempt 2": (1, refused, target, "--retry-max", "2"),
            "cannot open rtmp://": (1, garbage, target, "--retry-max", "1"),
            "cannot publish to gopher://; use one of rtmp://": (2, nowhere, "gopher://host/k3y"),
            "nor a file whose name ends in one of .mp4": (2, nowhere, str(tmp_path / "out.txt")),
            "unknown model 'x'": (2, nowhere, target, "--model", "x"),
            "unknown codec 'x'": (2, nowhere, target, "--codec", "x"),
        }
        usual = ("relay", "--model", "bicubic", "--retry-delay", "0.1")
        ends = [CliRunner().invoke(main, [*usual, *words]) for _, *words in cases.values()]
    for end, (words, (code, *_)) in zip(ends, cases.items(), strict=True):
        last = end.stderr.strip().splitlines()[-1]
        assert end.exit_code == code, end.stderr
        assert last.startswith("vsr: error: ")
        assert words in last
        assert "k3y" not in end.output


def _lacks_srt() -> bool:
    try:
        av.open("srt://", "r").close()
    except av.error.ProtocolNotFoundError:
        return True
    except (av.error.FFmpegError, OSError):
        pass
    return False


@pytest.mark.skipif(not _lacks_srt(), reason="this FFmpeg has srt")
def test_srt_is_refused_where_ffmpeg_has_none() -> None:
    """Otherwise the relay would retry forever."""
    here, there = "srt://127.0.0.1:9?passphrase=k3y", "rtmp://127.0.0.1:1/live/k3y"
    for words in ((here, there), (there, there + "2", here)):
        end = CliRunner().invoke(main, ["relay", "--model", "bicubic", *words])
        assert end.exit_code == 2, end.stderr
        assert end.stderr.startswith(
            "vsr: error: this FFmpeg does not support srt: use another protocol"
        )
        assert end.stderr.count("\n") == 1
        assert "k3y" not in end.output


class _garbage:  # noqa: N801 - used like a function
    """A port that sends noise to every client."""

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        noise = random.Random(1).randbytes(100_000)
        while True:
            try:
                visitor, _ = self._listener.accept()
                with visitor:
                    visitor.sendall(noise)
            except OSError:
                return


def _sound_only(folder: Path, seconds: float = 1) -> str:
    whole = make_marked(folder / "a.flv", Marked(seconds=seconds, fps=5))
    path = folder / "sound.flv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return str(path)


@needs_nginx
def test_streams_without_picture_or_sound(tmp_path: Path) -> None:
    """HEVC arrives without video too: this server forwards only older codecs."""
    clips = {
        "sound": Path(_sound_only(tmp_path, 30)),
        "video": make_marked(tmp_path / "video.flv", Marked(seconds=30, sound=None, gop_s=2)),
        "hevc": make_marked(tmp_path / "hevc.flv", Marked(seconds=30, codec="libx265", fps=5)),
    }
    with Server(tmp_path / "nginx") as server:
        relays = {
            name: RelayProcess(tmp_path / name, server.url(name), server.url(f"{name}-out"))
            for name in clips
        }
        viewers = {name: Recorder(server.url(f"{name}-out")) for name in clips}
        publishers = {name: Publisher(server.url(name), clips[name]) for name in clips}
        try:
            viewer = viewers["video"]
            wait_for(lambda: len(viewer.of("video")) > FPS, START, relays["video"].said)
            for name in ("sound", "hevc"):
                relays[name].await_words("(it holds audio); retrying", START)
            assert all(relay.stop() < 2 for relay in relays.values())
        finally:
            for thing in (*relays.values(), *viewers.values(), *publishers.values()):
                thing.__exit__()
    assert [relay.process.returncode for relay in relays.values()] == [130] * 3
    assert [relay.report["frames"]["in"] > 0 for relay in relays.values()] == [False, True, False]
    assert viewer.audio in (None, ("aac", 48_000))  # silence, if the viewer detected it
    numbers = [number for number, _ in viewer.shown()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_transport_stream_changes_its_size_on_the_way(tmp_path: Path) -> None:
    """HEVC over UDP, which does not signal its end."""
    after = Marked(seconds=2, size=(320, 180), first=200, start_s=4, codec="libx265")
    clips = [
        make_marked(tmp_path / "1.ts", Marked(seconds=4, codec="libx265")),
        make_marked(tmp_path / "2.ts", after),
    ]
    port, target = free_port(), tmp_path / "out.mkv"
    url = f"udp://127.0.0.1:{port}"
    with RelayProcess(tmp_path, url, str(target), "--stream-timeout", "1") as r:
        bound = f":{port:04X} "
        wait_for(lambda: bound in Path("/proc/net/udp").read_text(), START, r.said)
        with Publisher(url, *clips) as publisher:
            publisher.process.wait(START)  # on a busy machine it may pause for a second, too
            r.await_words("sent no data for 1 s; repeating the last frame", START)
        time.sleep(1)
        assert r.stop() < 15
    assert r.process.returncode == 130
    assert "changes size to 320x180 mid-stream: its frames are resized to 160x90" in r.said
    report = r.report
    events = [row["event"] for row in report["ledger"]]
    assert events.count("resized") == 2 * FPS
    assert f"{2 * FPS} frames had another size and were resized" in report["notes"]
    assert 0.5 * report["frames"]["in"] < report["frames"]["out"]  # all, if fast enough
    assert report["live"]["repeated"] > FPS / 2
    with av.open(str(target)) as out:
        pictures = list(out.decode(video=0))
    assert {(p.width, p.height) for p in pictures} == {(320, 180)}
    times = [p.time for p in pictures if p.time is not None]
    assert all(a < b for a, b in itertools.pairwise(times))


@needs_nginx
def test_a_network_too_heavy_gives_way_in_time(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=30, size=(320, 180), fps=30))
    with (
        Server(tmp_path / "nginx") as server,
        RelayProcess(
            tmp_path, server.url("in"), server.url("out"),
            "--ladder", "c-dcscn", "--max-latency", "1500", model="carn-m",
        ) as relay,
        Recorder(server.url("out")) as viewer,
        Publisher(server.url("in"), clip),
    ):  # fmt: skip
        wait_for(lambda: len(viewer.of("video")) > 8 * 30, START, relay.said)
        assert relay.stop() < 15
        viewer.stop()
    report = relay.report
    rungs = [row["rung"] for row in report["ledger"]]
    assert report["output"]["rungs"] == ["carn-m", "c-dcscn", "bicubic"]
    assert rungs[-1] != "carn-m"
    assert report["live"]["rung_changes"] <= 3
    assert report["frames"]["dropped"] <= 0.2 * len(rungs)
    times = [at for _, at in viewer.shown()]
    assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(30, rel=0.2)


def _mutants(*valid: bytes) -> list[bytes]:
    """Return files with changed bytes, repeated or removed blocks, or a truncated end."""
    dice = random.Random(5)
    found = []
    for k in range(MUTANTS):
        data = bytearray(valid[k % len(valid)])
        for _ in range(dice.choice((1, 3, 30))):
            at, length = dice.randrange(len(data)), dice.randrange(1, 2000)
            way = dice.randrange(4)
            if way == 0:
                data[at] ^= 1 << dice.randrange(8)
            elif way == 1:
                data[at : at + 8] = dice.randbytes(8)
            elif way == 2:
                data[at:at] = data[at : at + length]
            else:
                del data[at : at + length // 4]
        if k % 5 == 0:
            del data[dice.randrange(len(data)) :]
        found.append(bytes(data))
    return found


READ_ALL = """
import json, sys, time
from pathlib import Path
from vsr.errors import InputError
from vsr.media.frame import Frame
from vsr.live.audio import OutputAudio
from vsr.live.clock import OutputClock
from vsr.live.input.fit import Canvas
from vsr.live.input.source import LiveSource
from vsr.media.colour import Colour

CANVAS = Canvas(size=(160, 90), colour=Colour(), sample_aspect=None)
for path in sorted(Path(sys.argv[1]).iterdir()):
    began, frames, clock, last = time.monotonic(), 0, OutputClock(0.04), -1.0
    try:
        source = LiveSource(str(path), 1.0, CANVAS)
        sound = OutputAudio(source.audio.codec_context) if source.audio else None
        for item in source:
            if isinstance(item, Frame):
                assert item.planes[0].shape == (90, 160)
                frames += 1
                time_ = clock.place_frame(item.time, frames * 0.04)
                assert time_ > last
                last = time_
            elif sound and item.stream is source.audio and item.pts is not None:
                at = clock.place_audio(float(item.pts * item.time_base))
                for packet in sound.convert(item, at) if at is not None else ():
                    pass
        source.close()
        why = "; ".join(source.losses.notes.values())
    except InputError as exc:
        why = str(exc)
    print(json.dumps([path.name, frames, time.monotonic() - began, why]), flush=True)
"""


def test_no_damaged_file_ends_or_holds_up_the_reader(tmp_path: Path) -> None:
    kinds = (Marked(seconds=1.2, b_frames=1), Marked(seconds=1.2, sound="libmp3lame", rate=44_100))
    valid = [make_marked(tmp_path / f"{k}.flv", kind) for k, kind in enumerate(kinds)]
    folder = tmp_path / "mutants"
    folder.mkdir()
    for k, data in enumerate(_mutants(*(path.read_bytes() for path in valid))):
        (folder / f"{k:03}.flv").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    after = rows[-1] if rows else "nothing"
    assert done.returncode == 0, f"after {after}: {done.stderr[-2000:]}"
    assert len(rows) == MUTANTS
    slow = [row for row in rows if row[2] > 20]
    assert slow == []
    assert sum(row[1] > 0 for row in rows) > MUTANTS / 2
    assert sum(bool(row[3]) for row in rows) > MUTANTS / 4
    assert not any("\n" in row[3] for row in rows)
