"""AAC whose sample rate or channel layout changes in the middle of a broadcast."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.clips import picture
from tests.facts import contents
from tests.files.test_faithful import upscaled

SECONDS = 2


def _part(path: Path, begin_s: int, rate: int, layout: str) -> bytes:
    """Return two seconds of a transport stream with a tone of 440 Hz."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = out.add_stream("aac", rate=rate, layout=layout)
        for k in range(25 * SECONDS):
            frame = av.VideoFrame.from_ndarray(picture((64, 48), k), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = k + 25 * begin_s, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        channels = sound.codec_context.layout.nb_channels
        for k in range(rate * SECONDS // 1024):
            t = (np.arange(1024) + k * 1024) / rate
            wave = np.stack([0.2 * np.sin(2 * np.pi * 440 * t)] * channels).astype(np.float32)
            tone = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
            tone.sample_rate, tone.time_base = rate, Fraction(1, rate)
            tone.pts = k * 1024 + begin_s * rate
            out.mux(sound.encode(tone))
        out.mux(sound.encode(None))
    return path.read_bytes()


@pytest.fixture(params=[(48_000, "mono"), (32_000, "stereo"), (44_100, "5.1")])
def changing(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A recording in stereo at 48 kHz, and in another audio format from the middle on."""
    path = tmp_path / "in.ts"
    first = _part(tmp_path / "a.ts", 0, 48_000, "stereo")
    path.write_bytes(first + _part(tmp_path / "b.ts", SECONDS, *request.param))
    return path


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_both_halves_are_heard_as_they_are(
    changing: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    result, report = upscaled(changing, name)
    assert report.exit_code == 0
    assert len(result.pts) == 50 * SECONDS
    assert "changes from 48000 Hz stereo to" in caplog.text
    samples = _samples(changing.with_name(name))
    assert abs(len(samples) / 48_000 - 2 * SECONDS) < 0.15
    for begin in (0.2, 2.3):
        piece = samples[int(begin * 48_000) :][:72_000]
        loudest = np.argmax(np.abs(np.fft.rfft(piece))) * 48_000 / len(piece)
        assert abs(loudest - 440) < 2


def test_a_transport_stream_takes_the_change(changing: Path) -> None:
    result, _ = upscaled(changing, "out.ts")
    assert result.packets[1] == contents(changing).packets[1]


def _samples(path: Path) -> "np.ndarray[Any, Any]":
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert {frame.sample_rate for frame in frames} == {48_000}
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])
