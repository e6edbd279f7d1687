"""Frame times that a container or an encoder reports incorrectly."""

import itertools
import subprocess
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.clips import Clip, make_clip, picture
from tests.facts import contents
from tests.files.test_faithful import upscaled
from tests.programs import FFPROBE, needs_ffprobe
from vsr.media.timestamps import DtsGenerator, MonotonicDts, Packet

STEP = Fraction(1, 25)


def _by_decoding_time(path: Path, b_frames: int, ahead: int = 0, codec: str = "libx264") -> Path:
    """Write 40 frames whose dts is the index in coding order, and whose pts is dts + `ahead`."""
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = 64, 48, "yuv420p"
    context.time_base, context.framerate = STEP, 1 / STEP
    context.options = {"bf": str(b_frames), "b-adapt": "0", "g": "15"}
    context.flags |= av.codec.context.Flags.global_header
    packets = []
    for k in range(40):
        frame = av.VideoFrame.from_ndarray(picture((64, 48), k), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = k, STEP
        packets += context.encode(frame)
    packets += context.encode(None)
    plain = make_clip(path.with_name("plain.mkv"), Clip(audio=(), codec=codec))
    with av.open(str(plain)) as like, av.open(str(path), "w") as out:
        like.streams[0].codec_context.extradata = context.extradata
        stream = out.add_stream_from_template(like.streams[0], opaque=True)
        stream.codec_context.extradata = context.extradata
        for k, packet in enumerate(packets):
            packet.stream, packet.time_base = stream, STEP
            packet.pts, packet.dts, packet.duration = k + ahead, k, 1
            out.mux(packet)
    return path


@pytest.mark.parametrize(
    ("name", "b_frames", "ahead"),
    [("in.mp4", 3, 0), ("in.mp4", 1, 0), ("in.mkv", 2, 0), ("in.mov", 2, 1)],
)
def test_b_frames_with_decoding_times_are_shown_evenly(
    tmp_path: Path, name: str, b_frames: int, ahead: int
) -> None:
    source = _by_decoding_time(tmp_path / name, b_frames, ahead)
    with av.open(str(source)) as container:
        times = [frame.pts for frame in container.decode(video=0)]
    assert times != sorted(times)  # as FFmpeg's decoder reports them
    result, _ = upscaled(source)
    steps = {b - a for a, b in itertools.pairwise(result.pts)}
    assert steps == {STEP}
    assert len(result.pts) == 40


def test_pictures_in_their_own_order_keep_their_times(tmp_path: Path) -> None:
    """Without B-frames such times are correct, and a gap in them is real."""
    times = [0, 40, 80, 120, 400, 440, 480, 520, 560, 600, 900, 940]
    source = make_clip(tmp_path / "in.mkv", Clip(pts=times, audio=(), options={"bf": "0"}))
    result, _ = upscaled(source)
    assert result.pts == [Fraction(t, 1000) for t in times]


@pytest.mark.parametrize("b_frames", [0, 2])
def test_an_avi_with_gaps_keeps_them(tmp_path: Path, b_frames: int) -> None:
    """AVI stores a gap as empty chunks; ffmpeg gives MPEG-4 frames the same times."""
    times = [*range(0, 400, 40), *range(800, 1600, 40)]
    clip = Clip(
        codec="mpeg4", frames=len(times), pts=times, audio=(), options={"bf": str(b_frames)}
    )
    made = make_clip(tmp_path / "made.mkv", clip)
    source = tmp_path / "in.avi"
    with av.open(str(made)) as read, av.open(str(source), "w") as out:
        stream = out.add_stream_from_template(read.streams[0], opaque=True)
        stream.time_base = STEP
        for packet in read.demux():
            if packet.dts is not None or packet.pts is not None:
                packet.stream = stream
                out.mux(packet)
    with av.open(str(source)) as container:
        before = [frame.time for frame in container.decode(video=0)]
    result, _ = upscaled(source)
    assert [float(t) for t in result.pts] == pytest.approx(before)
    assert max(b - a for a, b in itertools.pairwise(before)) > 0.4


def test_a_clock_that_is_set_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system clock steps back an hour at every read; measurements use a monotonic clock."""
    source = make_clip(tmp_path / "in.mp4", Clip(audio=("aac",)))
    looks = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1e9 - 3600.0 * next(looks))
    result, report = upscaled(source)
    assert result.pts == contents(source).pts
    assert report.exit_code == 0
    assert 0 < report.seconds < 600


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_hevc_of_few_frames_is_whole(tmp_path: Path, name: str, frames: int) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=frames, audio=()))
    result, report = upscaled(source, name, codec="hevc")
    assert result.pts == contents(source).pts
    assert report.packets_refused == 0


def _packet(pts: int, dts: int | None) -> Packet:
    packet: Packet = av.Packet(b"x")
    packet.pts, packet.dts, packet.time_base = pts, dts, STEP
    return packet


@pytest.mark.parametrize("undefined", [-(2**62), 2**62, 1_234_567, None])
def test_undefined_coding_times_are_made(undefined: int | None) -> None:
    times = DtsGenerator()
    packets = []
    for pts in (10, 11):
        times.feed(pts)
    for pts in (10, 11):
        packet = _packet(pts, undefined)
        times.correct(packet)
        packets.append((packet.dts, packet.pts))
    assert packets == [(9, 10), (10, 11)]


def test_coding_times_of_b_frames_are_left_alone() -> None:
    times = DtsGenerator()
    for pts in range(4):
        times.feed(pts)
    coded = [(0, -1), (3, 0), (1, 1), (2, 2)]
    packets = [_packet(*each) for each in coded]
    for packet in packets:
        times.correct(packet)
    assert [(p.pts, p.dts) for p in packets] == coded


@pytest.mark.parametrize(
    ("equal", "expected"), [(False, [0, 1, 2, 3, 50]), (True, [0, 0, 0, 2, 50])]
)
def test_decoding_times_rise(equal: bool, expected: list[int]) -> None:
    rising = MonotonicDts(STEP, equal)
    packets = [_packet(t, t) for t in (0, 0, -5, 2, 50)]
    for packet in packets:
        rising.correct(packet)
    assert [p.dts for p in packets] == expected
    assert [p.pts for p in packets] == expected


def _ffprobed(path: Path) -> list[tuple[Fraction, int]]:
    """Return (time reported by ffprobe, luma at the centre) of each frame."""
    words = [FFPROBE, "-v", "error", "-select_streams", "v:0", "-show_entries"]
    words += ["frame=best_effort_timestamp_time", "-of", "csv=p=0", str(path)]
    shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    times = [Fraction(line.strip(",")) for line in shown.split()]
    with av.open(str(path)) as container:
        lights = [
            int(np.from_dlpack(frame.planes[0])[frame.height // 2, frame.width // 2])
            for frame in container.decode(video=0)
        ]
    return list(zip(times, lights, strict=True))


@needs_ffprobe
@pytest.mark.parametrize(
    ("codec", "pixel_format", "size", "rate"),
    [
        ("dvvideo", "yuv420p", (720, 576), Fraction(25)),
        ("dvvideo", "yuv411p", (720, 480), Fraction(30_000, 1001)),
        ("mjpeg", "yuvj420p", (64, 48), Fraction(25)),
    ],
)
def test_an_avi_with_gaps_is_shown_as_ffmpeg_shows_it(
    tmp_path: Path, codec: str, pixel_format: str, size: tuple[int, int], rate: Fraction
) -> None:
    """A recording whose camera dropped frames 3, 4 and 9 is compared frame by frame."""
    source, kept = tmp_path / "in.avi", [0, 1, 2, 5, 6, 7, 8, 10, 11]
    with av.open(str(source), "w") as out:
        stream: Any = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        for k in kept:
            grey = np.full(size[::-1], 40 + 16 * k, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format=pixel_format)
            frame.pts, frame.time_base, frame.color_range = k, 1 / rate, 0
            for packet in stream.encode(frame):
                packet.pts = packet.dts = k
                packet.time_base = 1 / rate
                out.mux(packet)
    before = _ffprobed(source)
    result, report = upscaled(source, "out.mkv", deinterlace="off", codec="ffv1", preset=None)
    after = _ffprobed(tmp_path / "out.mkv")
    assert len(before) == len(after) == report.frames_in == len(kept)
    for (moment, light), (own_moment, own_light) in zip(before, after, strict=True):
        assert abs(moment - own_moment) <= Fraction(1, 1000)  # Matroska's time base
        assert abs(light - own_light) <= 1
    steps = [b - a for (a, _), (b, _) in itertools.pairwise(after)]
    assert [round(step * rate) for step in steps] == [1, 1, 3, 1, 1, 1, 2, 1]
    assert result.size == (2 * size[0], 2 * size[1])
