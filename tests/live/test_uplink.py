"""Outputs whose connection is slower than the stream: the bitrate adapts, the session remains."""

from collections import deque
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.programs import needs_nginx
from tests.rtmp import Proxy, Server, wait_for
from tests.streams import RelayProcess
from vsr.live.output.adapt import SHARES, Adapter
from vsr.live.output.encoding import TIME_BASE, open_live_encoder, with_reduced_bitrate
from vsr.live.output.packet_queue import PacketQueue
from vsr.live.output.record import Record
from vsr.media.encoder import EncoderSettings, VideoFormat

FULL = 2_500_000.0
SOUND = 128_000.0
STEP = 0.04


class Link:
    """A simulated connection with a capacity in bits per second, and its send queue."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.adapter = Adapter(FULL)
        self.at = self.sent = self.sound = 0.0
        self.longest = 0.0
        self._waiting: deque[list[float]] = deque()
        self.adapter.restart(0.0)

    def run(self, seconds: float) -> None:
        """Send for `seconds`, in steps of one frame."""
        for _ in range(round(seconds / STEP)):
            self.at += STEP
            bits = (self.adapter.share * FULL + SOUND) * STEP
            self._waiting.append([self.at, bits])
            self.sound += SOUND * STEP / 8
            room = self.capacity * STEP
            while self._waiting and room > 0:
                taken = min(room, self._waiting[0][1])
                room -= taken
                self.sent += taken / 8
                self._waiting[0][1] -= taken
                if self._waiting[0][1] <= 0:
                    self._waiting.popleft()
            waits = self.at - self._waiting[0][0] if self._waiting else 0.0
            self.longest = max(self.longest, waits)
            backlog = sum(bits for _, bits in self._waiting) / 8
            self.adapter.sample(self.at, waits, int(backlog), int(self.sent), int(self.sound))


@pytest.mark.parametrize("capacity", [2_000_000, 1_000_000, 600_000, 500_000])
def test_the_bitrate_goes_down_to_what_the_line_takes(capacity: float) -> None:
    link = Link(capacity)
    link.run(18.0)
    fits = max(share for share in SHARES if share * FULL + SOUND < capacity)
    assert fits * 0.5 < link.adapter.share <= fits
    assert link.longest < 4.0  # seconds in the queue before an output drops frames
    link.run(600.0)
    assert link.longest < 4.0  # attempts to raise the bitrate are rare and short
    assert link.adapter.changes < 40


def test_a_line_that_gets_better_gets_the_full_bitrate_again() -> None:
    link = Link(1_000_000)
    link.run(30.0)
    assert link.adapter.share < 1.0
    link.capacity = 10_000_000
    link.run(240.0)
    assert link.adapter.share == 1.0
    assert link.adapter.lowest_share <= 0.35


def test_a_wide_line_and_one_short_stall_change_nothing() -> None:
    link = Link(3_500_000)
    link.run(10.0)
    link.capacity = 0
    link.run(0.8)
    link.capacity = 6_000_000
    link.run(60.0)
    assert (link.adapter.share, link.adapter.changes) == (1.0, 0)


def test_a_reduced_encoder_makes_a_stream_that_the_first_header_describes() -> None:
    video = VideoFormat(size=(1280, 720), rate=Fraction(25), time_base=TIME_BASE)
    settings = EncoderSettings(options={"b": "4M", "preset": "ultrafast"})
    first = open_live_encoder(settings, video)
    lower = open_live_encoder(with_reduced_bitrate(settings, 300_000, first), video)
    assert lower.extradata == first.extradata
    assert lower.bit_rate == 300_000
    assert "crf" not in lower.options


def noise(path: Path, seconds: float) -> Path:
    """Write a clip of noise, which needs the full bitrate at any setting."""
    random = np.random.default_rng(1)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "30"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        for k in range(round(25 * seconds)):
            grey = random.integers(0, 255, (135, 160), dtype=np.uint8)
            picture = av.VideoFrame.from_ndarray(grey, format="yuv420p")
            picture.pts = k
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


@needs_nginx
def test_a_relay_on_a_slow_uplink_adapts_and_keeps_its_session(tmp_path: Path) -> None:
    clip = noise(tmp_path / "noise.mp4", 4.0)
    recording = tmp_path / "rec.mkv"
    with Server(tmp_path / "server") as server, Proxy(server.port, buffer=8192) as proxy:
        url = f"rtmp://127.0.0.1:{proxy.port}/live/key"
        with RelayProcess(
            tmp_path / "relay", str(clip), url, str(recording), "--loop", "--bitrate", "2500k",
            "--max-latency", "5000", "--preset", "ultrafast",
        ) as relay:  # fmt: skip
            wait_for(lambda: "connected" in relay.said, 30, relay.said)
            proxy.rate = 125_000
            relay.await_words("bitrate reduced to", 40, 1)
            relay.stop()
        slow, file = relay.report["live"]["outputs"]
    assert (slow["number"], file["number"]) == (1, 2)
    assert slow["bitrate_changes"] >= 1
    assert slow["bitrate_lowest"] < slow["bitrate_full"] == 2_500_000
    assert slow["reconnects"] == 0
    assert (file["bitrate_changes"], file["pictures_dropped"]) == (0, 0)
    assert proxy.connections == 1
    assert "output 1, rtmp://127.0.0.1" in relay.said


def _record(at: float, begins: bool = False, kind: str = "video") -> Record:
    return Record(b"x" * 10, begins, at, kind=kind)  # type: ignore[arg-type]


def test_sound_goes_on_where_pictures_are_left_out() -> None:
    dropped: list[Record] = []
    queue = PacketQueue(4.0, 10_000, 1.0, dropped.append)
    queue.begin_session()
    queue.put(_record(0.0, begins=True))
    for k in range(1, 42):
        queue.put(_record(k / 10))
        queue.put(_record(k / 10, kind="audio"))
    assert queue.skips == 1
    kept = [queue.take() for _ in range(len(queue))]
    assert all(record is not None and record.kind == "audio" for record in kept)
    assert len(kept) > 15
    assert queue.dropped == len(dropped)


def test_sound_that_comes_long_after_its_pictures_is_no_backlog() -> None:
    queue = PacketQueue(seconds=4.0, size=1 << 20, idle_seconds=1.0)
    queue.begin_session()
    queue.put(_record(100.0, begins=True))
    for k in range(20):
        queue.put(_record(94.0 + k / 25, kind="audio"))
        queue.put(_record(100.04 + k / 25))
        assert queue.seconds < 1
        while queue.take():
            pass
    assert (queue.skips, queue.dropped) == (0, 0)
