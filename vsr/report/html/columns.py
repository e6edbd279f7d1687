"""A ledger as numpy arrays, and statistics of its rows per time slot of a chart."""

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
    """Presentation time in seconds, float64 [n]."""
    ms: npt.NDArray[np.float32]
    """Milliseconds per stage, float32 [stages, n]; the last stage is the total."""
    rungs: tuple[str, ...]
    rung: Codes
    """Index into `rungs`, int64 [n]."""
    events: tuple[str, ...]
    event: Codes
    """Index into `events`, int64 [n]; the empty name means no event."""

    @property
    def total(self) -> Numbers:
        """Total latency in milliseconds, float64 [n]."""
        return self.ms[-1].astype(np.float64)

    @property
    def timed(self) -> Mask:
        """Mask of the rows that have a latency, bool [n]: a dropped frame has none."""
        return np.isfinite(self.ms[-1]) & (self.ms[-1] >= 0)


def slowest_rows(columns: Columns, number: int) -> list[int]:
    """Return the rows with the highest totals, the highest first, at most `number`."""
    rows = np.flatnonzero(columns.timed)
    total = columns.ms[-1][rows]
    if len(rows) > number:  # sorting all the rows of a long run is slow
        rows = rows[total >= np.partition(total, -number)[-number]]
    order = np.argsort(-columns.ms[-1][rows], kind="stable")[:number]
    return [int(row) for row in rows[order]]


@dataclass(frozen=True, eq=False)
class SlotStats:
    """Statistics of the rows of each time slot; all arrays have one entry per slot with rows."""

    slot: Codes
    low: Numbers
    middle: Numbers
    high: Numbers
    worst: Codes
    """Row of the slot's highest value."""
    rows: Codes
    """Number of rows in the slot."""


def slot_stats(slot: Codes, values: Numbers) -> SlotStats:
    """Return minimum, median and maximum of `values` [n] per time slot; `slot` [n] has the slots.

    Slot numbers must be below 2**15.
    """
    order = np.argsort(values)
    order = order[np.argsort(slot[order].astype(np.int16), kind="stable")]  # faster than lexsort
    slot, sorted_values = slot[order], values[order]
    begins = np.flatnonzero(np.diff(slot, prepend=-1))
    ends = np.append(begins[1:], len(slot))
    return SlotStats(
        slot[begins], sorted_values[begins], sorted_values[(begins + ends - 1) // 2],
        sorted_values[ends - 1], order[ends - 1], ends - begins,
    )  # fmt: skip
