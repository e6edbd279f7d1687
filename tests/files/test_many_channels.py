"""Sound of eight and more channels, whose planar frames PyAV cannot walk (it crashes)."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.clips import picture
from tests.files.test_faithful import upscaled

RATE = 48_000
TONES = (300, 500, 700, 60, 900, 1100, 1300, 1500)
"""Frequency of each channel of 7.1, in hertz; the fourth holds low frequencies only."""


def _tones() -> "np.ndarray[Any, Any]":
    """Return a second of sound, [samples, channels]."""
    t = np.arange(RATE)[:, None] / RATE
    return np.asarray(0.2 * np.sin(2 * np.pi * t * np.array(TONES)), np.float32)


def _with_sound(path: Path, codec: str, layout: str) -> Path:
    """Write a second of video, with a tone of its own in each channel."""
    form, scale = ("flt", 1.0) if codec == "pcm_f32le" else ("s16", 2.0**15)
    samples = (_tones() * scale).astype(np.float32 if form == "flt" else np.int16)
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
