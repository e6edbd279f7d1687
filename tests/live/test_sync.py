"""The A/V offset, measured from the packets that an output wrote."""

import threading
import time
from pathlib import Path

import pytest

from tests.clips import Clip, make_clip
from vsr.live.output.sync import SyncMeter
from vsr.live.relay import Relay
from vsr.live.settings import IngestSettings, RelaySettings


def test_the_offset_is_that_of_sound_and_picture_of_one_source_time() -> None:
    """A frame's audio that is written a second later does not add to the offset."""
    meter = SyncMeter()
    for k in range(100):
        meter.add("video", 50 + k / 25, 3 + k / 25, at=k / 25)
        meter.add("audio", 49 + k / 25, 2 + k / 25 - 0.012, at=k / 25)
    assert meter.offset_ms(4.0) == pytest.approx(12, abs=0.1)
    assert meter.worst_ms == pytest.approx(12, abs=0.1)


def test_the_offset_of_sound_that_no_longer_goes_out_is_unknown() -> None:
    meter = SyncMeter()
    assert meter.offset_ms(0.0) is None
    meter.add("audio", 7.0, 1.0, at=1.0)  # no frame to compare it with
    assert meter.offset_ms(1.0) is None
    meter.add("video", 7.0, 1.0, at=1.0)
    meter.add("audio", 7.1, 1.1, at=1.1)
    assert meter.offset_ms(2.0) == 0
    assert meter.offset_ms(7.0) is None
    assert meter.last_ms == 0  # for the report


def test_a_source_that_begins_again_is_not_compared_with_what_was_before() -> None:
    meter = SyncMeter()
    for k in range(50):
        meter.add("video", k / 25, k / 25, at=0.0)
    for k in range(50):
        meter.add("video", k / 25, 9 + k / 25, at=9.0)
        meter.add("audio", k / 25, 9 + k / 25, at=9.0)
    assert meter.worst_ms == 0


def test_sound_ahead_of_its_picture_is_not_compared_with_that_of_an_earlier_session(
    tmp_path: Path,
) -> None:
    """Each loop of a file has the same times; its audio is read before its frames."""
    clip = make_clip(tmp_path / "in.mp4", Clip(size=(64, 36), frames=20))
    settings = RelaySettings(model="bicubic", max_latency=5, ingest=IngestSettings(loop=True))
    relay, stop = Relay(str(clip), [str(tmp_path / "out.ts")], settings), threading.Event()
    thread = threading.Thread(target=relay.run, args=(stop,))
    thread.start()
    until = time.monotonic() + 60
    while relay.board.snapshot().sessions < 4 and time.monotonic() < until:
        time.sleep(0.1)
    stop.set()
    thread.join()
    assert abs(relay.report.live["outputs"][0]["av_offset_worst_ms"]) < 100
