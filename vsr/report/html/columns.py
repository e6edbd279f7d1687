"""A ledger as numpy arrays, and how rows by the hundred thousand become columns of a drawing."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """A ledger's n rows in input order."""

    stages: tuple[str, ...]
    index: Codes
    """Position in the input, int64 [n]."""
    pts: Numbers
    """Seconds, float64 [n]."""
    ms: npt.NDArray[np.float32]
    """Milliseconds, float32 [stages, n]; the last stage is the total."""
    rungs: tuple[str, ...]
    rung: Codes
    """Which of `rungs`, int64 [n]."""
    events: tuple[str, ...]
    event: Codes
    """Which of `events`, int64 [n]; the empty name means that nothing happened."""

    @property
    def total(self) -> Numbers:
        """Milliseconds, float64 [n]."""
        return self.ms[-1].astype(np.float64)

    @property
    def timed(self) -> Mask:
        """Which rows have a latency, bool [n]: a dropped frame never came out."""
        return np.isfinite(self.ms[-1]) & (self.ms[-1] >= 0)


def worst(columns: Columns, number: int) -> list[int]:
    """The rows with the highest totals, the highest first, at most `number`."""
    rows = np.flatnonzero(columns.timed)
    total = columns.ms[-1][rows]
    if len(rows) > number:  # sorting all the rows of a long run takes its time
        rows = rows[total >= np.partition(total, -number)[-number]]
    order = np.argsort(-columns.ms[-1][rows], kind="stable")[:number]
    return [int(row) for row in rows[order]]


@dataclass(frozen=True, eq=False)
class Slots:
    """Rows gathered into columns of the timeline; all arrays have one entry per column."""

    slot: Codes
    low: Numbers
    middle: Numbers
    high: Numbers
    worst: Codes
    """The row of the column's highest value."""
    rows: Codes
    """How many."""


def gather(slot: Codes, values: Numbers) -> Slots:
    """Minimum, median and maximum of `values` [n] in every column that `slot` [n] names.

    Columns are numbered below 2**15.
    """
    order = np.argsort(values)
    order = order[np.argsort(slot[order].astype(np.int16), kind="stable")]  # quicker than lexsort
    slot, sorted_values = slot[order], values[order]
    begins = np.flatnonzero(np.diff(slot, prepend=-1))
    ends = np.append(begins[1:], len(slot))
    return Slots(
        slot[begins], sorted_values[begins], sorted_values[(begins + ends - 1) // 2],
        sorted_values[ends - 1], order[ends - 1], ends - begins,
    )  # fmt: skip
