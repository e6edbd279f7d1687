"""A relay's ledger over days: bounded memory and disk use, and statistics over all rows."""

import json
import logging
import math
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.test_ledger_html import Page
from tests.rtmp import wait_for
from vsr.media.frame import Frame, Stamps
from vsr.report import periods
from vsr.report.ledger import COLUMNS, STAGES, LatencyLedger, Ledger, Row, write_report
from vsr.report.report import Report
from vsr.report.rolling import RollingLedger, RollingSettings, Totals

NO_PLANE = np.empty((0, 0), np.uint8)
BEGAN = 1_795_284_000.0
"""Start time, in seconds since 1970: 2026-11-21 18:00:00 UTC."""
FPS = 25
DEADLINE = 0.06
SOON = 10.0


def frame_of(index: int, total_s: float, event: str = "", rung: str = "c-dcscn") -> Frame:
    decode, wait = 0.1 * total_s, 0.05 * total_s
    stamps = Stamps(
        read=100.0, decoded=100 + decode, infer_start=100 + decode + wait,
        infer_end=100 + 0.8 * total_s, encode_start=100 + 0.8 * total_s, encoded=100 + total_s,
        muxed=100 + total_s + 0.0001,
    )  # fmt: skip
    return Frame(
        planes=(NO_PLANE,) * 3, index=index, pts=index * 90_000 // FPS, duration=0,
        time_base=Fraction(1, 90_000), stamps=stamps, event=event, rung=rung,
    )  # fmt: skip


