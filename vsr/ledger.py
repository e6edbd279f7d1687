"""The latency ledger: what every frame cost at every stage -> percentiles -> JSON and CSV."""

import csv
import io
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from vsr.errors import OutputError, UsageError, reason
from vsr.frame import Frame

SCHEMA: Final = "vsr-report/1"
STAGES: Final = ("decode", "wait", "infer", "encode", "mux", "total")
COLUMNS: Final = ("index", "pts_s", *(f"{stage}_ms" for stage in STAGES), "rung", "event")


def stage_ms(frame: Frame) -> tuple[float, ...]:
    """Milliseconds per stage, in the order of `STAGES`.

    `wait` is the time in the two hand-overs, with what the decoder stood still because they were
    full; `encode` includes the encoder's delay; `total` runs from the packet's reading to its own
    encoded packet's arrival at the muxer.
    """
    s = frame.stamps
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
            ms = (round(column[i], 3) for column in self._ms)
            values = (self._index[i], round(self._pts[i], 6), *ms, self._rung[i], self._event[i])
            yield dict(zip(COLUMNS, values, strict=True))

    def stages(self) -> dict[str, dict[str, float]]:
        """Mean, percentiles and maximum of every stage in milliseconds; empty without frames."""
        return {
            stage: summary(column)
            for stage, column in zip(STAGES, self._ms, strict=True)
            if len(column)
        }

    def count_events(self, event: str) -> int:
        """Rows marked with this event."""
        return self._event.count(event)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean, p50, p95, p99 and max, rounded to a microsecond."""
    data = np.asarray(values, np.float64)
    p50, p95, p99 = np.percentile(data, (50, 95, 99))
    numbers = {"mean": data.mean(), "p50": p50, "p95": p95, "p99": p99, "max": data.max()}
    return {name: round(float(value), 3) for name, value in numbers.items()}


def as_csv(ledger: Ledger) -> str:
    """The rows as CSV with a header line."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(ledger.rows())
    return text.getvalue()


def check_report_path(path: Path) -> None:
    """Refuse a report that could not be written, before the work begins."""
    if path.is_dir():
        raise OutputError(f"the report {path} is a folder: name a file in it")
    if path.suffix.lower() not in (".json", ".csv"):
        raise UsageError(f"a report ends in .json or .csv, not '{path.name}'")
    if not path.parent.is_dir():
        raise OutputError(f"the report's folder does not exist: {path.parent}")


def write_report(path: Path, facts: dict[str, Any], ledger: Ledger) -> None:
    """Write `facts` and the rows as .json, or the rows as .csv; replaces the file when whole."""
    check_report_path(path)
    if path.suffix.lower() == ".csv":
        text = as_csv(ledger)
    else:
        report = {"schema": SCHEMA, **facts, "ledger": list(ledger.rows())}
        text = json.dumps(report, indent=1) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write the report {path}: {reason(exc)}") from exc
