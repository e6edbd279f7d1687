"""The latency ledger: records every frame's time per stage, and writes it as JSON, CSV or HTML."""

import csv
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

import numpy as np
import numpy.typing as npt

from vsr.errors import OutputError, UsageError, reason
from vsr.media.frame import Frame
from vsr.media.whole_file import write_atomically
from vsr.report.histogram import Histogram
from vsr.report.html.columns import Codes, Columns

SCHEMA: Final = "vsr-report/1"
STAGES: Final = ("decode", "wait", "infer", "encode", "mux", "total")
FORMATS: Final = (".html", ".json", ".csv")
PLACE_COLUMNS: Final = ("host", "device")
"""Columns appended for a run on several devices or computers."""
COLUMNS: Final = ("index", "pts_s", *(f"{stage}_ms" for stage in STAGES), "rung", "event")


_ROW_DTYPE: Final = np.dtype(
    [
        ("index", np.int64), ("pts", np.float64), ("ms", np.float32, (len(STAGES),)),
        ("rung", np.uint32), ("event", np.uint32),
    ]
)  # fmt: skip
_MIN_CAPACITY: Final = 256
"""Minimum initial capacity, in rows."""


def stage_ms(frame: Frame) -> tuple[float, ...]:
    """Return the milliseconds per stage, in the order of `STAGES`.

    `wait` is the time in the two queues, plus the time in which the decoder was blocked because
    they were full or, live, because frames that are shown earlier arrive later (B-frames). `encode`
    includes the encoder's delay. `total` runs from reading the packet until the frame's encoded
    packet reaches the muxer. In a relay, `mux` and `total` run until the slowest output has written
    the packet. A dropped frame has no times (NaN).
    """
    s = frame.stamps
    if frame.event == "dropped":
        return (float("nan"),) * len(STAGES)
    wait = s.wait_s + (s.infer_start - s.decoded) + (s.encode_start - s.infer_end)
    seconds = (
        s.decoded - s.read - s.wait_s,
        wait,
        s.infer_end - s.infer_start,
        s.encoded - s.encode_start,
        (s.sent or s.muxed) - s.encoded,
        (s.sent or s.encoded) - s.read,
    )
    return tuple(1000 * t for t in seconds)


@dataclass(frozen=True, slots=True)
class Row:
    """A ledger's record of one frame."""

    index: int
    pts_s: float
    ms: tuple[float, ...]
    """Milliseconds per stage, in the order of `STAGES`, with a ledger's precision (float32)."""
    rung: str
    event: str

    @classmethod
    def of(cls, frame: Frame) -> "Row":
        """Return the row of a frame whose packet has been muxed, or that was dropped."""
        ms = tuple(array("f", stage_ms(frame)))
        return cls(frame.index, frame.time, ms, frame.rung, frame.event)


class LatencyLedger(Protocol):
    """The interface for a report: all rows, or the newest rows and totals of the whole run."""

    names: tuple[str, ...]
    """Keys of the rows, in order."""

    def __len__(self) -> int:
        """Return the number of rows held."""

    def add(self, row: Row) -> None:
        """Record a frame."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows held, keyed by `names`."""

    def columns(self) -> Columns:
        """Return the rows held, as arrays."""

    def stages(self) -> dict[str, dict[str, float]]:
        """Return mean, percentiles and maximum (ms) of every stage over the whole run."""

    def count_later_than(self, ms: float) -> int:
        """Return how many frames of the whole run have a total above `ms`, or no times."""

    def count_events(self, event: str) -> int:
        """Return how many frames of the whole run are marked with this event."""

    def missing_row_facts(self) -> dict[str, Any]:
        """Return a report's facts about the rows that are not held; empty if all are held."""