def frames_of(count: int) -> list[Frame]:
    """Return frames: another rung in every fifth hundred, fallbacks, drops, heavy-tailed times."""
    times = np.random.default_rng(5).lognormal(-3.5, 0.6, count)
    events = {17: "fallback", 31: "dropped"}
    found = []
    for k, total in enumerate(times):
        event = events.get(k % 97, "")
        rung = "" if event == "dropped" else ("bicubic" if k // 100 % 5 == 0 else "c-dcscn")
        found.append(frame_of(k, float(total), event, rung))
    return found


@dataclass
class Run:
    """A relay's report and its rolling ledger, with clocks that tests set."""

    folder: Path
    name: str = "out.json"
    period: float = 10.0
    keep: int = 24
    rows: int = 200_000
    at: float = 50.0
    wall: float = BEGAN
    patient: bool = True
    """Whether `feed` waits until each period is written."""
    plain: Ledger = field(default_factory=Ledger)
    """A plain ledger of all rows, for comparison."""

    def __post_init__(self) -> None:
        self.path = self.folder / self.name
        self.report = Report(
            input={"name": "in", "rate": str(FPS)}, output={"name": "out"}, deadline=DEADLINE
        )
        settings = RollingSettings(
            report=self.path, period=self.period, rows=self.rows, keep=self.keep
        )
        self.ledger = RollingLedger(
            settings, 1000 * DEADLINE, self.report.facts_of, lambda: self.at, lambda: self.wall
        )
        self.report.ledger = self.ledger

    def feed(self, frames: list[Frame]) -> "Run":
        for frame in frames:
            self.ledger.add(Row.of(frame))
            self.plain.add(Row.of(frame))
            self.pass_by(1 / FPS)
            if self.patient and len(self.ledger) == 1:
                wait_for(self.rests, SOON, "a period is not written")
        return self

    def pass_by(self, seconds: float) -> None:
        self.at, self.wall = round(self.at + seconds, 6), round(self.wall + seconds, 6)

    def rests(self) -> bool:
        """Return whether the writer is idle; `feed` waits for it, as test time is faster."""
        writer = self.ledger._writer
        return writer is not None and writer._is_idle and not writer._has_new

    def end(self) -> dict[str, Any]:
        """Close the ledger, write the report and return its facts."""
        self.ledger.close(SOON)
        self.count()
        facts = self.report.facts()
        write_report(self.path, facts, self.ledger)
        return facts

    def count(self) -> None:
        self.report.frames_in = len(self.plain)
        self.report.lost = self.plain.count_events("dropped")
        self.report.frames_out = self.report.frames_in - self.report.lost
        self.report.seconds = 20.0

    def parts(self) -> list[str]:
        own = self.path.stem + "-"
        return sorted(p.name for p in self.folder.iterdir() if p.name.startswith(own))


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("suffix", [".json", ".csv", ".html"])
def test_a_short_relay_gives_exactly_todays_report(tmp_path: Path, suffix: str) -> None:
    run = Run(tmp_path, f"out{suffix}", period=600).feed(frames_of(400))
    run.end()
    run.report.ledger = run.plain
    write_report(tmp_path / f"plain{suffix}", run.report.facts(), run.plain)
    assert run.path.read_bytes() == (tmp_path / f"plain{suffix}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
    assert not any(thread.name == "report" for thread in threading.enumerate())


def test_pictures_of_a_period_that_no_output_sent_did_not_go_out(tmp_path: Path) -> None:
    run, ledger = Run(tmp_path), Ledger()
    for index in range(5):
        frame = frame_of(index, 0.1)
        frame.stamps.sent = math.nan if index < 2 else frame.stamps.encoded
        ledger.add(Row.of(frame))
    assert run.report.facts_of(ledger, 1.0)["frames"] | {"concealed": 0} == {
        "in": 5, "out": 3, "dropped": 0, "concealed": 0,
    }  # fmt: skip


def test_json_is_written_as_the_json_module_would(tmp_path: Path) -> None:
    for count in (0, 1, 3):
        ledger = Ledger()
        for frame in frames_of(count):
            ledger.add(Row.of(frame))
        ledger.add(Row.of(frame_of(9, 0.1, rung='"a", {b}\n'))) if count == 3 else None
        facts = {"input": {"name": "ä\n]\n}"}, "notes": []}
        write_report(tmp_path / "x.json", facts, ledger)
        whole = {"schema": "vsr-report/1", **facts, "ledger": list(ledger.rows())}
        expected = json.dumps(whole, indent=1) + "\n"
        assert (tmp_path / "x.json").read_text(encoding="utf-8") == expected


def test_periods_become_files_and_their_rows_are_all_the_rows(tmp_path: Path) -> None:
    frames = frames_of(900)  # 36 s: three periods, and 6 s of the next
    run = Run(tmp_path).feed(frames)
    facts = run.end()
    names = [f"out-20261121T1800{s}Z.json" for s in ("00", "10", "20")]
    assert run.parts() == facts["parts"] == names
    parts, last = [read(tmp_path / name) for name in names], read(run.path)
    rows = [row for report in (*parts, last) for row in report["ledger"]]
    assert rows == list(run.plain.rows())
    assert facts["ledger_from"] == {"index": 750, "pts_s": 30.0, "time": "2026-11-21T18:00:30Z"}
    assert last["ledger"][0]["index"] == 750
    for k, part in enumerate(parts):
        own = Ledger()
        for frame in frames[250 * k : 250 * (k + 1)]:
            own.add(Row.of(frame))
        dropped = own.count_events("dropped")
        assert part["schema"] == "vsr-report/1"
        assert list(part["ledger"][0]) == list(COLUMNS)
        assert part["stages"] == own.stages()
        assert part["frames"] == {
            "in": 250, "out": 250 - dropped, "dropped": dropped, "concealed": 0
        }  # fmt: skip
        assert part["fps"] == pytest.approx((250 - dropped) / 10)
        assert part["deadline"] == {"ms": 60.0, "misses": own.count_later_than(60.0)}
        assert part["period"]["from"] == f"2026-11-21T18:00:{10 * k:02}Z"
        assert part["period"]["to"] == f"2026-11-21T18:00:{10 * k + 10:02}Z"


def test_whole_run_figures_are_those_of_a_plain_ledger(tmp_path: Path) -> None:
    run = Run(tmp_path).feed(frames_of(3000))
    facts, told, plain = run.end(), run.ledger, run.plain
    assert len(told) < 300
    assert told.count_later_than(60.0) == plain.count_later_than(60.0) > 100
    assert facts["deadline"]["misses"] == plain.count_later_than(60.0)
    for event in ("dropped", "fallback", "", "never"):
        assert told.count_events(event) == plain.count_events(event)
    rows = list(plain.rows())
    for key, column in (("rungs", "rung"), ("events", "event")):
        names = [row[column] for row in rows]
        assert facts[key] == {name: names.count(name) for name in set(names) if name}
    assert told.stages() == plain.stages()
    for stage in STAGES:
        times = np.array([row[f"{stage}_ms"] for row in rows if row[f"{stage}_ms"] is not None])
        middle, late, latest = np.percentile(times, (50, 95, 99))
        exact = {
            "mean": times.mean(),
            "p50": middle,
            "p95": late,
            "p99": latest,
            "max": times.max(),
        }
        for name, value in told.stages()[stage].items():
            wide = 1e-3 if name in ("mean", "max") else 0.01 * exact[name] + 1e-3
            assert value == pytest.approx(exact[name], abs=wide, rel=0), (stage, name)
    with pytest.raises(ValueError, match="later than 60"):
        told.count_later_than(61.0)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 99, 5000])
