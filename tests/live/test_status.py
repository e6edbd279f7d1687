"""The status page of a relay: HTTP requests, correct figures, and refused clients."""

import http.client
import io
import json
import math
import re
import socket
import statistics
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import prometheus_client
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.report.test_ledger_html import HOSTILE, Page
from tests.rtmp import free_port, wait_for
from vsr.errors import OutputError, UsageError
from vsr.live.common import THROUGHPUT_HISTORY_S
from vsr.live.status import http as status_http
from vsr.live.status.board import _MAX_ROWS, StatusBoard
from vsr.live.status.health import health
from vsr.live.status.jpeg import MAX_WIDTH, JpegCache, Which, encode_jpeg
from vsr.live.status.page import _GRAPH_HEIGHT, POLICY
from vsr.live.status.server import Address, StatusServer
from vsr.live.status.snapshot import StreamFacts
from vsr.media.colour import Colour, code_from_rgb
from vsr.media.frame import Frame, Planes, Stamps
from vsr.report.html.text import count, duration
from vsr.report.ledger import Row

NO_PLANES = (np.empty((0, 0), np.uint8),) * 3
RUNGS = ("carn-m", "c-dcscn", "bicubic")
BT709 = Colour(matrix=1)


@dataclass
class Relay:
    """A status board with a simulated clock, and the calls that a relay makes to it."""

    at: float = 1000.0
    name: str = "rtmp://in.example/live/***"
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.board = StatusBoard(self.name, 0.5, lambda: self.at)
        self.figures = {
            "sessions": 3, "jumps": 4, "nudged": 5, "waiting": 6, "encoding": 7,
            "av_offset_ms": -12.5, "outputs": [output("a"), output("b", number=2, reconnects=8)],
        }  # fmt: skip

    def go_live(self, rungs: tuple[str, ...] = RUNGS, optional: int = 0) -> None:
        """Go live, so that frames may be added."""
        stage = StreamFacts(
            source={"size": [320, 180], "rate": "25", "codec": "h264"},
            output={"size": [640, 360], "encoder": "libx264"}, rungs=rungs, colour=BT709,
            optional_rungs=optional,
        )  # fmt: skip
        self.board.go_live(stage, lambda: self.figures)

    def frame(self, total: float, rung: str = "carn-m", event: str = "", after: float = 0) -> None:
        """Add a frame whose packet is sent `after` s from now, with a latency of `total` ms."""
        self.at += after
        self.board.add_frame(Row.of(made(self.at, total, rung, event)))

    def run(self, totals: list[float], rung: str = "carn-m", event: str = "") -> None:
        """Add frames at 25 per second."""
        for total in totals:
            self.frame(total, rung, event, after=0.04)


def made(at: float, total: float, rung: str = "carn-m", event: str = "") -> Frame:
    """Return a frame whose packet is sent at `at` (s); decode, wait and encode take 1/10 each."""
    read, tenth = at - total / 1000, total / 10_000
    stamps = Stamps(
        read=read, decoded=read + tenth, infer_start=read + 2 * tenth, infer_end=at - tenth,
        encode_start=at - tenth, encoded=at, muxed=at + 0.001,
    )  # fmt: skip
    return Frame(
        planes=NO_PLANES, index=0, pts=0, time_base=Fraction(1, 25), duration=1, stamps=stamps,
        rung="" if event in ("dropped", "repeated") else rung, event=event,
    )  # fmt: skip


def output(name: str, **others: Any) -> dict[str, Any]:
    """Return the `Output.facts()` of an output without problems."""
    return {
        "name": f"rtmp://{name}.example/live/***", "state": "open", "since": time.monotonic() - 90,
        "reconnects": 0, "packets": 1234, "bytes": 5_600_000, "dropped": 0, "queued": 9,
        "queued_s": 0.25, "queued_bytes": 100, "last_error": "", **others,
    }  # fmt: skip


