"""Tests of sorting packets by time, for containers that store streams in separate runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from tests.flash_beep import Clip, make_clip
from vsr.media.interleave import interleaved


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Any]:
    """Yield an open clip. Packets lose their stream when it is closed."""
    with av.open(str(make_clip(tmp_path / "in.mp4", Clip(seconds=9)))) as opened:
        yield opened


def _packets(source: Any, piece: float = 2.0) -> list[Any]:
    """Return a clip's packets; in each piece of so many seconds, video comes before audio."""
    packets = [p for p in source.demux() if p.dts is not None]
    return sorted(packets, key=lambda p: (_time(p) // piece, p.stream.type == "audio", _time(p)))


def _time(packet: Any) -> float:
    return float(packet.dts * packet.time_base)


def test_pieces_come_in_the_order_of_their_times(source: Any) -> None:
    packets, streams = _packets(source), list(source.streams)
    times = [_time(p) for p in packets]
    assert times != sorted(times)
    out = [_time(p) for p in interleaved(iter(packets), streams)]
    assert out == sorted(times)


def test_no_more_is_read_than_it_takes(source: Any) -> None:
    packets, streams = _packets(source), list(source.streams)
    taken = 0

    def read() -> Any:
        nonlocal taken
        for packet in packets:
            taken += 1
            yield packet

    first = next(interleaved(read(), streams))
    assert _time(first) < 0.1
    assert taken <= 2 * 25 + 2


def test_a_stream_that_does_not_come_is_not_waited_for(source: Any) -> None:
    packets, streams = _packets(source), list(source.streams)
    video = [p for p in packets if p.stream.type == "video"]
    assert list(interleaved(iter(video), streams)) == video