@pytest.mark.parametrize("spread", [0.05, 1.0, 3.0])
def test_percentiles_are_numpys_to_1_percent(count: int, spread: float) -> None:
    """This includes few rows with distant values, between which numpy interpolates."""
    rng = np.random.default_rng(count)
    totals, times = Totals(500.0), rng.lognormal(-3, spread, count)
    for k, seconds in enumerate(times):
        totals.add(Row.of(frame_of(k, float(seconds))))
    told = totals.stages()["total"]
    for name, q in (("p50", 50), ("p95", 95), ("p99", 99)):
        exact = 1000 * np.percentile(times, q)
        assert told[name] == pytest.approx(exact, rel=0.01, abs=2e-3), name
    assert told["max"] == pytest.approx(1000 * times.max(), rel=1e-6, abs=1e-3)


def test_nothing_but_drops_has_no_stages(tmp_path: Path) -> None:
    run = Run(tmp_path).feed([frame_of(k, 0.1, "dropped") for k in range(600)])
    facts = run.end()
    assert facts["stages"] == {}
    assert facts["deadline"]["misses"] == facts["frames"]["dropped"] == 600


def test_memory_does_not_grow(tmp_path: Path) -> None:
    frame, limit = frame_of(0, 0.02), 1000
    ledger = RollingLedger(RollingSettings(rows=limit), 60.0, lambda _rows, _seconds: {})
    marks = []
    tracemalloc.start()
    try:
        for k in range(10 * limit):
            frame.index = k
            ledger.add(Row.of(frame))
            assert len(ledger) <= limit
            if k % limit == limit - 1:
                marks.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert marks[-1] < marks[1] + 24_000  # a period takes 48,000 bytes; other threads may allocate
    assert ledger.missing_row_facts()["rungs"] == {"c-dcscn": 10 * limit}
    assert ledger.missing_row_facts()["parts"] == []
    assert list(tmp_path.iterdir()) == []


def test_a_period_ends_at_its_number_of_rows_too(tmp_path: Path) -> None:
    """Two periods that start within the same second get different names."""
    run = Run(tmp_path, rows=10)
    run.feed(frames_of(35))
    facts = run.end()
    assert len(facts["parts"]) == len(set(facts["parts"])) == 3
    found = [row["index"] for name in facts["parts"] for row in read(tmp_path / name)["ledger"]]
    assert found == list(range(30))
    assert facts["ledger_from"]["index"] == 30


