"""Tests of sinks that are configured by parameters alone, without an input."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.facts import contents
from vsr.media.colour import Colour
from vsr.media.encoder import EncoderSettings, VideoFormat
from vsr.media.frame import Frame
from vsr.media.sink import Sink

TURNED = (0, 1 << 16, 0, -1 << 16, 0, 0, 640, 0, 1 << 30)
"""Display matrix: a rotation by 90 degrees and a shift by 640 pixels."""


def frame(index: int) -> Frame:
    y, chroma = np.full((48, 64), 16 + 10 * index, np.uint8), np.full((24, 32), 128, np.uint8)
    return Frame(
        planes=(y, chroma, chroma), index=index, pts=40 * index, time_base=Fraction(1, 1000),
        duration=40,
    )  # fmt: skip


def test_a_sink_needs_no_input(tmp_path: Path) -> None:
    video = VideoFormat(
        size=(64, 48), rate=Fraction(25), time_base=Fraction(1, 1000),
        colour=Colour(matrix=6, full_range=True), sample_aspect=Fraction(4, 3),
        display_matrix=TURNED,
    )  # fmt: skip
    with Sink(tmp_path / "out.mkv", video, EncoderSettings(preset="ultrafast")) as sink:
        written = [done.index for k in range(10) for done in sink.write(frame(k))]
        written += [done.index for done in sink.drain()]
        sink.close()
    assert (sorted(written), sink.left_out) == (list(range(10)), [])
    found = contents(tmp_path / "out.mkv")
    assert (found.size, found.sar, found.frames) == ((64, 48), Fraction(4, 3), 10)
    assert (found.matrix, found.range, found.rotation) == (6, 2, 270)
    assert found.pts == [Fraction(k, 25) for k in range(10)]


def test_a_sink_that_is_left_early_leaves_nothing(tmp_path: Path) -> None:
    video = VideoFormat(size=(64, 48), rate=Fraction(25), time_base=Fraction(1, 1000))
    with Sink(tmp_path / "out.mp4", video, EncoderSettings()) as sink:
        sink.write(frame(0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "codec"), [("out.y4m", None), ("out.mov", "prores")])
def test_the_threads_of_an_encoder_end_before_it_is_freed(
    tmp_path: Path, name: str, codec: str | None
) -> None:
    """Else its freeing, under the GIL, waits for a thread that waits for the GIL."""
    video = VideoFormat(size=(64, 48), rate=Fraction(25), time_base=Fraction(1, 1000))
    with Sink(tmp_path / name, video, EncoderSettings(codec=codec)) as sink:
        for k in range(6):
            sink.write(frame(k))
    with pytest.raises(EOFError):  # it was drained
        sink._encoder.encode(None)
    assert list(tmp_path.iterdir()) == []
