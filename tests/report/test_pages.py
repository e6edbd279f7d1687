"""A relay's status page and report: as rendered by a browser, and their text."""

import itertools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.live.test_status import BT709, Relay, figures, get, output, plain, shown
from tests.programs import CHROMIUM, needs_chromium
from tests.report.test_ledger_html import facts_of, ledger_of
from vsr.live.status.server import StatusServer
from vsr.report.html.page import render_page
from vsr.report.html.relay_summary import relay_summary
from vsr.report.html.text import duration

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture
def relay() -> Relay:
    """A live relay with images on its status board."""
    relay = Relay()
    relay.go_live()
    red = ((1.0, 0.0, 0.0), BT709)
    relay.board.set_images(plain(*red, (320, 180)), plain(*red, (640, 360)))
    return relay


@pytest.fixture
def server(relay: Relay) -> Iterator[StatusServer]:
    """Its status server, on a free port of 127.0.0.1."""
    with StatusServer("127.0.0.1:0", relay.board) as running:
        yield running


def _rendered(url: str, folder: Path, seconds: int = 3) -> str:
    """Return the page's DOM in a browser after `seconds` of virtual time, including its script."""
    done = subprocess.run(
        [
            CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}",
            f"--virtual-time-budget={1000 * seconds}", "--dump-dom", url,
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


@needs_chromium
def test_a_browser_shows_and_renews_the_figures_of_metrics(
    relay: Relay, server: StatusServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    relay.run(rng.uniform(20, 700, 250).tolist())
    snapshot, asked = relay.board.snapshot, itertools.count()

    def later() -> object:
        """Return a snapshot; at the second request, after the page is loaded, add frames first."""
        if next(asked) == 1:
            relay.run(rng.uniform(20, 90, 25).tolist(), "c-dcscn")
            relay.run([1] * 2, event="dropped")
            relay.run([1] * 3, event="repeated")
        return snapshot()

    monkeypatch.setattr(relay.board, "snapshot", later)
    dom = _rendered(server.url, tmp_path)
    seen, told = shown(dom), figures(server)
    for name, metric, value in (
        ("frames in", "frames_in_total", 277), ("frames sent", "frames_out_total", 278),
        ("dropped", "frames_dropped_total", 2), ("repeated", "frames_repeated_total", 3),
        ("late", "frames_late_total", None), ("frames waiting for an engine", "waiting_frames", 6),
    ):  # fmt: skip
        assert int(seen[name]) == told[f"vsr_relay_{metric}"], name
        assert value in (None, told[f"vsr_relay_{metric}"]), name
    assert seen["rung"] == "c-dcscn"
    assert told["vsr_relay_rung rung=c-dcscn"] == 1
    assert seen["A/V offset"] == "-12 ms"
    p99 = snapshot().minute["total"]["p99"]
    assert seen["p99 latency in the last minute, limit 500 ms"] == duration(p99)
    assert re.search(r'<p id="gone" hidden', dom)
    # the script has loaded new images, in their original size
    found = re.findall(r'<img src="(\w+).jpg\?\d+" id=[^>]* width="(\d+)" height="(\d+)">', dom)
    assert found == [("before", "320", "180"), ("after", "640", "360")]


@needs_chromium
def test_a_browser_is_told_when_the_relay_answers_no_more(
    relay: Relay, server: StatusServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, asked = relay.board.snapshot, itertools.count()

    def once() -> object:
        if next(asked):
            raise RuntimeError("a relay that fails")
        return snapshot()

    monkeypatch.setattr(relay.board, "snapshot", once)
    assert '<p id="gone">' in _rendered(server.url, tmp_path)


def test_the_head_says_that_an_output_is_not_reached(relay: Relay, server: StatusServer) -> None:
    relay.frame(20)
    assert '<p class="state good"><i></i>output running</p>' in get(server)[1].decode()
    relay.figures["outputs"] = [output("a"), output("b", number=2, state="retrying")]
    relay.at += 0.3  # figures are at most 0.25 s old
    assert (
        '<p class="state warn"><i></i>1 of 2 outputs are open, not open: 2'
        in get(server)[1].decode()
    )
    relay.figures["av_offset_ms"] = -0.3
    relay.at += 0.3
    assert shown(get(server)[1].decode())["A/V offset"] == "0 ms"


def test_a_report_of_a_relay_reads_well() -> None:
    ledger = ledger_of(300)
    outputs = [output("a"), output("b", state="retrying", last_error="refused")]
    text = render_page(
        facts_of(
            ledger, 500.0, live={"rung_changes": 1, "outputs": outputs},
            output={"name": "a", "size": [640, 360], "rungs": ["carn-m", "bicubic"]},
        ),
        ledger.columns(),
    )  # fmt: skip
    assert "h264 64x48 29.97 fps → carn-m / bicubic → 640x360<" in text
    assert "the rung changed once." in text  # single trials of a rung do not count
    lines = re.findall(r"<dd>(.*?)</dd>", text)
    (told,) = (line for line in lines if "<br>" in line)
    assert told.count("<bdi>name rtmp://") == 2
    assert "state retrying" in told
    assert "since" not in told
    assert "last error refused" in told


def test_labels_of_a_histogram_leave_each_other_room() -> None:
    """On a phone, the last label takes the space of the label before it."""
    ledger = ledger_of(300)
    ledger._filled["ms"][7, -1] = 390.0
    text = render_page(facts_of(ledger, 500.0), ledger.columns())
    spread = text.partition("Histogram of total latency")[2].partition("</div>")[0]
    labels = re.findall(r'<text class="(\w+(?: minor)?)" x="([\d.]+)%" y="100%"', spread)
    places = [float(x) for kind, x in labels if "minor" not in kind]
    assert len(places) < len(labels)
    assert places[-1] == 100
    assert min(b - a for a, b in itertools.pairwise(places)) > 5
    assert places[-1] - places[-2] > 12
    assert spread.rindex("<line") < spread.index("deadline 500")  # no line is drawn over a label


def test_in_short_names_what_viewers_noticed() -> None:
    slow = {"bitrate_changes": 3, "bitrate_lowest": 625_000, "bitrate_full": 2_500_000, "skips": 2}
    live = {
        "outputs": [
            output("a", **slow), output("b", number=2, packets=0, last_error="401 Unauthorized"),
        ],
        "silence_s": 75.0, "sound_dropped": 12, "slate_s": 150.0,
    }  # fmt: skip
    said = list(relay_summary({"live": live}))
    assert said == [
        "Output 1 (rtmp://a.example/live/***) had a slow connection: its video bitrate "
        "fell to 625 kbit/s of 2.5 Mbit/s.",
        "Output 1 (rtmp://a.example/live/***) dropped frames up to the next key frame 2 times.",
        "Output 2 (rtmp://b.example/live/***) was never opened: 401 Unauthorized.",
        "Audio was replaced by silence for 1 min 15 s.",
        "12 audio packets were not sent.",
        "The slate was shown in place of the source for 2 min 30 s.",
    ]
    ledger = ledger_of(30)
    assert "never opened: 401" in render_page(facts_of(ledger, 500.0, live=live), ledger.columns())
    assert not list(relay_summary({"live": {}}))
