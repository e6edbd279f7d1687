"""Unit tests of the parts of a relay: mailbox, ladder, output clock, inputs and log."""

import itertools
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from tests.streams import Marked, make_marked
from vsr.errors import InputError, UsageError
from vsr.live.clock import OutputClock
from vsr.live.common import RelayLog
from vsr.live.input.ingest import Ingest, check_input
from vsr.live.input.mailbox import AudioPacket, Connected, Lost, Mailbox
from vsr.live.input.pace import skip_backlog
from vsr.live.input.source import LiveSource
from vsr.live.ladder.controller import Ladder, LadderSettings
from vsr.live.ladder.warm_up import grey_planes
from vsr.live.output.plan import check_outputs
from vsr.live.settings import IngestSettings
from vsr.live.slate import Slate
from vsr.media.colour import SDR
from vsr.media.frame import Frame, Stamps, now
from vsr.media.timestamps import Packet


def _frame(number: int, at: float | None = None) -> Frame:
    stamps = Stamps(read=now() if at is None else at, decoded=now() if at is None else at)
    return Frame(
        planes=grey_planes(64, 48), index=number, pts=number, time_base=Fraction(1, 25), duration=1,
        stamps=stamps,
    )  # fmt: skip


def _heard(at: float) -> AudioPacket:
    packet: av.Packet[Any] = av.Packet(b"x")
    return AudioPacket(packet, at)


def test_the_oldest_picture_and_the_oldest_sound_make_room() -> None:
    box = Mailbox(frames=3, audio=2)
    box.put(Lost("why", 1.0))
    for k in range(5):
        box.put(_frame(k))
        box.put(_heard(k))
    assert box.frames_waiting == 3
    items = list(iter(lambda: box.take(0), None))
    assert isinstance(items[0], Lost)
    assert [i.index for i in items if isinstance(i, Frame)] == [2, 3, 4]
    assert [i.time for i in items if isinstance(i, AudioPacket)] == [3, 4]
    assert [f.index for f in box.dropped] == [0, 1]
    assert all(f.planes[0].size == 0 for f in box.dropped)  # the list can hold thousands
    assert box.frames_waiting == 0


def test_every_picture_and_sound_that_makes_room_is_counted() -> None:
    box = Mailbox(frames=3, audio=2)
    for k in range(1500):
        box.put(_frame(k))
        box.put(_heard(k))
    assert len(box.dropped) + box.dropped_unlisted == 1500 - 3
    assert len(box.dropped) == 1000  # listed individually
    assert box.audio_dropped == 1500 - 2


def test_an_empty_mailbox_is_waited_at_no_longer_than_asked() -> None:
    box = Mailbox(frames=3)
    began = time.monotonic()
    assert box.take(0.05) is None
    assert 0.04 < time.monotonic() - began < 2
    threading.Timer(0.05, box.put, [_heard(1)]).start()
    assert isinstance(box.take(10), AudioPacket)


def test_slow_encoding_leaves_the_network_less_time_but_never_none() -> None:
    ladder = Ladder([0.1, 0.001], LadderSettings(interval=0.2, max_latency=0.4), 0.0)
    assert ladder.choose(0.0, 0.0, 0) == 0
    for _ in range(100):
        ladder.record_encoding(30.0)
    assert ladder.encode_s == pytest.approx(0.2, rel=0.01)
    assert ladder.choose(1.15, 1.0, 3) == 1  # 0.1 s would be too late now, but no frame is dropped


def _play(ladder: Ladder, costs: tuple[float, float], frames: int) -> list[float]:
    """Play frames of 25 fps with two rungs; return the times of the trials (s)."""
    tried = []
    for k in range(frames):
        now = k * 0.04
        ladder.record_cost(rung := ladder.choose(now, now, 0), costs[rung])
        if (number := ladder.rung_to_try(now, 0)) is not None:
            tried.append(now)
            ladder.record_trial(number, costs[number], now)
    return tried