class Ledger:
    """A `LatencyLedger` of all rows, one per input frame, in one array to save memory."""

    def __init__(self, places: bool = False, capacity: int = 0) -> None:
        """`places`: whether rows have the columns `PLACE_COLUMNS`. `capacity`: rows to
        allocate now, so that memory does not grow until there are more."""
        self.names: tuple[str, ...] = (*COLUMNS, *PLACE_COLUMNS) if places else COLUMNS
        self._places: list[tuple[str, ...]] = []
        self._codes: dict[str, int] = {}
        """Name of a rung or event -> its code in the array."""
        self._array = np.empty(max(capacity, _MIN_CAPACITY), _ROW_DTYPE)
        if capacity:
            self._array.view(np.uint8).fill(0)  # the OS allocates memory at the first write
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def _filled(self) -> npt.NDArray[np.void]:
        return self._array[: self._count]

    def copy(self) -> "Ledger":
        """Return a copy of the rows so far."""
        other = Ledger()
        other._array, other._count = self._filled.copy(), self._count
        other._codes = dict(self._codes)
        other.names, other._places = self.names, self._places[:]
        return other

    def add(self, row: Row) -> None:
        """Record a frame. Rows may arrive in coding order."""
        self._reserve(1)
        codes = self._code(row.rung), self._code(row.event)
        self._array[self._count] = (row.index, row.pts_s, row.ms, *codes)
        self._count += 1

    def _reserve(self, more: int) -> None:
        needed = self._count + more
        if needed > len(self._array):
            larger = np.empty(max(needed, 2 * len(self._array)), _ROW_DTYPE)
            larger[: self._count] = self._filled
            self._array = larger

    def _code(self, name: str) -> int:
        return self._codes.setdefault(name, len(self._codes))

    def _names_of(self, field: str) -> list[str]:
        """Return the names in a column, row by row."""
        known = list(self._codes)
        return [known[code] for code in self._filled[field].tolist()]

    def extend(self, other: "Ledger", shift: int, host: str, device: str) -> None:
        """Append the rows of frames that `device` of `host` made; add `shift` to their indices."""
        self._reserve(len(other))
        added = self._array[self._count : self._count + len(other)]
        added[:] = other._filled
        added["index"] += shift
        for field in ("rung", "event"):
            added[field] = [self._code(name) for name in other._names_of(field)]
        self._count += len(other)
        if len(self.names) > len(COLUMNS):
            self._places += [(host, device)] * len(other)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows in input order, keyed by `names`."""
        held, known = self._filled, list(self._codes)
        for i in np.argsort(held["index"], kind="stable").tolist():
            index, pts, stages, rung, event = held[i].item()
            ms = (_round_finite(value) for value in stages.tolist())
            values = (index, round(pts, 6), *ms, known[rung], known[event])
            place = self._places[i] if self._places else ()
            yield dict(zip(self.names, (*values, *place), strict=True))

    def columns(self) -> Columns:
        """Return the rows in input order, as copied arrays."""
        order = np.argsort(self._filled["index"], kind="stable")
        held = self._filled[order]
        rungs, rung = _encode_names(self._names_of("rung"))
        events, event = _encode_names(self._names_of("event"))
        return Columns(
            stages=STAGES,
            index=held["index"].copy(),
            pts=held["pts"].copy(),
            ms=held["ms"].T.copy(),
            rungs=rungs,
            rung=rung[order],
            events=events,
            event=event[order],
        )

    def stages(self) -> dict[str, dict[str, float]]:
        """Return `Histogram.summary` of every stage; empty if no frame has times."""
        return summaries(Histogram.of(column) for column in self._filled["ms"].T.copy())

    def count_later_than(self, ms: float) -> int:
        """Return how many frames have a total above `ms`; dropped frames count too."""
        total = self._filled["ms"][:, -1].astype(np.float64)
        return int(np.count_nonzero(~(total <= ms)))

    def count_events(self, event: str) -> int:
        """Return how many rows are marked with this event."""
        return int(np.count_nonzero(self._filled["event"] == self._codes.get(event, -1)))

    def missing_row_facts(self) -> dict[str, Any]:
        """Return an empty dict, as all rows are held."""
        return {}


def _round_finite(ms: float) -> float | None:
    """Return milliseconds rounded for a row; None if they are not finite."""
    return round(ms, 3) if math.isfinite(ms) else None


def summaries(stages: Iterable[Histogram]) -> dict[str, dict[str, float]]:
    """Return mean, percentiles and maximum (ms) of the stages, given in the order of `STAGES`."""
    found = zip(STAGES, (stage.summary() for stage in stages), strict=True)
    return {stage: figures for stage, figures in found if figures}


def _encode_names(names: Sequence[str]) -> tuple[tuple[str, ...], Codes]:
    """Return the distinct names in the order of first occurrence, and each row's index of them."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return tuple(places), np.fromiter(map(places.__getitem__, names), np.int64, len(names))


def check_report_path(path: Path) -> None:
    """Raise UsageError or OutputError if `path` cannot be a report; call it before a run."""
    if path.is_dir():
        raise OutputError(f"the report {path} is a folder: give a file name")
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"unsupported report format '{path.name}': use .html, .json or .csv")
    if not path.parent.is_dir():
        raise OutputError(f"the report's folder does not exist: {path.parent}")


def _write_csv(file: TextIO, ledger: LatencyLedger) -> None:
    """Write the rows with a header line."""
    writer = csv.DictWriter(file, ledger.names)
    writer.writeheader()
    writer.writerows(ledger.rows())


def _write_json(file: TextIO, facts: dict[str, Any], ledger: LatencyLedger) -> None:
    """Write the same as `json.dumps(..., indent=1)`, but row by row, to save memory."""
    head = json.dumps({"schema": SCHEMA, **facts, "ledger": []}, indent=1)
    file.write(head.removesuffix("]\n}"))
    encode = json.JSONEncoder(separators=(",\n   ", ": ")).encode  # fast, as it has no indent
    between, end = "\n", "]\n}\n"
    for row in ledger.rows():
        file.write(f"{between}  {{\n   {encode(row)[1:-1]}\n  }}")
        between, end = ",\n", "\n ]\n}\n"
    file.write(end)


def write_report(path: Path, facts: dict[str, Any], ledger: LatencyLedger) -> None:
    """Write `facts` and the rows as .json, the rows as .csv, or both as an .html to read.

    The path's suffix selects the format. An existing file is replaced only when the new one is
    complete. Raises OutputError, or UsageError for another suffix.
    """
    check_report_path(path)
    try:
        with (
            write_atomically(path) as part,
            part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            if path.suffix.lower() == ".csv":
                _write_csv(file, ledger)
            elif path.suffix.lower() == ".html":
                from vsr.report.html.page import render_page  # loads Jinja2, for pages only

                file.write(render_page(facts, ledger.columns()))
            else:
                _write_json(file, facts, ledger)
    except OSError as exc:
        raise OutputError(f"cannot write the report {path}: {reason(exc)}") from exc
