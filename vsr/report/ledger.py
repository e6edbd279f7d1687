"""The latency ledger: what every frame cost at every stage -> percentiles -> JSON, CSV, HTML."""

import csv
import json
import math
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

import numpy as np
import numpy.typing as npt

from vsr.errors import OutputError, UsageError, reason
from vsr.media.frame import Frame
from vsr.report.html import Codes, Columns, page

SCHEMA: Final = "vsr-report/1"
STAGES: Final = ("decode", "wait", "infer", "encode", "mux", "total")
FORMATS: Final = (".html", ".json", ".csv")
COLUMNS: Final = ("index", "pts_s", *(f"{stage}_ms" for stage in STAGES), "rung", "event")


def stage_ms(frame: Frame) -> tuple[float, ...]:
    """Milliseconds per stage, in the order of `STAGES`.

    `wait` is the time in the two hand-overs, with what the decoder stood still because they were
    full; `encode` includes the encoder's delay; `total` runs from the packet's reading to its own
    encoded packet's arrival at the muxer. A dropped frame has no times (NaN).
    """
    s = frame.stamps
    if frame.event == "dropped":
        return (float("nan"),) * len(STAGES)
    wait = s.blocked + (s.infer_start - s.decoded) + (s.encode_start - s.infer_end)
    seconds = (
        s.decoded - s.read - s.blocked,
        wait,
        s.infer_end - s.infer_start,
        s.encoded - s.encode_start,
        s.muxed - s.encoded,
        s.encoded - s.read,
    )
    return tuple(1000 * t for t in seconds)


class LatencyLedger(Protocol):
    """What a report needs of a ledger: all rows, or the newest and figures of those before."""

    def __len__(self) -> int:
        """Rows held."""

    def add(self, frame: Frame) -> None:
        """Record a frame."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows held, keyed by `COLUMNS`."""

    def columns(self) -> Columns:
        """The rows held, as arrays."""

    def stages(self) -> dict[str, dict[str, float]]:
        """Mean, percentiles and maximum of every stage of the whole run (ms)."""

    def count_later_than(self, ms: float) -> int:
        """Frames of the whole run that came later."""

    def count_events(self, event: str) -> int:
        """Frames of the whole run marked with this event."""

    def extent(self) -> dict[str, Any]:
        """What a report's facts say of rows that are not held; empty when all are."""


class Ledger:
    """One row per input frame; compact columns, so that a long film stays small in memory."""

    def __init__(self) -> None:
        self._index = array("q")
        self._pts = array("d")
        self._ms = tuple(array("f") for _ in STAGES)
        self._rung: list[str] = []
        self._event: list[str] = []

    def __len__(self) -> int:
        return len(self._index)

    def copy(self) -> "Ledger":
        """The rows so far, which do not follow later ones."""
        other = Ledger()
        other._index, other._pts = self._index[:], self._pts[:]
        other._ms = tuple(column[:] for column in self._ms)
        other._rung, other._event = self._rung[:], self._event[:]
        return other

    def add(self, frame: Frame) -> None:
        """Record a frame whose packet has been muxed. Frames may come in coding order."""
        self._index.append(frame.index)
        self._pts.append(frame.time)
        for column, value in zip(self._ms, stage_ms(frame), strict=True):
            column.append(value)
        self._rung.append(frame.rung)
        self._event.append(frame.event)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows in input order, keyed by `COLUMNS`."""
        for i in np.argsort(np.frombuffer(self._index, np.int64), kind="stable"):
            ms = (_rounded(column[i]) for column in self._ms)
            values = (self._index[i], round(self._pts[i], 6), *ms, self._rung[i], self._event[i])
            yield dict(zip(COLUMNS, values, strict=True))

    def columns(self) -> Columns:
        """The rows in input order, as arrays that do not follow later rows."""
        index = np.array(self._index, np.int64)
        order = np.argsort(index, kind="stable")
        rungs, rung = _coded(self._rung)
        events, event = _coded(self._event)
        return Columns(
            stages=STAGES,
            index=index[order],
            pts=np.array(self._pts, np.float64)[order],
            ms=np.stack([np.array(column, np.float32)[order] for column in self._ms]),
            rungs=rungs,
            rung=rung[order],
            events=events,
            event=event[order],
        )

    def stages(self) -> dict[str, dict[str, float]]:
        """Mean, percentiles and maximum of every stage in milliseconds; empty without frames."""
        found = {}
        for stage, column in zip(STAGES, self._ms, strict=True):
            times = np.array(column, np.float64)
            times = times[np.isfinite(times)]  # dropped frames have none
            if times.size:
                found[stage] = summary(times)
        return found

    def count_later_than(self, ms: float) -> int:
        """Frames whose packets went out later than that after they came; dropped ones too."""
        total = np.array(self._ms[-1], np.float64)
        return int(np.count_nonzero(~(total <= ms)))

    def count_events(self, event: str) -> int:
        """Rows marked with this event."""
        return self._event.count(event)

    def extent(self) -> dict[str, Any]:
        """All rows are here."""
        return {}


def _rounded(ms: float) -> float | None:
    """Milliseconds for a row; None where there are none."""
    return round(ms, 3) if math.isfinite(ms) else None


def summary(values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    """Mean, p50, p95, p99 and max, rounded to a microsecond."""
    data = np.asarray(values, np.float64)
    p50, p95, p99 = np.percentile(data, (50, 95, 99))
    numbers = {"mean": data.mean(), "p50": p50, "p95": p95, "p99": p99, "max": data.max()}
    return {name: round(float(value), 3) for name, value in numbers.items()}


def _coded(names: Sequence[str]) -> tuple[tuple[str, ...], Codes]:
    """The names that occur, in the order of their coming, and each row's place among them."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return tuple(places), np.fromiter(map(places.__getitem__, names), np.int64, len(names))


def check_report_path(path: Path) -> None:
    """Refuse a report that could not be written, before the work begins."""
    if path.is_dir():
        raise OutputError(f"the report {path} is a folder: name a file in it")
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"a report ends in .html, .json or .csv, not '{path.name}'")
    if not path.parent.is_dir():
        raise OutputError(f"the report's folder does not exist: {path.parent}")


def _write_csv(file: TextIO, ledger: LatencyLedger) -> None:
    """The rows with a header line."""
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows(ledger.rows())


def _write_json(file: TextIO, facts: dict[str, Any], ledger: LatencyLedger) -> None:
    """As `json.dumps(..., indent=1)`, row by row: a long run's rows never lie in memory at once."""
    head = json.dumps({"schema": SCHEMA, **facts, "ledger": []}, indent=1)
    file.write(head.removesuffix("]\n}"))
    encode = json.JSONEncoder(separators=(",\n   ", ": ")).encode  # quick, as it has no indent
    between, end = "\n", "]\n}\n"
    for row in ledger.rows():
        file.write(f"{between}  {{\n   {encode(row)[1:-1]}\n  }}")
        between, end = ",\n", "\n ]\n}\n"
    file.write(end)


def write_report(path: Path, facts: dict[str, Any], ledger: LatencyLedger) -> None:
    """Write `facts` and the rows as .json, the rows as .csv, or both as an .html to read.

    Replaces the file when whole. Raises OutputError.
    """
    check_report_path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            if path.suffix.lower() == ".csv":
                _write_csv(file, ledger)
            elif path.suffix.lower() == ".html":
                file.write(page(facts, ledger.columns()))
            else:
                _write_json(file, facts, ledger)
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write the report {path}: {reason(exc)}") from exc