@pytest.mark.parametrize(("measured", "tried"), [(0.039, [1, 1.5, 2]), (0.17, [])])
def test_a_rung_timed_at_a_bad_moment_is_tried_unless_hopeless(
    measured: float, tried: list[float]
) -> None:
    """Initial costs were measured while the machine was busy; the real cost is 19 ms."""
    ladder = Ladder([measured, 0.002], LadderSettings(interval=0.04, max_latency=0.5), 0.0)
    assert ladder.rung == 1
    assert _play(ladder, (0.019, 0.002), 1500) == pytest.approx(tried, abs=0.1)
    assert (ladder.rung, ladder.changes) == ((0, 1) if tried else (1, 0))


def test_a_bad_trial_after_good_ones_keeps_the_rung() -> None:
    ladder = Ladder([0.05, 0.002], LadderSettings(interval=0.04, max_latency=0.5), 0.0)
    assert ladder.record_trial(0, 0.01, 1.0) and ladder.record_trial(0, 0.01, 1.5)
    assert not ladder.record_trial(0, 0.2, 2.0)
    assert ladder.record_trial(0, 0.01, 12.0)
    assert ladder.rung == 1


def test_a_heavy_rung_is_tried_again_under_a_short_latency() -> None:
    """33 ms of a latency of 100 ms, of which encoding takes 40: it comes back."""
    ladder = Ladder([0.033, 0.002], LadderSettings(interval=0.04, max_latency=0.1), 0.0)
    for _ in range(100):
        ladder.record_encoding(0.04)
    assert (ladder.rung, ladder.choose(0.09, 0.0, 0)) == (0, 1)  # late
    _play(ladder, (0.033, 0.002), 25 * 20)
    assert ladder.rung == 0


def test_a_rung_that_keeps_up_but_not_within_the_latency_is_not_taken() -> None:
    ladder = Ladder([0.2, 0.002], LadderSettings(interval=1.0, max_latency=0.5), 0.0)
    ladder.choose(0.49, 0.0, 0)
    for k in range(3):
        assert not ladder.record_trial(0, 0.6, 20.0 + k)
    assert ladder.rung == 1


def test_a_slower_source_begins_trials_again() -> None:
    ladder = Ladder([0.05, 0.002], LadderSettings(interval=0.04, max_latency=0.5), 0.0)
    _play(ladder, (0.05, 0.002), 25 * 300)
    ladder.set_interval(0.1, 300.0)
    for k in range(40):
        now = 300 + k / 10
        ladder.record_cost(ladder.choose(now, now, 0), 0.002)
        if ladder.rung_to_try(now, 0) is not None:
            ladder.record_trial(0, 0.05, now)
    assert ladder.rung == 0


def test_a_rung_that_became_hopeless_does_not_hold_up_lighter_ones() -> None:
    ladder = Ladder([0.05, 0.045, 0.002], LadderSettings(interval=0.04, max_latency=0.5), 0.0)
    assert ladder.record_trial(0, 0.033, 1.0)
    ladder.set_interval(1 / 120, 1.1)
    ladder.set_cost(1, 0.01, 1.2)
    assert ladder.rung_to_try(10.0, 0) == 1


def test_trials_wait_while_frames_do() -> None:
    ladder = Ladder([0.05, 0.002], LadderSettings(interval=0.04, max_latency=0.5), 0.0)
    assert (ladder.rung_to_try(5.0, 1), ladder.rung_to_try(5.0, 0)) == (None, 0)


def test_trials_in_vain_become_rare() -> None:
    ladder = Ladder([0.05, 0.002], LadderSettings(interval=0.04, max_latency=0.5), 0.0)
    tried = _play(ladder, (0.05, 0.002), 25 * 600)
    pauses = [b - a for a, b in itertools.pairwise([0.0, *tried])]
    assert pauses == pytest.approx([1, 10, 20, 40, 80, 160], abs=0.1)
    assert ladder.changes == 0


