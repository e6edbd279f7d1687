"""The latency ledger: what every frame cost at every stage -> percentiles -> JSON, CSV, HTML."""

import csv
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

import numpy as np

from vsr.errors import OutputError, UsageError, reason
from vsr.media.frame import Frame
from vsr.media.whole_file import written_whole
from vsr.report.histogram import Histogram
from vsr.report.html.columns import Codes, Columns

SCHEMA: Final = "vsr-report/1"
STAGES: Final = ("decode", "wait", "infer", "encode", "mux", "total")
FORMATS: Final = (".html", ".json", ".csv")
PLACES: Final = ("host", "device")
"""Columns of a run on several devices or computers, behind the others."""
COLUMNS: Final = ("index", "pts_s", *(f"{stage}_ms" for stage in STAGES), "rung", "event")


def stage_ms(frame: Frame) -> tuple[float, ...]:
    """Milliseconds per stage, in the order of `STAGES`.

    `wait` is the time in the two hand-overs, with what the decoder stood still because they were
    full or, live, because a picture is shown after others that come later; `encode` includes the
    encoder's delay; `total` runs from the packet's reading to its own encoded packet's arrival at
    the muxer. Of a relay, `mux` and `total` run until the slowest
    output has written the packet. A dropped frame has no times (NaN).
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
        (s.sent or s.muxed) - s.encoded,
        (s.sent or s.encoded) - s.read,
    )
    return tuple(1000 * t for t in seconds)


@dataclass(frozen=True, slots=True)
class Row:
    """What a ledger keeps of a frame."""

    index: int
    pts_s: float
    ms: tuple[float, ...]
    """Milliseconds, in the order of `STAGES` and to the precision of a ledger (float32)."""
    rung: str
    event: str

    @classmethod
    def of(cls, frame: Frame) -> "Row":
        """The row of a frame whose packet has been muxed, or that was dropped."""
        ms = tuple(array("f", stage_ms(frame)))
        return cls(frame.index, frame.time, ms, frame.rung, frame.event)


class LatencyLedger(Protocol):
    """What a report needs of a ledger: all rows, or the newest and figures of those before."""

    names: tuple[str, ...]
    """Keys of the rows, in order."""

    def __len__(self) -> int:
        """Rows held."""

    def add(self, row: Row) -> None:
        """Record a frame."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows held, keyed by `names`."""

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

    def __init__(self, places: bool = False) -> None:
        """`places`: whether rows say on which computer and device their frame was made."""
        self.names: tuple[str, ...] = (*COLUMNS, *PLACES) if places else COLUMNS
        self._place: list[tuple[str, ...]] = []
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
        other.names, other._place = self.names, self._place[:]
        return other

    def add(self, row: Row) -> None:
        """Record a frame. Rows may come in coding order."""
        self._index.append(row.index)
        self._pts.append(row.pts_s)
        for column, value in zip(self._ms, row.ms, strict=True):
            column.append(value)
        self._rung.append(row.rung)
        self._event.append(row.event)

    def extend(self, other: "Ledger", shift: int, host: str, device: str) -> None:
        """Add the rows of frames that were made there, counted from `shift` on."""
        self._index.extend(index + shift for index in other._index)
        self._pts.extend(other._pts)
        for column, more in zip(self._ms, other._ms, strict=True):
            column.extend(more)
        self._rung += other._rung
        self._event += other._event
        if len(self.names) > len(COLUMNS):
            self._place += [(host, device)] * len(other)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows in input order, keyed by `names`."""
        for i in np.argsort(np.frombuffer(self._index, np.int64), kind="stable"):
            ms = (_rounded(column[i]) for column in self._ms)
            values = (self._index[i], round(self._pts[i], 6), *ms, self._rung[i], self._event[i])
            place = self._place[i] if self._place else ()
            yield dict(zip(self.names, (*values, *place), strict=True))

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
        """`Histogram.summary` of every stage; empty without frames that have times."""
        return summaries(Histogram.of(np.array(column, np.float32)) for column in self._ms)

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


def summaries(stages: Iterable[Histogram]) -> dict[str, dict[str, float]]:
    """Mean, percentiles and maximum (ms) of every stage, given in the order of `STAGES`."""
    found = zip(STAGES, (stage.summary() for stage in stages), strict=True)
    return {stage: figures for stage, figures in found if figures}


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
    writer = csv.DictWriter(file, ledger.names)
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
    try:
        with (
            written_whole(path) as part,
            part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            if path.suffix.lower() == ".csv":
                _write_csv(file, ledger)
            elif path.suffix.lower() == ".html":
                from vsr.report.html.page import page  # Jinja2 is loaded when a page is written

                file.write(page(facts, ledger.columns()))
            else:
                _write_json(file, facts, ledger)
    except OSError as exc:
        raise OutputError(f"cannot write the report {path}: {reason(exc)}") from exc
