"""Pacing of a live source: its frame rate, timestamps, bursts and stalls."""

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.live.test_live_parts import _frame
from tests.streams import Marked, make_marked
from vsr.live.input.pace import AdaptivePacer
from vsr.live.input.rate import RateMeter, Restamper
from vsr.live.input.source import LiveSource
from vsr.media.frame import Frame, now
from vsr.report.ledger import stage_ms


def _at(number: int, time_s: float, arrived: float = 0.0) -> Frame:
    frame = replace(_frame(number, arrived), pts=round(time_s * 1000), time_base=Fraction(1, 1000))
    frame.stamps.read = frame.stamps.decoded = arrived
    return frame


@pytest.mark.parametrize(
    ("told", "step", "found"),
    [
        (Fraction(60), 1 / 30, Fraction(30)),
        (Fraction(25), 0.2, Fraction(5)),
        (Fraction(30), 1001 / 30000, Fraction(30)),  # too close to be a different rate
        (Fraction(25), 1001 / 60000, Fraction(60000, 1001)),
    ],
)
def test_the_rate_is_that_of_the_pictures(told: Fraction, step: float, found: Fraction) -> None:
    meter = RateMeter(told)
    changes = [meter.add(7 + k * step) for k in range(30)]
    assert float(meter.rate) == pytest.approx(float(found), rel=1e-3)
    assert sum(changes) == (found != told)


def test_a_rate_is_corrected_on_the_way_and_gaps_do_not_count() -> None:
    meter = RateMeter(Fraction(25))
    times = [k / 25 for k in range(100)]
    times += [times[-1] + 2 + k / 25 for k in range(100)]
    assert not any(meter.add(at) for at in times)
    times = [times[-1] + k / 50 for k in range(1, 200)]
    assert sum(meter.add(at) for at in times) >= 1
    assert meter.rate == 50


def test_pictures_without_times_get_those_of_their_arrival() -> None:
    """FFmpeg assumes 25 frames per second for a camera, whatever its real rate is."""
    stamps = Restamper(usable=False, check=True)
    frames = [_at(k, k / 25, arrived=100 + k / 5) for k in range(20)]
    assert not any(stamps.stamp(frame) for frame in frames)
    assert [float(f.time) for f in frames] == pytest.approx([k / 5 for k in range(20)], abs=1e-3)


@pytest.mark.parametrize(("pace", "stands"), [(0.2, 1), (1.0, 0), (1.3, 0)])
def test_a_clock_that_all_but_stands_is_noticed(pace: float, stands: int) -> None:
    stamps = Restamper(usable=True, check=True)
    frames = [_at(k, k / 10 * pace, arrived=k / 10) for k in range(100)]
    assert sum(stamps.stamp(frame) for frame in frames) == stands


def test_a_stall_is_no_clock_that_stands() -> None:
    stamps = Restamper(usable=True, check=True)
    frames = [_at(k, k / 25, arrived=k / 25 + 4 * (k > 50)) for k in range(100)]
    assert not any(stamps.stamp(frame) for frame in frames)


@pytest.mark.parametrize("pause", [2.0, 4.0, 10.0])
def test_a_pause_that_the_source_does_not_count_is_no_clock_that_stands(pause: float) -> None:
    """A publisher that restarts: its first time follows the last one before the pause."""
    stamps = Restamper(usable=True, check=True)
    frames = [_at(k, k / 25, arrived=k / 25 + pause * (k > 100)) for k in range(300)]
    assert not any(stamps.stamp(frame) for frame in frames)


def _in_bursts(bursts: int, pictures: int, every: float) -> Iterator[Frame]:
    began = now()
    for k in range(bursts * pictures):
        if k % pictures == 0:
            time.sleep(max(0.0, began + k // pictures * every - now()))
        yield _at(k, k * every / pictures, now())


def test_bursts_are_played_evenly() -> None:
    told: list[str] = []
    evened, came = AdaptivePacer(threading.Event(), told.append), list[tuple[int, float]]()
    for item in evened(_in_bursts(4, 30, 1.2)):
        assert isinstance(item, Frame)
        came.append((item.index, now()))
        assert item.stamps.read == pytest.approx(now(), abs=0.5)
    assert [index for index, _ in came] == list(range(120))
    late = [at for index, at in came if index >= 45]
    gaps = [b - a for a, b in itertools.pairwise(late)]
    assert sum(gap > 0.4 for gap in gaps) <= 1  # without pacing: 3
    assert len(told) == 1
    assert "in bursts" in told[0]


def test_what_comes_faster_than_real_time_is_held_to_its_pace() -> None:
    told: list[str] = []
    began = now()
    frames = list(
        AdaptivePacer(threading.Event(), told.append)(_at(k, k / 25, now()) for k in range(75))
    )
    assert len(frames) == 75
    assert now() - began > 1.5  # 3 s of frames, of which 1 s may be ahead
    assert "faster than real time" in told[0]


def test_a_steady_stream_with_a_stall_is_passed_on_as_it_comes() -> None:
    told: list[str] = []

    def steady() -> Iterator[Frame]:
        began = now()
        for k in range(50):
            if not 20 <= k < 35:  # a stall of 0.6 s, then all at once
                time.sleep(max(0.0, began + k / 25 - now()))
            elif k == 20:
                time.sleep(max(0.0, began + 35 / 25 - now()))
            yield _at(k, k / 25, now())

    began = now()
    frames = list(AdaptivePacer(threading.Event(), told.append)(steady()))
    assert len(frames) == 50
    assert now() - began < 5
    assert told == []


def test_the_decoder_is_not_blamed_for_the_order_of_b_frames(tmp_path: Path) -> None:
    """With B-frames, the decoder may output a frame with a later packet than the frame's."""
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2, b_frames=2))
    source = LiveSource(str(clip), 5.0)
    began = time.monotonic()

    def slow(packets: Iterator[Any]) -> Iterator[Any]:
        for packet in packets:
            time.sleep(0.02)
            yield packet

    source._source._items = source._source._demuxed()
    demux = source._source._container.demux
    reading = replace(source._source._reading, demux=lambda *_: slow(demux()))
    source._source._reading = reading
    frames = [item for item in source if isinstance(item, Frame)]
    source.close()
    waits = sorted(stage_ms(_at_once(frame))[:2] for frame in frames[5:])
    assert time.monotonic() - began > 0.5
    decode, wait = zip(*waits, strict=True)
    assert sorted(wait)[len(wait) // 2] > 15
    assert sorted(decode)[len(decode) // 2] < 15


def _at_once(frame: Frame) -> Frame:
    """Return the frame with all later stages done at the time of decoding."""
    stamps = frame.stamps
    stamps.infer_start = stamps.infer_end = stamps.encode_start = stamps.encoded = stamps.decoded
    return frame