def test_a_backlog_does_not_put_off_what_comes_after() -> None:
    clock, step = OutputClock(0.04), 0.04
    for k in range(50):
        clock.place_frame(k * step, k * step)
    for k in range(50, 150):  # a stall of 4 s, of which 3.5 s are filled
        if k > 62:
            clock.place_repeat(k * step)
    shown = []
    for k in range(50, 150):  # all at once
        if not clock.must_skip(6.0):
            shown.append(clock.place_frame(k * step, 6.0))
    assert shown[-1] - 6.0 <= 0.6
    live = []
    for k in range(150, 300):
        if not clock.must_skip(k * step):
            live.append((k * step, clock.place_frame(k * step, k * step)))
    assert len(live) > 130
    assert abs(live[-1][1] - live[-1][0]) < 0.1
    assert clock.corrections.skipped + len(shown) + len(live) == 250
    assert clock.corrections.nudged == 0


@pytest.mark.parametrize("rate", [1.0002, 0.9998])
def test_a_clock_that_is_a_little_off_never_costs_a_picture(rate: float) -> None:
    clock = OutputClock(0.04)
    for k in range(200_000):  # more than two hours
        assert not clock.must_skip(k * 0.04 * rate)
        clock.place_frame(k * 0.04, k * 0.04 * rate)
    behind = 200_000 * 0.04 * rate - clock.last
    filler = clock.place_repeat(200_000 * 0.04 * rate)
    assert abs(behind) > 1  # the clocks have drifted apart
    assert filler - clock.interval == pytest.approx(199_999 * 0.04, abs=0.1)  # the output has not


def _as_it_comes(frames: int, put_by: int) -> Iterator[Frame]:
    for k in range(frames):
        if k >= put_by:
            time.sleep(0.03)
        yield _frame(k)


@pytest.mark.parametrize(("put_by", "first"), [(12, 11), (1, 0), (0, 0)])
def test_a_stream_that_is_joined_begins_with_its_newest_picture(put_by: int, first: int) -> None:
    got = [f.index for f in skip_backlog(_as_it_comes(20, put_by), 0.04) if isinstance(f, Frame)]
    assert got == list(range(first, 20))


@pytest.mark.parametrize("breaks", [False, True])
def test_a_stream_that_ends_while_it_is_joined_shows_its_newest_picture(breaks: bool) -> None:
    def short() -> Iterator[Frame | Packet]:
        for k in range(20):
            yield av.Packet(b"before")
            yield _frame(k)
        yield after
        if breaks:
            raise InputError("broke off")

    after, got = av.Packet(b"after"), list[Any]()
    with pytest.raises(InputError) if breaks else nullcontext():
        for item in skip_backlog(short(), 10.0):
            got.append(item)
    assert [getattr(item, "index", item) for item in got] == [19, after]


def _all_of(ingest: Ingest, box: Mailbox) -> list[Any]:
    ingest.start()
    items: list[Any] = []
    while not (items and isinstance(items[-1], Lost) and items[-1].final):
        item = box.take(10)
        assert item is not None
        items.append(item)
    return items


def test_a_file_waits_to_be_seen_and_goes_at_its_pace(tmp_path: Path) -> None:
    clip, box = make_marked(tmp_path / "in.flv", Marked(seconds=1)), Mailbox(frames=100)
    ingest = Ingest(str(clip), IngestSettings(), box)
    ingest.start()
    assert isinstance(box.take(10), Connected)
    assert box.take(0.2) is None
    ingest.start_playback()
    frames, item = [], box.take(10)
    while not isinstance(item, Lost):
        frames += [item] if isinstance(item, Frame) else []
        item = box.take(10)
    assert (item.final, item.failed, item.reason) == (True, False, f"{clip} ended")
    arrived = [f.stamps.read for f in frames]
    assert len(frames) == 25
    assert arrived[-1] - arrived[0] == pytest.approx(0.96, abs=0.2)
    assert all(f.stamps.decoded >= f.stamps.read for f in frames)