def plain(rgb: tuple[float, float, float], colour: Colour, size: tuple[int, int]) -> Planes:
    """Return a frame of one colour; `size` is width, height."""
    matrix, offset = code_from_rgb(colour, 8)
    y, u, v = (round(min(255.0, c)) for c in matrix @ np.array(rgb) + offset)
    width, height = size
    chroma = ((height + 1) // 2, (width + 1) // 2)
    whole = np.full((height, width), y, np.uint8)
    return whole, np.full(chroma, u, np.uint8), np.full(chroma, v, np.uint8)


@pytest.fixture
def relay() -> Relay:
    """A relay that is not live yet."""
    return Relay()


@pytest.fixture
def server(relay: Relay) -> Iterator[StatusServer]:
    """The relay's status server on a free loopback port."""
    with StatusServer("127.0.0.1:0", relay.board) as running:
        yield running


def get(
    server: StatusServer, path: str = "", method: str = "GET", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Send a request; return status, body and headers of the response."""
    request = urllib.request.Request(server.url + path, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with closing(error):
            return error.code, error.read(), dict(error.headers)


def facts(server: StatusServer) -> dict[str, Any]:
    """Return the content of /status.json."""
    return json.loads(get(server, "status.json")[1])


def figures(server: StatusServer) -> dict[str, float]:
    """Return the samples of /metrics: name with labels -> value."""
    text = get(server, "metrics")[1].decode()
    return {
        " ".join([s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))]): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def shown(text: str) -> dict[str, str]:
    """Return the values in the tiles and lists of a page: name -> value."""
    tiles = re.findall(r"<b>(.*?)</b><span>(.*?)</span>", text)
    entries = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    return {re.sub("<.*?>", "", name): re.sub("<.*?>", "", v) for v, name in tiles} | dict(entries)


def test_the_numbers_are_those_put_in(relay: Relay, server: StatusServer) -> None:
    relay.go_live()
    rng = np.random.default_rng(7)
    quick, slow = (rng.uniform(*bounds).tolist() for bounds in ((20, 90, 150), (100, 900, 100)))
    relay.run(slow, "carn-m")
    relay.run(quick, "c-dcscn")
    relay.run([1] * 3, event="dropped")
    relay.run([1] * 4, event="repeated")
    relay.frame(30, "bicubic", "fallback", after=0.04)
    totals = np.array([*slow, *quick, 30])
    late = int((totals > 500).sum())
    told, page, metrics = facts(server), get(server)[1].decode(), figures(server)

    assert told["frames"] | {"late_minute": late} == {
        "in": 254, "out": 251, "sent": 255, "dropped": 3, "repeated": 4, "late": late,
        "dropped_minute": 3,
        "repeated_minute": 4, "late_minute": late, "events": {"fallback": 1},
        "by_rung": {"carn-m": 100, "c-dcscn": 150, "bicubic": 1},
        "by_rung_minute": {"carn-m": 100, "c-dcscn": 150, "bicubic": 1},
    }  # fmt: skip
    minute, run = told["latency_ms"]["minute"], told["latency_ms"]["run"]
    for name in ("p50", "p95", "p99"):
        exact = float(np.percentile(totals, int(name[1:])))
        assert minute["total"][name] == run[name] == pytest.approx(exact, rel=0.01)
    assert minute["total"]["max"] == run["max"] == pytest.approx(totals.max(), abs=0.002)
    assert run["mean"] == pytest.approx(totals.mean(), abs=0.002)
    assert minute["decode"]["p50"] == pytest.approx(minute["total"]["p50"] / 10, rel=0.02)
    assert told["rung"] == "bicubic"
    assert told["queues"] == {"waiting": 6, "encoding": 7}
    assert (told["sessions"], told["clock"]) == (3, {"jumps": 4, "nudged": 5})
    assert told["outputs"][1]["since_s"] == pytest.approx(90, abs=5)

    seen = shown(page)
    assert seen["rung"] == "bicubic"
    assert seen["p99 latency in the last minute, limit 500 ms"] == duration(minute["total"]["p99"])
    assert seen["late"] == count(late)
    for name, number in (("dropped", "3"), ("repeated", "4"), ("source sessions", "3"),
                         ("output reconnects", "8"), ("A/V offset", "-12 ms"),
                         ("frames in", "254"), ("frames sent", "255"),
                         ("frames with event fallback", "1"),
                         ("frames waiting for an engine", "6"),
                         ("frames and audio waiting for the encoder", "7"),
                         ("source clock jumps", "4"), ("timestamps corrected", "5")):  # fmt: skip
        assert seen[name] == number, name
    for output_ in relay.figures["outputs"]:
        assert output_["name"] in page

    for name, value in (
        ("frames_in_total", 254), ("frames_out_total", 255), ("frames_dropped_total", 3),
        ("frames_repeated_total", 4), ("frames_late_total", late), ("deadline_seconds", 0.5),
        ("frames_total rung=c-dcscn", 150), ("rung rung=bicubic", 1), ("rung rung=carn-m", 0),
        ("events_total event=fallback", 1), ("waiting_frames", 6), ("av_offset_seconds", -0.0125),
        ("output_open name=rtmp://a.example/live/*** output=1", 1),
        ("output_reconnects_total name=rtmp://b.example/live/*** output=2", 8),
        ("latency_seconds_bucket le=0.5", 251 - late), ("latency_seconds_bucket le=+Inf", 251),
        ("latency_seconds_bucket le=0.04", int((totals <= 40).sum())),
        ("latency_seconds_count", 251),
    ):  # fmt: skip
        assert metrics[f"vsr_relay_{name}"] == value, name
    assert metrics["vsr_relay_latency_seconds_sum"] == pytest.approx(totals.sum() / 1000)
    assert metrics["process_resident_memory_bytes"] > 1e6


def test_a_picture_that_comes_while_figures_are_taken_belongs_to_them(relay: Relay) -> None:
    """Also if a second ends in between."""
    relay.go_live()
    relay.at = 1000.99
    relay.frame(20)
    stage, figures, since = relay.board._live  # type: ignore[misc]

    def taken() -> Any:
        relay.frame(30, after=0.02)
        return figures()

    relay.board._live = (stage, taken, since)
    snapshot = relay.board.snapshot()
    assert snapshot.timeline.max[-2:] == (20.0, 30.0)
    assert snapshot.packet_age_s == 0.0


def test_frames_per_second_follow_what_comes_and_goes(relay: Relay) -> None:
    relay.go_live()
    relay.run([20] * 250)
    snapshot = relay.board.snapshot()
    assert [snapshot.fps_in, snapshot.fps_out] == pytest.approx([25, 25], abs=0.3)
    relay.run([20] * 125, event="repeated")
    relay.at += 0.001
    assert relay.board.snapshot().fps_in == 0
    assert relay.board.snapshot().fps_out == pytest.approx(25, abs=0.3)
    fps = relay.board.snapshot().facts()["fps"]
    assert (fps["out"], fps["sent"]) == (0, pytest.approx(25, abs=0.3))
    relay.at += 6
    assert relay.board.snapshot().fps_out == 0


def test_pictures_that_no_output_sends_do_not_go_out(relay: Relay) -> None:
    relay.go_live()
    relay.run([20] * 5)
    relay.run([math.nan] * 125)
    relay.run([math.nan] * 20, event="repeated")
    s = relay.board.snapshot()
    assert (s.frames_in, s.frames_out, s.fps_out) == (130, 5, 0)
    assert s.packet_age_s == pytest.approx(145 * 0.04)


def test_what_is_old_leaves_the_minute_and_the_timeline_and_stays_in_the_run(relay: Relay) -> None:
    relay.go_live()
    relay.frame(900, "carn-m")
    relay.at += 50
    relay.frame(100, "bicubic")
    relay.at += 65.5
    relay.frame(20, "bicubic")
    relay.frame(40, "c-dcscn", after=0.1)
    s = relay.board.snapshot()
    assert s.minute["total"]["max"] == pytest.approx(40)
    assert s.shown_minute == {"bicubic": 1, "c-dcscn": 1}
    assert (s.late, s.late_minute) == (1, 0)
    assert s.run["max"] == pytest.approx(900)
    at = {k: v for k, v in enumerate(s.timeline.max) if v is not None}
    assert at == {119 - 115: pytest.approx(900), 119 - 65: pytest.approx(100), 119: 40}
    assert s.timeline.p50[119] == pytest.approx(20)
    assert [s.timeline.rung[k] for k in at] == ["carn-m", "bicubic", "c-dcscn"]
    relay.at += 10
    assert [v for v in relay.board.snapshot().timeline.max if v] == [pytest.approx(100), 40]


def test_a_long_run_stays_small_and_is_counted_whole(relay: Relay) -> None:
    relay.go_live()
    size = relay.board._rows.nbytes
    for k in range(_MAX_ROWS + 500):
        relay.frame(10 if k % 100 else 300, after=1 / 60)
    s = relay.board.snapshot()
    assert relay.board._rows.nbytes == size
    assert s.frames_in == _MAX_ROWS + 500
    assert s.run["p50"] == pytest.approx(10, rel=0.0101)
    assert s.run["p99"] == pytest.approx(12.9, rel=0.0101)  # between 10 and 300, as in numpy
    assert s.run["max"] == pytest.approx(300)
    assert sum(v is not None for v in s.timeline.max) in (119, 120)
    assert s.minute["total"]["mean"] == pytest.approx(12.9, abs=0.1)


def test_a_packet_still_in_the_encoder_has_no_latency(relay: Relay) -> None:
    relay.go_live()
    late = made(relay.at, 20)
    late.stamps.encoded = late.stamps.muxed = 0.0
    relay.board.add_frame(Row.of(late))
    relay.frame(20)
    s = relay.board.snapshot()
    assert s.shown == {"carn-m": 2}
    assert s.run["max"] == s.minute["total"]["mean"] == pytest.approx(20)


def test_health_follows_the_output(relay: Relay, server: StatusServer) -> None:
    def answer() -> tuple[int, str]:
        relay.at += 0.3  # figures are at most 0.25 s old
        status, body, _ = get(server, "healthz")
        return status, body.decode()

    assert answer() == (503, f"not live yet: waiting for {relay.name}\n")
    relay.go_live()
    assert answer() == (503, "no packet sent yet\n")
    relay.frame(20)
    assert answer() == (200, "output running\n")
    assert facts(server)["flows"] is True
    relay.figures["outputs"][0]["state"] = "retrying"
    warning = "1 of 2 outputs are open, not open: 1"
    assert answer() == (200, f"output running; warnings: {warning}\n")
    assert facts(server)["health"] == {"level": "warn", "warnings": [warning]}
    relay.at += 0.3
    relay.run([20] * 3)
    relay.run([1] * 2, event="dropped")
    assert "2 of 6 frames late or dropped in the last minute" in answer()[1]
    relay.figures["outputs"][1]["state"] = "connecting"
    status, words = answer()
    assert status == 503
    assert "rtmp://a.example/live/*** is retrying; rtmp://b.example/live/*** is connecting" in words
    assert "no output is open" in get(server)[1].decode()
    relay.figures["outputs"][0]["state"] = "open"
    relay.at += 6
    assert answer() == (503, "no packet sent for 7 s\n")
    relay.figures["showing"] = "the slate"
    relay.frame(
        1, event="repeated"
    )  # counts as no source frame, though a viewer cannot tell the difference
    assert answer() == (503, "no source video for 7 s, showing the slate\n")
    relay.frame(20)
    assert answer()[0] == 200
    relay.figures["has_sound"] = True
    relay.figures["outputs"][0]["sound_age_s"] = 5.5
    relay.frame(20)
    assert answer() == (503, "no source audio for 6 s, sending silence\n")
    relay.figures["outputs"][1]["sound_age_s"] = 0.1
    assert answer()[0] == 200


def test_a_network_that_was_only_considered_is_not_missed(relay: Relay) -> None:
    def text() -> str:
        relay.at += 0.3
        return health(relay.board.snapshot()).text

    relay.go_live(("best", "carn-m", "bicubic"), optional=1)
    relay.frame(20, "carn-m")
    assert text() == "output running"
    relay.frame(20, "bicubic")
    assert text() == "using bicubic instead of carn-m"
    relay.frame(20, "best")
    assert text() == "output running"
    relay.frame(20, "carn-m")
    assert text() == "using carn-m instead of best"


def test_a_network_whose_name_is_no_text_is_answered(relay: Relay, server: tuple[str, int]) -> None:
    relay.go_live(("net-\udcff.onnx", "bicubic"))
    relay.frame(20, "bicubic")
    assert get(server, "healthz")[:2] == (
        200,
        b"output running; warnings: using bicubic instead of net-?.onnx\n",
    )


def test_what_a_viewer_may_notice_is_said_before_it_is_a_fault(relay: Relay) -> None:
    def now() -> tuple[str, str]:
        relay.at += 0.3
        found = health(relay.board.snapshot())
        return found.level, found.text

    assert now()[0] == "warn"
    relay.go_live()
    relay.frame(20)
    assert now() == ("good", "output running")
    relay.figures["showing"] = "the last picture"
    relay.at += 2
    relay.frame(1, event="repeated")
    assert now() == ("warn", "no source video for 3 s, showing the last picture")
    relay.at += 3
    relay.frame(1, event="repeated")
    assert now()[0] == "bad"
    relay.frame(20, "bicubic")
    assert now() == ("warn", "using bicubic instead of carn-m")
    relay.frame(20)
    relay.figures["has_sound"], relay.figures["outputs"][0]["sound_age_s"] = True, 2.0
    assert now() == ("warn", "no source audio for 2 s, sending silence")
    slow = {"bitrate": 625_000, "bitrate_full": 2_500_000, "sent_bps": [600_000, 650_000]}
    relay.figures["outputs"] = [output("a", **slow), output("b", number=2, state="retrying")]
    relay.figures["has_sound"] = False
    level, words = now()
    assert level == "warn"
    assert "1 of 2 outputs are open, not open: 2" in words
    assert "output 1 has a slow connection: 625 kbit/s of 2.5 Mbit/s" in words


def test_an_output_shows_what_it_sends(relay: Relay, server: StatusServer) -> None:
    slow = {"bitrate": 625_000, "bitrate_full": 2_500_000, "sent_bps": [0, 650_000]}
    relay.figures["outputs"] = [output("a", **slow, trouble="the disk is full")]
    relay.go_live()
    relay.frame(20)
    text = get(server)[1].decode()
    assert "bitrate reduced to 625 kbit/s of 2.5 Mbit/s: slow connection" in text
    assert '<polyline points="0,20.0 1,0.0"/>' in text
    assert f'viewBox="0 0 {THROUGHPUT_HISTORY_S} {_GRAPH_HEIGHT}"' in text
    assert f"in each of the last {THROUGHPUT_HISTORY_S} seconds" in text
    assert "the disk is full" in text
    assert (
        figures(server)["vsr_relay_output_bitrate name=rtmp://a.example/live/*** output=1"]
        == 625_000
    )


def test_names_cannot_break_out(server: StatusServer, relay: Relay) -> None:
    hostile = dict.fromkeys(("name", "last_error", "state"), HOSTILE)
    relay.figures["outputs"] = [output("a", number=k) | hostile for k in (1, 2)]
    relay.board._name = HOSTILE
    relay.go_live(rungs=(HOSTILE,))
    relay.frame(20, HOSTILE, HOSTILE)
    text = get(server)[1].decode()
    page = Page(text)
    assert len(page.named("script")) == 1
    assert [image["id"] for image in page.named("img")] == ["before", "after"]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "\u202e" not in text
    told = facts(server)
    assert told["name"] == told["rung"] == told["outputs"][0]["name"] == HOSTILE
    samples = [name for name in figures(server) if name.startswith("vsr_relay_output_open")]
    assert len(samples) == 2  # two outputs with one name stay separate series


def test_the_page_needs_nothing_else(relay: Relay, server: StatusServer) -> None:
    relay.go_live()
    relay.run([30] * 50)
    relay.board.set_images(plain((1, 0, 0), BT709, (320, 180)), plain((1, 0, 0), BT709, (640, 360)))
    _, body, headers = get(server)
    page = Page(body.decode())
    script = "".join(page.text["script"])
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert f"'sha256-{_digest(script)}'" in POLICY
    assert "unsafe" not in POLICY.partition("style-src")[0]
    links = [a["src"] for a in page.named("img")] + [a["href"] for a in page.named("a")]
    assert {get(server, str(link))[0] for link in links} == {200}
    assert not re.search(r"(src|href)=.?(https?:)?//", body.decode())
    parts = re.findall(r'"([\w-]+)"', script.partition("];")[0])
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert len(parts) == 9
    assert {*parts, "gone", "before", "after"} <= ids  # the page has every element
    assert len(body) < 30_000


def _digest(script: str) -> str:
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("full", [False, True])
def test_a_red_picture_is_red(matrix: int, full: bool) -> None:
    colour = Colour(matrix=matrix, full_range=full)
    for rgb in ((1.0, 0.0, 0.0), (0.2, 0.5, 0.8), (1.0, 1.0, 1.0)):
        picture = Image.open(io.BytesIO(encode_jpeg(plain(rgb, colour, (322, 180)), colour, 640)))
        assert picture.size == (322, 180)
        middle = np.array(picture.convert("RGB"))[90, 160]
        assert np.abs(middle - 255 * np.array(rgb)).max() <= 5, (rgb, middle)


@pytest.mark.parametrize(
    ("size", "max_width", "expected"),
    [
        ((1280, 720), 640, (640, 360)),
        ((321, 181), 640, (320, 180)),
        ((720, 1280), 640, (640, 1138)),
    ],
)
def test_pictures_are_made_small_and_even(
    size: tuple[int, int], max_width: int, expected: tuple[int, int]
) -> None:
    padded = tuple(np.pad(p, ((0, 0), (0, 64)))[:, :-64] for p in plain((0, 1, 0), BT709, size))
    for plane in padded:
        plane.setflags(write=False)  # like a decoder's buffers
    picture = Image.open(io.BytesIO(encode_jpeg(padded, BT709, max_width)))  # type: ignore[arg-type]
    assert picture.size == expected
    assert np.abs(np.array(picture)[20:-20, -8] - [0, 255, 0]).max() <= 5


def test_pictures_are_served(relay: Relay, server: StatusServer) -> None:
    assert get(server, "before.jpg")[:2] == (503, b"no frame yet\n")
    relay.go_live()
    assert "before.jpg" not in get(server)[1].decode()
    relay.board.set_images(
        plain((1, 0, 0), BT709, (320, 180)), plain((0, 0, 1), BT709, (2560, 1440))
    )
    for which, size, channel in (("before", (320, 180), 0), ("after", (1280, 720), 2)):
        status, body, headers = get(server, f"{which}.jpg?7")
        picture = Image.open(io.BytesIO(body))
        assert (status, headers["Content-Type"], picture.size) == (200, "image/jpeg", size)
        assert np.array(picture)[50, 50].argmax() == channel


def test_what_stands_in_for_the_source_is_what_the_page_shows(
    relay: Relay, server: StatusServer
) -> None:
    relay.go_live()
    red, green = plain((1, 0, 0), BT709, (64, 64)), plain((0, 1, 0), BT709, (64, 64))
    relay.board.set_images(red, red)
    relay.board.set_images(None, green)
    relay.figures["showing"] = "the slate"
    for which, channel in (("before", 0), ("after", 1)):
        picture = Image.open(io.BytesIO(get(server, f"{which}.jpg")[1]))
        assert np.array(picture)[9, 9].argmax() == channel
    assert "<bdi>the slate · " in get(server)[1].decode()


def test_a_picture_is_made_once_a_second_at_most(relay: Relay) -> None:
    relay.go_live()
    pictures = JpegCache(relay.board, lambda: relay.at)
    which: Which = "before"

    def colour() -> int:
        data = pictures.jpeg(which)
        assert data is not None
        return int(np.array(Image.open(io.BytesIO(data)))[9, 9].argmax())

    for channel, after, expected in ((0, 0.0, 0), (1, 0.9, 0), (1, 0.2, 1), (2, 1.1, 2)):
        relay.at += after
        rgb = tuple(float(k == channel) for k in range(3))
        relay.board.set_images(plain(rgb, BT709, (64, 64)), NO_PLANES)  # type: ignore[arg-type]
        assert colour() == expected
    assert MAX_WIDTH["before"] == 640


def test_head_is_get_without_the_body(relay: Relay, server: StatusServer) -> None:
    relay.go_live()
    for path in ("", "status.json", "healthz", "nowhere"):
        whole, head = get(server, path), get(server, path, "HEAD")
        assert head[:2] == (whole[0], b"")
        assert head[2]["Content-Type"] == whole[2]["Content-Type"]
        assert abs(int(head[2]["Content-Length"]) - len(whole[1])) < 20  # times increase


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "GIBBER"])
def test_only_get_and_head(server: StatusServer, method: str) -> None:
    status, _, headers = get(server, "healthz", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_other_paths_are_not_there(server: StatusServer) -> None:
    for path in ("favicon.ico", "../etc/passwd", "status.json/", "%00"):
        status, body, _ = get(server, path)
        assert status == 404
        assert b"/status.json" in body


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:9", 200), ("127.0.0.1.evil.com", 403),
        ("evil.example:8090", 403), ("192.168.1.2", 403), ("", 403), ("[", 403), ("a@x", 403),
    ],
)  # fmt: skip
def test_loopback_answers_only_to_its_own_names(
    relay: Relay, server: StatusServer, host: str, status: int
) -> None:
    relay.go_live()
    assert get(server, "status.json", Host=host)[0] == status


def test_an_address_given_on_purpose_answers_to_any_name(relay: Relay) -> None:
    with StatusServer("0.0.0.0:0", relay.board) as server:
        port = int(server.url.split(":")[2].strip("/"))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with closing(connection):
            connection.request("GET", "/status.json", headers={"Host": "relay.example"})
            assert connection.getresponse().status == 200


def test_a_port_that_is_taken_is_refused_and_free_after_the_end(relay: Relay) -> None:
    address = f"127.0.0.1:{free_port()}"
    with StatusServer(address, relay.board) as server:
        get(server)
        with pytest.raises(OutputError, match=rf"{address}.*in use; choose another --status"):
            StatusServer(address, relay.board)
        waiting = socket.create_connection(("127.0.0.1", int(address.partition(":")[2])))
        began = time.monotonic()
    assert time.monotonic() - began < 10
    with closing(waiting):
        waiting.settimeout(2)
        with suppress(ConnectionResetError):  # if it was not accepted yet
            assert waiting.recv(1) == b""
    with StatusServer(address, relay.board) as again:
        assert get(again, "status.json")[0] == 200


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8090", "127.0.0.1", 8090), ("8090", "127.0.0.1", 8090), ("[::1]:1", "::1", 1),
        (":8090", "127.0.0.1", 8090), ("0.0.0.0:80", "0.0.0.0", 80), ("Ab:0", "ab", 0),
    ],
)  # fmt: skip
def test_addresses(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize(
    "text", ["", "localhost", "localhost:", "a:b", "a:70000", "http://a:1", "a:1/x", "u@a:1", "::1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--status is HOST:PORT"):
        Address.parse(text)


def test_an_error_of_an_output_that_is_open_again_is_past(
    relay: Relay, server: StatusServer
) -> None:
    relay.figures["outputs"] = [
        output("a", last_error="refused"),
        output("b", number=2, state="retrying", last_error="reset"),
    ]
    relay.go_live()
    relay.frame(20)
    told = get(server)[1].decode()
    assert "past error: <bdi>refused" in told
    assert "last error: <bdi>reset" in told


def test_a_host_that_is_not_there_is_refused(relay: Relay) -> None:
    with pytest.raises(UsageError, match="no such host"):
        StatusServer("does-not-exist.invalid:1", relay.board)
    with pytest.raises(OutputError, match="cannot serve the status page"):
        StatusServer("192.0.2.1:0", relay.board)  # not an address of this machine


def test_too_many_are_refused_and_places_come_back(
    relay: Relay, server: StatusServer, capfd: pytest.CaptureFixture[str]
) -> None:
    place = ("127.0.0.1", int(server.url.split(":")[2].strip("/")))
    idle = [socket.create_connection(place, 5) for _ in range(status_http._MAX_REQUESTS)]
    time.sleep(0.2)
    assert get(server, "healthz")[0] == 503
    idle[0].sendall(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
    for connection in idle[1:]:
        connection.close()
    wait_for(lambda: get(server, "status.json")[0] == 200, 5, "no place came back")
    assert b"Bad Request" in idle[0].recv(4096)
    idle[0].close()
    assert capfd.readouterr() == ("", "")


def test_a_client_that_drips_is_cut(
    relay: Relay, server: StatusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_http, "_MAX_REQUEST_S", 0.4)
    place = ("127.0.0.1", int(server.url.split(":")[2].strip("/")))
    with closing(socket.create_connection(place, 5)) as connection:
        began = time.monotonic()
        with pytest.raises(OSError):  # connection reset or broken pipe
            while time.monotonic() - began < 3:
                connection.sendall(b"GET" if time.monotonic() - began < 0.1 else b" ")
                time.sleep(0.05)
    assert time.monotonic() - began < 2


def test_a_client_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_http, "_MAX_REQUEST_S", 0.4)
    much = status_http.Response(bytes(32 << 20))  # more than the socket buffers of both ends
    place = ("127.0.0.1", 0)
    server = status_http.WebServer(socket.AF_INET, place, "localhost", lambda *_: much, {})
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with closing(socket.create_connection(server.server_address[:2], 5)) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            wait_for(lambda: server._open, 5, "the request did not arrive")
            wait_for(lambda: not server._open, 5, "the connection was kept")
            received = 0
            with suppress(ConnectionResetError):
                while data := connection.recv(1 << 20):
                    received += len(data)
            assert received < len(much.body)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * (1 << 16) + b" HTTP/1.0\r\n\r\n", 414),
        (b"GET / HTTP/1.0\r\nA: " + b"a" * (1 << 16) + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.0\r\n" + b"A: a\r\n" * 101 + b"\r\n", 431),
    ],
    ids=["line", "header", "headers"],
)
def test_a_request_that_is_too_large_is_refused(
    server: StatusServer, request_: bytes, status: int
) -> None:
    place = ("127.0.0.1", int(server.url.split(":")[2].strip("/")))
    with closing(socket.create_connection(place, 5)) as connection:
        connection.sendall(request_)
        assert connection.recv(64).split(b" ")[1] == str(status).encode()


def test_a_defect_is_told_to_the_client_and_harms_nobody(
    relay: Relay, server: StatusServer, capfd: pytest.CaptureFixture[str]
) -> None:
    relay.go_live()
    del relay.figures["sessions"]
    assert get(server, "status.json")[:2] == (500, b"internal error: KeyError\n")
    relay.figures["sessions"] = 1
    assert get(server, "status.json")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_figures_stay_out_of_the_common_registry(server: StatusServer) -> None:
    figures(server)
    names = {family.name for family in prometheus_client.REGISTRY.collect()}
    assert not [name for name in names if name.startswith("vsr")]
    _, body, headers = get(server, "metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_many_clients_do_not_slow_the_relay(relay: Relay, server: StatusServer) -> None:
    relay.board._clock = time.perf_counter
    relay.go_live()
    relay.board.set_images(plain((1, 0, 0), BT709, (320, 180)), plain((1, 0, 0), BT709, (640, 360)))
    paths, stop, answers = ("", "status.json", "metrics", "after.jpg"), threading.Event(), []

    def ask(k: int) -> None:
        while not stop.is_set():
            answers.append(get(server, paths[k % len(paths)])[0])

    def took(number: int, pause: float) -> list[float]:
        times = []
        for _ in range(number):
            frame = made(time.perf_counter(), 20)
            began = time.perf_counter()
            relay.board.add_frame(Row.of(frame))
            times.append(time.perf_counter() - began)
            time.sleep(pause)
        return times

    alone = statistics.median(took(3000, 0))
    clients = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
    for client in clients:
        client.start()
    try:
        wait_for(lambda: len(answers) > 20, 5, "no answers")
        busy = took(300, 0.003)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert set(answers) <= {200, 503}
    assert answers.count(200) > 30
    # a thread may lose the GIL for 5 ms at a time, but rarely during such a short call
    assert statistics.median(busy) < 10 * alone + 50e-6