def test_only_the_newest_are_kept_and_foreign_files_survive(tmp_path: Path) -> None:
    foreign = [
        "out-20201121T180000Z.csv", "out-20201121T180000Z.json.bak", "out-2020.json",
        "xout-20201121T180000Z.json", "out2-20201121T180000Z.json", "out-20201121T180000z.json",
        "out-notes.json", "out-20201121T1800000Z.json", "outx20201121T180000Z.json",
    ]  # fmt: skip
    for name in foreign:
        (tmp_path / name).write_text("mine")
    (tmp_path / "out-20200101T000000Z.json").write_text("of an earlier run")
    (tmp_path / "out-20190101T000000Z.json").mkdir()
    (tmp_path / "out-20180101T000000Z.json").symlink_to(tmp_path / foreign[0])
    run = Run(tmp_path, keep=3).feed(frames_of(1500))  # five finished periods and a sixth
    facts = run.end()
    assert facts["parts"] == [f"out-20261121T1800{s}Z.json" for s in ("20", "30", "40")]
    there = {p.name for p in tmp_path.iterdir()}
    more = {"out.json", "out-20190101T000000Z.json", "out-20180101T000000Z.json"}
    assert there == {*foreign, *facts["parts"], *more}
    assert {(tmp_path / name).read_text() for name in foreign} == {"mine"}


def test_names_go_on_when_the_systems_clock_goes_back(tmp_path: Path) -> None:
    run = Run(tmp_path, keep=2)
    for _ in range(4):
        run.feed(frames_of(250))
        run.wall -= 3600
    run.feed(frames_of(1))
    parts = run.end()["parts"]
    assert [read(tmp_path / name)["period"]["from"][11:13] for name in parts] == ["16", "15"]
    assert parts == sorted(parts)


def test_a_source_that_was_away_ends_its_period(tmp_path: Path) -> None:
    run = Run(tmp_path).feed(frames_of(100))
    run.pass_by(8 * 3600)
    run.feed(frames_of(1))
    part = read(tmp_path / run.end()["parts"][0])
    assert part["frames"]["in"] == 100
    assert part["period"]["to"] == "2026-11-21T18:00:10Z"


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def _no_folder(run: Run) -> Callable[[], object]:
    away = run.folder.with_name("away")
    run.folder.rename(away)
    return lambda: away.rename(run.folder)


def test_a_folder_that_is_gone_warns_once_and_loses_nothing_that_was_held(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "there").mkdir()
    run = Run(tmp_path / "there")
    back = _no_folder(run)
    frames = frames_of(1300)
    for k in range(4):
        run.feed(frames[250 * k + (k > 0) : 250 * k + 251])
        wait_for(lambda: caplog.records, SOON, "no warning")
        wait_for(run.rests, SOON, "the writer does not rest")
    assert [r.getMessage() for r in caplog.records] == [
        f"the report's folder does not exist: {run.folder}; the relay continues and "
        "retries after the next period"
    ]
    back()
    run.feed(frames[1001:])
    facts = run.end()
    # the period held when the folder came back, and the period that ended then
    assert facts["parts"] == [f"out-20261121T1800{s}Z.json" for s in ("30", "40")]
    assert run.ledger.count_events("dropped") == run.plain.count_events("dropped")
    assert len(caplog.records) == 1


def test_a_full_disk_is_told_again_after_it_was_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    run, frames = Run(tmp_path), frames_of(250)
    run.feed([*frames, *frames])
    for expected in (1, 2):
        with monkeypatch.context() as full:
            full.setattr(Path, "replace", _full)
            run.feed(frames)
            wait_for(lambda n=expected: len(caplog.records) == n, SOON, "no warning")
        run.feed(frames)
    assert "No space left on device" in caplog.text
    # nothing was lost, and no partial file remains
    assert run.end()["parts"] == [f"out-20261121T1800{s}Z.json" for s in ("00", 10, 20, 30, 40)]
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_disk_that_hangs_holds_up_neither_the_relay_nor_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    started, hangs, written = threading.Event(), threading.Event(), []

    def write(path: Path, *_: object) -> None:
        started.set()
        hangs.wait(SOON)
        written.append(path.name)

    monkeypatch.setattr(periods, "write_report", write)
    run, frames = Run(tmp_path, patient=False), frames_of(250)
    for _ in range(2):
        run.feed(frames)
    assert started.wait(SOON)  # the first period is being written: it is not discarded
    for _ in range(4):
        run.feed(frames)
    assert [r.getMessage() for r in caplog.records] == [
        "the report's disk is too slow: discarding the oldest rows until it recovers"
    ]
    run.ledger.close(0.01)
    assert run.ledger.count_events("fallback") == run.plain.count_events("fallback")
    hangs.set()
    run.ledger.close(SOON)
    # the period being written and the two newest of the others, as after failed writes
    assert written == [f"out-20261121T1800{s}Z.json" for s in ("00", "30", "40")]


