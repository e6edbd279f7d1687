"""The latency ledger: every frame, every timestamp, correct percentiles, complete files."""

import csv
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import vsr
from tests.clips import Clip, make_clip
from tests.facts import contents
from vsr.errors import OutputError
from vsr.media import source as source_module
from vsr.media.frame import Frame, Stamps
from vsr.media.source import Source
from vsr.report.histogram import EXACT_MS, Histogram
from vsr.report.ledger import COLUMNS, STAGES, Ledger, Row, stage_ms, write_report

PLANE = np.zeros((2, 2), np.uint8)


def frame(index: int, stamps: Stamps | None = None) -> Frame:
    return Frame(
        planes=(PLANE, PLANE, PLANE), index=index, pts=40 * index, time_base=Fraction(1, 1000),
        duration=40, stamps=stamps or Stamps(), rung="bicubic",
    )  # fmt: skip


def test_stages_add_up() -> None:
    stamps = Stamps(
        read=1.0, decoded=1.110, wait_s=0.1, infer_start=1.115, infer_end=1.145,
        encode_start=1.150, encoded=1.210, muxed=1.212,
    )  # fmt: skip
    decode, wait, infer, encode, mux, total = stage_ms(frame(0, stamps))
    assert (decode, wait, infer, encode, mux) == pytest.approx((10, 110, 30, 60, 2))
    assert total == pytest.approx(decode + wait + infer + encode)


def test_percentiles_are_numpys_to_1_percent_and_counts_are_exact() -> None:
    values = np.array([*map(float, range(1, 101)), *EXACT_MS, np.nan])
    one_by_one = Histogram()
    for value in values:
        one_by_one.add(float(value))
    known = values[:-1]
    for histogram in (Histogram.of(values), one_by_one, one_by_one.copy()):
        told = histogram.summary()
        for name, percent in (("p50", 50), ("p95", 95), ("p99", 99)):
            assert told[name] == pytest.approx(np.percentile(known, percent), rel=0.01)
        assert (told["mean"], told["max"]) == (round(float(known.mean()), 3), 5000.0)
        for bound in EXACT_MS:
            assert histogram.up_to(bound) == np.count_nonzero(known <= bound)
    assert Histogram.of(np.array([np.nan])).summary() == {}


def test_rows_are_in_input_order_whatever_the_coding_order() -> None:
    ledger = Ledger()
    for index in (0, 4, 2, 1, 3):
        ledger.add(Row.of(frame(index)))
    rows = list(ledger.rows())
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["pts_s"] for row in rows] == [0.0, 0.04, 0.08, 0.12, 0.16]


def test_a_run_writes_the_contracts_json(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=30))
    target = tmp_path / "report.json"
    vsr.upscale(clip, tmp_path / "out.mp4", model="bicubic", report=target)
    report = json.loads(target.read_text())
    assert report["schema"] == "vsr-report/1"
    assert report["frames"] == {"in": 30, "out": 30, "dropped": 0, "concealed": 0}
    assert set(report["stages"]) == set(STAGES)
    assert set(report["stages"]["total"]) == {"mean", "p50", "p95", "p99", "max"}
    assert {"versions", "machine", "input", "output", "fps", "deadline"} <= set(report)
    rows = report["ledger"]
    assert [row["index"] for row in rows] == list(range(30))
    assert list(rows[0]) == list(COLUMNS)
    pts = [float(t) for t in contents(clip).pts]
    assert [row["pts_s"] for row in rows] == pytest.approx(pts, abs=1e-6)
    for row in rows:
        assert row["rung"] == "bicubic"
        stages = [row[f"{stage}_ms"] for stage in ("decode", "wait", "infer", "encode")]
        assert min(stages) >= 0
        assert row["total_ms"] == pytest.approx(sum(stages), abs=0.1)
    totals = [row["total_ms"] for row in rows]
    assert report["stages"]["total"]["max"] == pytest.approx(max(totals), abs=0.01)


def test_the_csv_holds_the_same_rows(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=10))
    result = vsr.upscale(
        clip, tmp_path / "out.mp4", model="bicubic", report=tmp_path / "report.csv"
    )
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert list(rows[0]) == list(COLUMNS)
    expected = [row["total_ms"] for row in result.ledger.rows()]
    assert [float(row["total_ms"]) for row in rows] == expected


def test_the_encoders_delay_is_in_the_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a lookahead of 20 frames, the encoder returns the first packet after 20 frames."""
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=40))
    seen: dict[int, Stamps] = {}
    row_of = Row.of

    def note(frame: Frame) -> Row:
        seen[frame.index] = frame.stamps
        return row_of(frame)

    monkeypatch.setattr(Row, "of", note)
    vsr.upscale(
        clip, tmp_path / "out.mp4", model="bicubic",
        encoder_options={"x264-params": "rc-lookahead=20:sync-lookahead=0:threads=1"},
    )  # fmt: skip
    assert len(seen) == 40
    assert seen[0].encoded > seen[19].encode_start


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_report(tmp_path / "report.json", {}, Ledger())
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_waiting_for_later_stages_is_not_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer delays the decoder by 10 s per frame, on a clock that the test sets."""
    clock = 100.0
    monkeypatch.setattr(source_module, "now", lambda: clock)
    source = Source(str(make_clip(tmp_path / "in.mp4", Clip(frames=20))))
    clock = 150.0  # the time to compile a network
    stamps = []
    for item in source:
        if isinstance(item, Frame):
            stamps.append(item.stamps)
        clock += 10
    source.close()
    assert len(stamps) == 20
    for s in stamps:
        assert s.read >= 150
        assert s.decoded - s.read - s.wait_s == 0
    assert max(s.wait_s for s in stamps) > 0
