"""Tests that opening an encoder does not change the scheduling policy of the process."""

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import pytest

from vsr.media.encoder import CODECS, EncoderSettings, VideoFormat, open_encoder

TASKS = Path("/proc/self/task")


@pytest.mark.skipif(not TASKS.exists(), reason="needs Linux's list of threads")
@pytest.mark.parametrize("codec", [c for c in CODECS if CODECS[c] in av.codecs_available])
def test_no_encoder_makes_threads_real_time(tmp_path: Path, codec: str) -> None:
    # SVT-AV1 does so for root, the user in CI and most containers
    before = _policies()
    video = VideoFormat(size=(64, 64), rate=Fraction(25), time_base=Fraction(1, 25))
    with av.open(str(tmp_path / "out.mkv"), "w") as container:
        stream = container.add_stream(CODECS[codec])
        assert isinstance(stream, av.VideoStream)
        open_encoder(stream.codec_context, EncoderSettings(codec=codec), video)
        now = _policies()
    assert now == {thread: before.get(thread, os.SCHED_OTHER) for thread in now}


def _policies() -> dict[str, int]:
    """Return the scheduling policy of every thread by its id."""
    found = {}
    for task in TASKS.iterdir():
        with suppress(OSError):  # the thread has ended
            found[task.name] = os.sched_getscheduler(int(task.name))
    return found
