"""The A/V offset as it is measured from what an output wrote."""

import pytest

from vsr.live.output.sync import SyncMeter


def test_the_offset_is_that_of_sound_and_picture_of_one_source_time() -> None:
    """Sound that is written a second after its picture is not off by that."""
    meter = SyncMeter()
    for k in range(100):
        meter.add("video", 50 + k / 25, 3 + k / 25, at=k / 25)
        meter.add("audio", 49 + k / 25, 2 + k / 25 - 0.012, at=k / 25)
    assert meter.offset_ms(4.0) == pytest.approx(12, abs=0.1)
    assert meter.worst_ms == pytest.approx(12, abs=0.1)


def test_the_offset_of_sound_that_no_longer_goes_out_is_unknown() -> None:
    meter = SyncMeter()
    assert meter.offset_ms(0.0) is None
    meter.add("audio", 7.0, 1.0, at=1.0)  # no picture that it could be compared with
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