def test_a_file_whose_times_leap_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "leap.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(20):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = k + (k > 9) * 90_000, Fraction(1, 25)  # a jump of an hour
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    box = Mailbox(frames=100)
    ingest = Ingest(str(path), IngestSettings(), box)
    ingest.start_playback()
    items = _all_of(ingest, box)
    assert sum(isinstance(i, Frame) for i in items) == 20


def test_a_defect_in_reading_ends_neither_thread_nor_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = "rtmp://user:pa55@host/live/k3y?sign=t0ken"

    def fail(*_: Any) -> LiveSource:
        raise RuntimeError(f"cannot believe {url}")

    monkeypatch.setattr("vsr.live.input.ingest.LiveSource", fail)
    box = Mailbox(frames=1)
    items = _all_of(Ingest(url, IngestSettings(retry_delay=0.1, retry_max=3), box), box)
    assert [i.final for i in items] == [False, False, True]
    text = caplog.text + str(items)
    assert "failed unexpectedly (RuntimeError: cannot believe rtmp://host/live/***?***)" in str(
        items
    )
    assert "cannot believe rtmp://host/live/***?***" in caplog.text
    assert not any(secret in text for secret in ("pa55", "k3y", "t0ken"))


def test_a_stream_without_a_picture_is_not_kept_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2))
    monkeypatch.setattr("vsr.live.input.source._KEY_FRAME_WAIT_S", -10.0)
    with pytest.raises(InputError, match="sends data, but no frame that can be decoded"):
        LiveSource(str(clip), -1.0)


def test_a_slate_whose_name_ffmpeg_takes_for_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 36), "red").save(tmp_path / "12:30.png")
    monkeypatch.chdir(tmp_path)
    Slate(0.0, Path("12:30.png")).fit((64, 36), SDR)


def test_trouble_is_told_once_a_minute_and_by_whom(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vsr")
    at = [100.0]
    words = RelayLog(logging.getLogger("vsr.test"), "50 % of it", lambda: at[0])
    for passed in (0, 30, 29.9, 0.1, 1):
        at[0] += passed
        words.warn_rarely("gone")
        words.warn_rarely("1.2.3.4 refused: 100%", "refused")
    words.warn_rarely("9.9.9.9 refused: 100%", "refused")
    words.info("done")
    words.info("%d pictures", 3)
    words.debug("not asked for")
    both = ["50 % of it: gone", "50 % of it: 1.2.3.4 refused: 100%"]
    assert caplog.messages == [*both, *both, "50 % of it: done", "50 % of it: 3 pictures"]
    assert len(words._last_warned) == 2
    at[0] += 61
    words.warn_rarely("gone")
    assert len(words._last_warned) == 1  # unknown clients must not fill the memory


def test_a_line_of_the_only_relay_begins_with_no_name(caplog: pytest.LogCaptureFixture) -> None:
    words = RelayLog(logging.getLogger("vsr.test"))
    words.warn_rarely("100% gone")
    words.warning("%s: %d", "a", 1)
    assert caplog.messages == ["100% gone", "a: 1"]


def test_a_protocol_that_ffmpeg_lacks_is_refused_and_nobody_is_called() -> None:
    settings = IngestSettings()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        place = f"127.0.0.1:{server.getsockname()[1]}/live/k3y"
        for scheme in ("rtmp", "rtmps", "rtsp", "http", "https", "tcp", "udp", "rtp"):
            check_input(f"{scheme}://{place}", settings)
        check_outputs([f"{scheme}://{place}" for scheme in ("rtmp", "rtmps", "rtsp", "udp")])
        with pytest.raises(
            UsageError, match="this FFmpeg does not support carrierpigeon: use"
        ) as told:
            check_input(f"carrierpigeon://{place}", settings)
        assert "k3y" not in str(told.value)
        with pytest.raises(TimeoutError):
            server.accept()
