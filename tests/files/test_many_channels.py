"""Sound of many channels: PyAV crashes on planar frames of eight, and containers differ."""

import subprocess
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.clips import picture
from tests.files.test_faithful import upscaled
from tests.programs import FFMPEG, needs_ffmpeg
from vsr.live.input.source import LiveSource
from vsr.media.channel_layout import can_decode, layout_of

RATE = 48_000
TONES = (300, 500, 700, 60, 900, 1100, 1300, 1500)
"""Frequency of each channel of 7.1, in hertz; the fourth holds low frequencies only."""


def _tones(channels: int) -> "np.ndarray[Any, Any]":
    """Return a second of sound, [samples, channels]."""
    t = np.arange(RATE)[:, None] / RATE
    return np.asarray(0.2 * np.sin(2 * np.pi * t * np.resize(TONES, channels)), np.float32)


def _with_sound(path: Path, codec: str, layout: str) -> Path:
    """Write a second of video, with a tone of its own in each channel."""
    form, scale = ("flt", 1.0) if codec == "pcm_f32le" else ("s16", 2.0**15)
    samples = (_tones(av.AudioLayout(layout).nb_channels) * scale).astype(
        np.float32 if form == "flt" else np.int16
    )
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = out.add_stream(codec, rate=RATE, layout=layout)
        for k in range(25):
            frame = av.VideoFrame.from_ndarray(picture((64, 48), k), format="rgb24")
            out.mux(video.encode(frame.reformat(format="yuv420p")))
        out.mux(video.encode(None))
        tone = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format=form, layout=layout)
        tone.sample_rate, tone.pts, tone.time_base = RATE, 0, Fraction(1, RATE)
        out.mux(sound.encode(tone))
        out.mux(sound.encode(None))
    return path


def _heard(path: Path) -> list[float]:
    """Return the strongest frequency of each channel, in hertz."""
    resampler = av.AudioResampler(format="flt")
    with av.open(str(path)) as container:
        frames = [f for whole in container.decode(audio=0) for f in resampler.resample(whole)]
    channels = len(TONES)
    parts = [frame.to_ndarray().reshape(-1, channels) for frame in frames]
    samples = np.concatenate(parts)[RATE // 4 : 3 * RATE // 4]
    loudest = np.abs(np.fft.rfft(samples, axis=0)).argmax(axis=0)
    return [float(k) * RATE / len(samples) for k in loudest]


@pytest.mark.parametrize("codec", ["flac", "pcm_s16le", "pcm_f32le"])
@pytest.mark.parametrize("layout", ["7.1", "7.1(wide)"])
@pytest.mark.parametrize("ending", ["ts", "3gp"])
def test_eight_channels_become_aac(tmp_path: Path, codec: str, layout: str, ending: str) -> None:
    source = _with_sound(tmp_path / "in.mkv", codec, layout)
    _, report = upscaled(source, f"out.{ending}")
    assert report.exit_code == 0
    heard = _heard(tmp_path / f"out.{ending}")
    if layout == "7.1":
        assert heard == pytest.approx(TONES, abs=3)


def _samples(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return b"".join(bytes(p) for p in container.demux(audio=0))


@pytest.mark.parametrize(
    ("channels", "layout"),
    [(7, "6.1"), (10, "5.1.4"), (12, "7.1.4"), (16, "9.1.6"), (24, "22.2")],
)
def test_channels_without_names_get_the_usual_ones_in_mp4(
    tmp_path: Path, channels: int, layout: str
) -> None:
    """Matroska stores the number of channels only; MP4 needs their positions."""
    source = _with_sound(tmp_path / "in.mkv", "pcm_s16le", f"{channels} channels")
    _, report = upscaled(source)
    assert (report.exit_code, report.notes) == (0, [])
    assert _samples(tmp_path / "out.mp4") == _samples(source)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.layout.name == layout


@pytest.mark.parametrize(
    ("ending", "codec", "preset"), [("ts", "aac", "ultrafast"), ("webm", "opus", "8")]
)
def test_more_channels_than_an_encoder_takes_are_mixed_down(
    tmp_path: Path, ending: str, codec: str, preset: str
) -> None:
    source = _with_sound(tmp_path / "in.mov", "pcm_s16le", "7.1.4")
    _, report = upscaled(source, f"out.{ending}", preset=preset)
    note = f"audio #1 (pcm_s16le) becomes {codec}, mixed down from 7.1.4 to 7.1"
    note += " (channels of which it has none are lost)"
    assert (report.exit_code, report.notes) == (0, [note])
    heard = _heard(tmp_path / f"out.{ending}")
    assert heard == pytest.approx(TONES, abs=3)


@pytest.mark.parametrize("ending", ["mp4", "ts"])
def test_channels_of_which_nothing_is_known_are_left_out(tmp_path: Path, ending: str) -> None:
    source = _with_sound(tmp_path / "in.mkv", "pcm_s16le", "9 channels")
    result, report = upscaled(source, f"out.{ending}")
    assert report.exit_code == 0
    assert report.notes == [f"out.{ending} cannot contain audio #1 (pcm_s16le): left out"]
    assert len(result.pts) == 25
    _, report = upscaled(source, "out.mov")
    assert (report.exit_code, report.notes) == (0, [])
    assert _samples(tmp_path / "out.mov") == _samples(source)


ORDER = "out.mkv cannot contain the order of the channels of audio #1 (pcm_s16le): left out"


@needs_ffmpeg
@pytest.mark.parametrize(
    ("ending", "notes"),
    [
        ("mp4", []),
        ("mov", []),
        ("mkv", [ORDER]),
        ("ts", ["out.ts cannot contain audio #1 (pcm_s16le): left out"]),
    ],
)
@pytest.mark.parametrize("audio", ["copy", "encode"])
def test_channels_in_an_unusual_order_do_not_end_the_process(
    tmp_path: Path, ending: str, notes: list[str], audio: str
) -> None:
    """FFmpeg 5 stores 7.1 in MOV with the side channels before those at the back."""
    usual, source = _with_sound(tmp_path / "in.mkv", "pcm_s16le", "7.1"), tmp_path / "in.mov"
    subprocess.run([FFMPEG, "-v", "error", "-i", usual, "-c", "copy", source], check=True)
    with av.open(str(source)) as container:
        assert not can_decode(container.streams.audio[0])
    _, report = upscaled(source, f"out.{ending}", audio=audio)
    assert (report.exit_code, report.notes) == (0, notes)
    if ending != "ts":
        assert _samples(tmp_path / f"out.{ending}") == _samples(source)
    with closing(LiveSource(str(source), 1.0)) as live:
        assert live.audio is None


@needs_ffmpeg
def test_tracks_of_one_channel_each_are_decoded(tmp_path: Path) -> None:
    """Editors write the left and the right channel as tracks of their own, labelled as such."""
    source = tmp_path / "in.mov"
    mono = ["-f", "lavfi", "-i", "aevalsrc=0.1*sin(t*3000):c=FR:d=1"]
    video = ["-f", "lavfi", "-i", "testsrc=size=64x48:duration=1"]
    subprocess.run([FFMPEG, "-v", "error", *video, *mono, "-c:a", "pcm_s16le", source], check=True)
    with av.open(str(source)) as container:
        assert layout_of(container.streams.audio[0].codec_context).name == "1 channels (FR)"
        assert can_decode(container.streams.audio[0])
    _, report = upscaled(source, "out.ts")
    assert (report.exit_code, report.notes) == (0, ["audio #1 (pcm_s16le) becomes aac"])
