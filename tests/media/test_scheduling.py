"""Opening an encoder leaves the scheduling policy of the process as it was."""

import os
from fractions import Fraction
from pathlib import Path

import av
import pytest

from vsr.media.encoder import CODECS, EncoderSettings, VideoFormat, open_encoder

TASKS = Path("/proc/self/task")


@pytest.mark.skipif(not TASKS.exists(), reason="needs Linux's list of threads")
@pytest.mark.parametrize("codec", [c for c in CODECS if CODECS[c] in av.codecs_available])
def test_no_encoder_makes_threads_real_time(tmp_path: Path, codec: str) -> None:
    # SVT-AV1 does it for root, which CI and most containers are
    video = VideoFormat(size=(64, 64), rate=Fraction(25), time_base=Fraction(1, 25))
    with av.open(str(tmp_path / "out.mkv"), "w") as container:
        stream = container.add_stream(CODECS[codec])
        assert isinstance(stream, av.VideoStream)
        open_encoder(stream.codec_context, EncoderSettings(codec=codec), video)
        assert {os.sched_getscheduler(int(t.name)) for t in TASKS.iterdir()} == {os.SCHED_OTHER}