def test_readers_and_the_publishing_thread_do_not_meet(tmp_path: Path) -> None:
    """A growing array raises BufferError when appended to while numpy has a view of it."""
    run, frames = Run(tmp_path, rows=500, period=1e9), frames_of(500)
    failed: list[BaseException] = []

    def publish() -> None:
        try:
            for _ in range(8):
                run.feed(frames)
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=publish)
    thread.start()
    while thread.is_alive():
        assert len(list(run.ledger.rows())) <= 500
        assert len(run.ledger.columns().index) <= 500
        run.ledger.stages()
        run.ledger.missing_row_facts()
    thread.join()
    assert not failed
    run.ledger.close(SOON)
    assert run.ledger.count_later_than(60.0) == run.plain.count_later_than(60.0)


def test_the_page_says_what_it_shows(tmp_path: Path) -> None:
    run = Run(tmp_path, "out.html").feed(frames_of(900))
    facts = run.end()
    found = Page(run.path.read_text(encoding="utf-8"))
    said = "\n".join(found.text["li"])
    dropped = run.plain.count_events("dropped")
    assert "frames cover its last period only, from 0:30.00 on: 150 of 900 frames" in said
    assert "in 3 files in the same folder" in said
    assert facts["parts"][0] in found.text["bdi"]
    fallbacks = run.plain.count_events("fallback")
    assert f"Events: {fallbacks} fallback, {dropped} dropped." in said
    assert "the rung changed" not in said  # not counted for the whole run
    heads = found.text["h2"]
    assert "Latency by stage, whole run" in heads
    assert "Total latency over input time since 0:30.00" in heads
    totals = [row["total_ms"] for row in run.plain.rows() if row["total_ms"] is not None]
    stages, frames = found.tables
    assert float(stages[-1][-1].replace(",", "")) == max(totals)
    assert min(int(row[0]) for row in frames[1:]) >= 750
    part = Page((tmp_path / facts["parts"][1]).read_text(encoding="utf-8"))
    said = "\n".join(part.text["li"])
    assert "a longer run, from 2026-11-21T18:00:10Z to 2026-11-21T18:00:20Z." in said
    assert "the rung changed" in said
    assert "Latency by stage" in part.text["h2"]


def test_both_ledgers_are_what_a_report_takes() -> None:
    ledgers: list[LatencyLedger] = [
        Ledger(),
        RollingLedger(RollingSettings(), 500.0, lambda _rows, _seconds: {}),
    ]
    for ledger in ledgers:
        assert (len(ledger), ledger.stages(), ledger.missing_row_facts(), list(ledger.rows())) == (
            0, {}, {}, [],
        )  # fmt: skip


def test_a_period_begins_with_its_first_row_in_whichever_order_rows_come() -> None:
    ledger = RollingLedger(RollingSettings(rows=2), 60.0, lambda _rows, _seconds: {})
    for index in (0, 1, 4, 2, 3):  # frame 4 was dropped while 2 and 3 were in progress
        ledger.add(Row.of(frame_of(index, 0.02, "dropped" if index == 4 else "")))
        if index == 2:
            assert ledger.missing_row_facts()["ledger_from"]["index"] == 2
    assert [row["index"] for row in ledger.rows()] == [3]
