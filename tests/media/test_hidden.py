"""Tests that what an MP4 hides before its start is not played from other containers."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

import vsr
from tests.clips import Clip, make_clip
from vsr.compare.compare import compare
from vsr.media.timestamps import Packet

OTHERS = (".mkv", ".ts", ".flv", ".nut")
TRIM = Fraction(7, 10)


def _trimmed(path: Path, second_video: bool = False) -> Path:
    """Write an MP4 whose edit list hides its first part, as `ffmpeg -ss T -c copy` does."""
    whole = make_clip(path.with_name("whole.mp4"), Clip(frames=50, options={"bf": "0"}))
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        taken = [*source.streams, *(source.streams.video if second_video else ())]
        copies = [out.add_stream_from_template(stream) for stream in taken]
        for packet in source.demux():
            if packet.pts is None or packet.dts is None or packet.time_base is None:
                continue
            ticks = round(TRIM / packet.time_base)
            for stream, copy in zip(taken, copies, strict=True):
                if stream is packet.stream:
                    again: Packet = av.Packet(bytes(packet))
                    again.pts, again.dts = packet.pts - ticks, packet.dts - ticks
                    again.time_base, again.duration = packet.time_base, packet.duration
                    again.is_keyframe, again.stream = packet.is_keyframe, copy
                    out.mux_one(again)
    return path


def _starts(path: Path) -> list[Fraction]:
    """Return the time of the first frame of each stream."""
    starts = []
    with av.open(str(path)) as container:
        count = len(container.streams)
    for index in range(count):
        with av.open(str(path)) as container:
            frame = next(iter(container.decode(container.streams[index])))
            starts.append(frame.pts * frame.time_base)
    return starts


def _samples(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


def _upscaled(source: Path, ending: str, **options: str) -> Path:
    target = source.with_name(f"out{ending}")
    preset = "8" if ending == ".webm" else "ultrafast"
    vsr.upscale(source, target, model="bicubic", preset=preset, **options)  # type: ignore[arg-type]
    return target


@pytest.mark.parametrize("audio", ["copy", "encode"])
@pytest.mark.parametrize("ending", [*OTHERS, ".webm", ".mp4", ".mov"])
def test_hidden_sound_stays_hidden(tmp_path: Path, ending: str, audio: str) -> None:
    source = _trimmed(tmp_path / "in.mp4")
    target = _upscaled(source, ending, audio=audio)
    assert _starts(source)[0] == 0
    assert _starts(target)[0] == 0
    assert abs(_starts(target)[1]) < Fraction(1024, 48000) + Fraction(1, 500)
    assert abs(_samples(target) - _samples(source)) <= 2 * 1024


@pytest.mark.parametrize("ending", [".mkv", ".nut"])
def test_every_frame_keeps_its_time(tmp_path: Path, ending: str) -> None:
    source = make_clip(tmp_path / "in.mp4")
    target = _upscaled(source, ending)
    assert _starts(target) == [0, 0]
    assert len(compare([source, target]).rows) == 12


@pytest.mark.parametrize("ending", OTHERS)
def test_hidden_pictures_of_a_copied_video_do_not_move_the_others(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = _trimmed(tmp_path / "in.mp4", second_video=True)
    target = _upscaled(source, ending)
    assert _starts(target)[0] == 0
    assert "video #2: the pictures that the input hides" in caplog.text
    with av.open(str(target)) as container:
        stream = container.streams.video[1]
        times = [frame.pts * frame.time_base for frame in container.decode(stream)]
    assert len(times) == 50
    assert sum(time < Fraction(1, 50) for time in times) == 19  # 18 hidden ones and the first
    assert abs(times[-1] - Fraction(31, 25) - Fraction(1, 50)) < Fraction(1, 40)


@pytest.mark.parametrize(("ending", "kept"), [(".mkv", True), (".webm", True), (".nut", False)])
def test_opus_delay_is_kept_where_the_container_hides_it(
    tmp_path: Path, ending: str, kept: bool
) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=50, audio=("libopus",)))
    target = _upscaled(source, ending)
    assert _starts(target)[0] == 0
    with av.open(str(target)) as after, av.open(str(source)) as before:
        ours, theirs = (
            [bytes(packet) for packet in each.demux(audio=0) if packet.size]
            for each in (after, before)
        )
    assert ours == (theirs if kept else theirs[1:])
