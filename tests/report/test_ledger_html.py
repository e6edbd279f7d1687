"""The latency report as an HTML page: valid, safe, small, and with the ledger's numbers."""

import base64
import hashlib
import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.clips import Clip, make_clip
from vsr.cli.main import main
from vsr.report.html.charts import HEIGHT, Scale, latency_scale
from vsr.report.html.columns import Columns, slot_stats, slowest_rows
from vsr.report.html.page import render_page
from vsr.report.html.text import clock, duration, share, size, span
from vsr.report.html.timeline import MAX_SLOTS, TimeAxis
from vsr.report.ledger import STAGES, Ledger, write_report
from vsr.report.report import Report

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202e\udcff&.mp4"


class Page(HTMLParser):
    """Parses a page strictly (all tags nested and closed); keeps tags, attributes and cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)
            if self.open[-1] in ("td", "th"):
                self.tables[-1][-1][-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def ledger_of(rows: int, seed: int = 0) -> Ledger:
    """Return a ledger at 30 fps with two rungs and some events; total = the first four stages."""
    rng = np.random.default_rng(seed)
    parts = rng.lognormal(2, 0.5, (5, rows)).astype(np.float32)
    ledger, at = Ledger(capacity=rows), np.arange(rows)
    ledger._count = rows
    held = ledger._filled
    held["index"], held["pts"] = at, at / 30
    held["ms"] = np.stack([*parts, parts[:4].sum(0)], axis=1)
    heavy, light = ledger._code("carn-m"), ledger._code("bicubic")
    held["rung"] = np.where((at // 50) % 3, heavy, light)
    held["event"] = np.where(at % 97 == 5, ledger._code("concealed"), ledger._code(""))
    return ledger


def facts_of(ledger: Ledger, deadline: float | None = None, **changes: Any) -> dict[str, Any]:
    rows = len(ledger)
    total = ledger._filled["ms"][:, -1]
    misses = 0 if deadline is None else int((total > deadline).sum())
    facts: dict[str, Any] = {
        "versions": {"vsr": "0"}, "machine": {"cores": 2},
        "input": {"name": "in.mp4", "codec": "h264", "size": [64, 48], "rate": "30000/1001"},
        "output": {"name": "out.mp4", "model": "carn-m", "scale": 2, "bytes": 12345},
        "frames": {"in": rows, "out": rows, "dropped": 0, "concealed": 0},
        "stages": ledger.stages(), "fps": 24.0, "deadline": {"ms": deadline, "misses": misses},
        "interrupted": False, "notes": [],
    }  # fmt: skip
    return facts | changes


def drawn(ledger: Ledger, deadline: float | None = None, **changes: Any) -> Page:
    return Page(render_page(facts_of(ledger, deadline, **changes), ledger.columns()))


@pytest.mark.parametrize("rows", [0, 1, 2, 300, 5000])
@pytest.mark.parametrize("deadline", [None, 40.0, 5000.0])
def test_the_page_is_whole_and_loads_nothing(rows: int, deadline: float | None) -> None:
    text = render_page(facts_of(ledger_of(rows), deadline), ledger_of(rows).columns())
    found = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not {"link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in found.tags}
    for _, attributes in found.tags:
        assert not {"src", "href", "xlink:href", "action", "srcset"} & set(attributes)
    assert not re.search(r"https?://|url\(|@import|nan|inf\b|None", text)
    policy = next(a for a in found.named("meta") if a.get("http-equiv"))
    assert str(policy["content"]).startswith("default-src 'none'")
    assert ("timeline" in {a.get("id") for a in found.named("div")}) == (rows > 0)
    assert any("deadline" in s for s in found.text.get("text", [])) == bool(deadline and rows)


def test_the_only_script_is_the_one_that_the_policy_names() -> None:
    found = drawn(ledger_of(10))
    script = found.text["script"][-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert any(f"'sha256-{digest}'" in str(a.get("content")) for a in found.named("meta"))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    ledger = ledger_of(60)
    ledger._codes = {HOSTILE: 0}
    ledger._filled["rung"] = ledger._filled["event"] = 0
    facts = facts_of(ledger, 20.0, notes=[HOSTILE], live={HOSTILE: [{HOSTILE: HOSTILE}]})
    facts["input"] = dict.fromkeys(("name", "codec", "rate", HOSTILE), HOSTILE)
    facts["output"] = dict.fromkeys(("name", "model", "backend", "device", "encoder"), HOSTILE)
    write_report(tmp_path / "x.html", facts, ledger)
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    found = Page(text)
    assert len(found.named("script")) == 2
    assert not found.named("img")
    assert "\u202e" not in text and "u202e" not in text
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    shown = "".join(found.text["bdi"])
    assert HOSTILE.replace("\u202e\udcff", "\ufffd\ufffd") in shown


def test_the_tables_hold_the_ledgers_numbers() -> None:
    ledger = ledger_of(400)
    stages, frames = drawn(ledger).tables
    whole = ledger.stages()
    assert [row[0] for row in stages[1:]] == list(STAGES)
    assert stages[0] == ["ms", "mean", "p50", "p95", "p99", "max"]
    for row in stages[1:]:
        assert [float(cell.replace(",", "")) for cell in row[1:]] == list(whole[row[0]].values())
    slowest = sorted(ledger.rows(), key=lambda row: -row["total_ms"])[:10]
    assert len(frames) == 11
    for cells, expected in zip(frames[1:], slowest, strict=True):
        assert int(cells[0]) == expected["index"]
        assert float(cells[1]) == pytest.approx(expected["pts_s"], abs=5e-4)
        told = [float(c.replace(",", "")) for c in cells[2:8]]
        assert told == [expected[f"{stage}_ms"] for stage in STAGES]
        assert cells[8:] == [expected["rung"], expected["event"]]


def test_the_sentences_say_what_happened() -> None:
    ledger = ledger_of(400)
    ledger._filled["ms"][:, 2] = 500.0
    ledger._filled["ms"][:, -1] = [530.0] * 399 + [20_000.0]
    said = "\n".join(drawn(ledger, 600.0, interrupted=True, notes=["a note"]).text["li"])
    assert "400 of 400 frames were written in 16.7 s: 24.0 frames per second, 0.80 times" in said
    assert "the slowest, frame 399 at 0:13.30, took 20.0 s" in said
    assert "The slowest stage is infer: 500 ms on average, 86 % of the total." in said
    assert "0.2 % of the frames (1 of 400) missed the deadline of 600 ms." in said
    assert "The run was stopped" in said
    assert "Note: a note" in said
    assert "the rung changed 5 times" in said
    assert "Events: 5 concealed." in said


def test_the_run_time_of_a_resumed_run_is_its_own() -> None:
    """`frames_out` includes the frames of the earlier run, `fps` does not."""
    report = Report(
        input={"name": "in.mp4", "rate": "25"}, output={"name": "out.mp4"}, frames_in=300,
        frames_out=300, taken_over=200, seconds=8.0, ledger=ledger_of(100),
    )  # fmt: skip
    found = Page(render_page(report.facts(), report.ledger.columns()))
    expected = "300 of 300 frames were written, 100 of them by this run in 8.00 s: 12.5 frames"
    assert any(expected in line for line in found.text["li"])
    assert "8.00 s" in found.text["bdi"]
    report.taken_over, report.ledger = 0, ledger_of(300)
    found = Page(render_page(report.facts(), report.ledger.columns()))
    assert any("300 of 300 frames were written in 8.00 s: 37.5" in s for s in found.text["li"])


def test_waiting_is_not_called_a_slow_stage() -> None:
    ledger = ledger_of(50)
    ledger._filled["ms"][:, 1] = 900.0
    ledger._filled["ms"][:, 3] = 90.0
    said = "\n".join(drawn(ledger).text["li"])
    assert "Frames spend the most time in queues" in said
    assert "The slowest processing stage is encode (90.0 ms)" in said


def test_no_frame_is_said_in_words() -> None:
    empty = {"in": 0, "out": 0, "dropped": 0, "concealed": 0}
    found = drawn(Ledger(), frames=empty, fps=0.0)
    assert "No frame was finished" in "".join(found.text["li"])
    assert found.tables == []


def test_columns_are_the_ledger_in_input_order() -> None:
    ledger = ledger_of(200)
    turned = ledger.copy()
    turned._filled[:] = ledger._filled[np.random.default_rng(1).permutation(200)]
    columns = turned.columns()
    for k, row in enumerate(ledger.rows()):
        assert columns.index[k] == row["index"]
        assert columns.pts[k] == pytest.approx(row["pts_s"], abs=1e-6)
        assert columns.rungs[columns.rung[k]] == row["rung"]
        assert columns.events[columns.event[k]] == row["event"]
        assert columns.ms[:, k] == pytest.approx([row[f"{s}_ms"] for s in STAGES], abs=1e-3)


def test_gathering_keeps_minimum_median_and_maximum() -> None:
    rng = np.random.default_rng(2)
    slot, values = rng.integers(0, 30, 1001), rng.random(1001)
    slots = slot_stats(slot, values)
    assert slots.slot.tolist() == sorted(set(slot.tolist()))
    for k, number in enumerate(slots.slot):
        own = np.sort(values[slot == number])
        assert (slots.low[k], slots.high[k]) == (own[0], own[-1])
        assert slots.middle[k] == own[(len(own) - 1) // 2]
        assert values[slots.worst[k]] == own[-1]
        assert slots.rows[k] == len(own)


def peaked(rows: int, at: int) -> Columns:
    columns = ledger_of(rows).columns()
    columns.ms[-1, at] = 7777
    return columns


@pytest.mark.parametrize("at", [0, 12_345, 49_999])
def test_downsampling_never_hides_a_peak(at: int) -> None:
    columns = peaked(50_000, at)
    line = TimeAxis(columns)
    assert len(line.x) <= MAX_SLOTS
    scale = Scale(0, 7777)
    everything = np.ones(50_000, bool)
    spread, _, _ = line.curve(everything, scale)
    tops = {m[1]: int(m[2]) for m in re.finditer(r"M([\d.]+) \d+V(\d+)", spread)}
    assert [x for x, top in tops.items() if top == 0] == [f"{line.x[line.slot[at]]:.1f}"]
    _, texts = line.tooltips()
    assert next(t for t in texts if "7,777 ms" in t).startswith(clock(at / 30))
    mark = np.zeros(50_000, bool)
    mark[at] = True
    assert line.lane(mark).count("M") == 1


def test_every_frame_of_a_short_run_is_a_point_of_its_own() -> None:
    columns = ledger_of(120).columns()
    line = TimeAxis(columns)
    spread, medians, dots = line.curve(columns.rung == 0, Scale(0, 1000))
    assert spread == "" and dots == ""
    assert len(re.findall("[ML]", medians)) == int((columns.rung == 0).sum())
    ys = [int(y) for y in re.findall(r" (\d+)", medians)]
    expected = HEIGHT * (1 - columns.total[columns.rung == 0] / 1000)
    assert ys == pytest.approx(expected, abs=0.51)


def test_rows_without_a_latency_are_not_drawn() -> None:
    """A dropped frame has no packet: its total is invalid, but its event is still marked."""
    columns = ledger_of(50).columns()
    columns.ms[-1, 7], columns.ms[-1, 9] = -5e6, np.nan
    columns = replace(columns, events=("", "dropped"), event=(columns.index == 7).astype(np.int64))
    assert not {7, 9} & set(slowest_rows(columns, 50))
    ledger = ledger_of(50)
    found = Page(render_page(facts_of(ledger), columns))
    assert any("dropped" in name for name in found.text["bdi"])
    columns.ms[-1] = np.nan
    Page(render_page(facts_of(ledger), columns))


def test_eight_hours_stay_small_and_quick() -> None:
    ledger = ledger_of(8 * 3600 * 30)
    facts = facts_of(ledger, 60.0)
    begun = time.process_time()
    text = render_page(facts, ledger.columns())
    assert time.process_time() - begun < 5
    assert len(text.encode()) < 1_500_000
    Page(text)
    slots = json.loads(text.split('id="tooltips">')[1].split("</script>")[0])
    assert len(slots["x"]) == len(slots["text"]) == MAX_SLOTS


def test_scales() -> None:
    narrow = latency_scale(np.array([10.0, 30.0, 50.0]), None)
    assert not narrow.log and narrow.high >= 50 and narrow.low == 0
    wide = latency_scale(np.array([10.0, 10.0, 5000.0]), 200.0)
    assert wide.log and wide.low <= 10 and wide.high >= 5000
    assert wide.at([1.0, 5e9]).tolist() == [0, 1]
    for scale in (narrow, wide, latency_scale(np.zeros(3), None)):
        ticks = scale.ticks()
        assert 2 <= len(ticks) <= 9
        assert all(scale.low <= t <= scale.high * 1.001 for t in ticks)
    assert latency_scale(np.array([10.0]), 100.0).high >= 100


def test_numbers_in_words() -> None:
    assert [clock(s) for s in (0, 61.5, 3725.25, -2.5)] == [
        "0:00.00",
        "1:01.50",
        "1:02:05.25",
        "-0:02.50",
    ]
    assert clock(119.999, (0.0, 60.0)) == "2:00"
    assert [duration(v) for v in (0.5, 12.34, 1234, 61_000)] == [
        "0.50 ms",
        "12.3 ms",
        "1,234 ms",
        "1 min 01 s",
    ]
    assert [span(s) for s in (2.5, 59.97, 7260)] == ["2.50 s", "60.0 s", "2 h 01 min"]
    assert [share(n, 10_000) for n in (0, 1, 2500, 9999, 10_000)] == [
        "0 %", "under 0.1 %", "25.0 %", "over 99.9 %", "100 %",
    ]  # fmt: skip
    assert [size(n) for n in (999, 1500, 2_500_000)] == ["999 bytes", "1.5 kB", "2.5 MB"]


def test_the_command_line_writes_the_page(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=30))
    target = tmp_path / "report.html"
    command = ["run", str(clip), str(tmp_path / "out.mp4"), "--model", "bicubic"]
    result = CliRunner().invoke(main, [*command, "--report", str(target)])
    assert result.exit_code == 0, result.output
    found = Page(target.read_text(encoding="utf-8"))
    said = "".join(found.text["li"])
    assert "30 of 30 frames were written" in said
    stages, frames = found.tables
    assert [row[0] for row in stages[1:]] == list(STAGES)
    totals = [float(row[7].replace(",", "")) for row in frames[1:]]
    assert totals == sorted(totals, reverse=True)
    assert float(stages[-1][-1].replace(",", "")) == totals[0]
    assert {row[8] for row in frames[1:]} == {"bicubic"}


def test_writing_is_part_of_the_total_where_it_is_a_relays() -> None:
    ledger = ledger_of(50)
    ledger._filled["ms"][:, 4] = 800.0
    ledger._filled["ms"][:, -1] = 1000.0
    relay, file = ("\n".join(drawn(ledger, ms).text["li"]) for ms in (5000.0, None))
    assert "The slowest stage is mux: 800 ms on average, 80 % of the total." in relay
    assert "stage is mux" not in file
