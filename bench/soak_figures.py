"""Computes the figures of `bench/soak.py`; starts no process and uses no network.

A sample is a row of the CSV; the verdict compares the medians of the first and the last minute.
"""

import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

MINUTE_S: Final = 60.0
MAX_RSS_GROWTH: Final = 0.05
"""Limit of the RSS growth, relative to the median of the first minute."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources of a process and its descendants."""

    rss_mib: float
    fds: int
    threads: int
    processes: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row of the CSV; counts are since the relay's start."""

    seconds: float
    """Time since the relay went live, in seconds."""
    rss_mib: float
    fds: int
    threads: int
    processes: int
    p50_ms: float
    """Median latency from a picture's arrival to its packet, over the last minute."""
    p99_ms: float
    fps_in: float
    fps_out: float
    frames_in: int
    dropped: int
    repeated: int
    late: int
    rung: str
    sessions: int
    reconnects: int
    published: int
    """Number of pictures that the publisher sent."""
    viewed: int
    """Number of pictures that the viewer received."""
    backward: int
    """Number of packets whose DTS did not increase."""
    av_change_ms: float
    """Change of the viewer's A/V offset since its first one."""


COLUMNS: Final = tuple(field.name for field in fields(Sample))


def resources(pid: int) -> Resources:
    """Return the current resources of a process and its descendants.

    Raises FileNotFoundError if the process has ended.
    """
    found = [_one(pid)]
    for child in _children(pid):
        try:
            found.append(resources(child))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return Resources(
        rss_mib=sum(r.rss_mib for r in found), fds=sum(r.fds for r in found),
        threads=sum(r.threads for r in found), processes=sum(r.processes for r in found),
    )  # fmt: skip


def _one(pid: int) -> Resources:
    folder = Path("/proc") / str(pid)
    pages = int((folder / "statm").read_text(encoding="ascii").split()[1])
    return Resources(
        rss_mib=pages * os.sysconf("SC_PAGE_SIZE") / 2**20, processes=1,
        fds=len(list((folder / "fd").iterdir())), threads=len(list((folder / "task").iterdir())),
    )  # fmt: skip


def _children(pid: int) -> list[int]:
    """Return the child processes that any of its threads started."""
    tasks = (Path("/proc") / str(pid) / "task").iterdir()
    lists = []
    for task in tasks:
        try:
            lists.append((task / "children").read_text(encoding="ascii"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has just ended
    return [int(child) for words in lists for child in words.split()]


def relay_figures(exposition: str) -> dict[str, float | str]:
    """Return the values of /metrics by the names of `Sample`; missing metrics are left out."""
    names = {
        "vsr_relay_fps_in": "fps_in", "vsr_relay_fps_out": "fps_out",
        "vsr_relay_frames_in_total": "frames_in", "vsr_relay_frames_dropped_total": "dropped",
        "vsr_relay_frames_repeated_total": "repeated", "vsr_relay_frames_late_total": "late",
        "vsr_relay_source_sessions_total": "sessions",
    }  # fmt: skip
    found: dict[str, float | str] = {}
    reconnects = 0.0
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name in names:
                found[names[sample.name]] = sample.value
            elif sample.name == "vsr_relay_output_reconnects_total":
                reconnects += sample.value
            elif sample.name == "vsr_relay_rung" and sample.value:
                found["rung"] = sample.labels["rung"]
    return found | {"reconnects": reconnects}


def wrap_difference(seconds: float, around: float) -> float:
    """Wrap a difference of two times modulo `around` to the value nearest to 0."""
    return (seconds + around / 2) % around - around / 2


def first_and_last_minute(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Return the samples of the first and the last minute; in less than two minutes, the halves."""
    last = samples[-1].seconds
    length = min(MINUTE_S, last / 2)
    first = [s for s in samples if s.seconds <= length]
    return first, [s for s in samples if s.seconds >= last - length]


def growth(samples: Sequence[Sample], column: str) -> tuple[float, float, float]:
    """Return the medians of both minutes, and the relative growth (0.1: by 10 %)."""
    first, last = (
        statistics.median(float(getattr(s, column)) for s in part)
        for part in first_and_last_minute(samples)
    )
    return first, last, (last - first) / first if first else 0.0


def instabilities(samples: Sequence[Sample]) -> list[str]:
    """Return why the run is not flat; empty if it is."""
    found = []
    first, last, more = growth(samples, "rss_mib")
    if more >= MAX_RSS_GROWTH:
        found.append(f"RSS grew by {more:.1%}, from {first:.1f} to {last:.1f} MiB")
    for column in ("fds", "threads"):
        first, last, _ = growth(samples, column)
        if first != last:
            found.append(f"{column} changed from {first:g} to {last:g}")
    return found


def table(samples: Sequence[Sample], totals: Mapping[str, object]) -> str:
    """Return the figures of both minutes, and those of the whole run, as markdown."""
    limits = {"rss_mib": f"< {MAX_RSS_GROWTH:.0%}", "fds": "the same", "threads": "the same"}
    rows = [("median of", "first minute", "last minute", "change", "limit"), ("---",) * 5]
    for column in ("rss_mib", "fds", "threads", "p50_ms", "p99_ms", "fps_in", "fps_out"):
        first, last, more = growth(samples, column)
        rows.append((column, f"{first:.4g}", f"{last:.4g}", f"{more:+.1%}", limits.get(column, "")))
    rows += [(name, "", str(value), "", "") for name, value in totals.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def rung_shares(samples: Sequence[Sample]) -> dict[str, float]:
    """Return rung of the newest picture -> share of the samples, the largest share first."""
    counted = Counter(s.rung for s in samples)
    return {rung: number / len(samples) for rung, number in counted.most_common()}


def rung_changes(samples: Sequence[Sample]) -> int:
    """Return how often the rung differs from the previous sample's: at most its real changes."""
    rungs = [s.rung for s in samples if s.rung]
    return sum(a != b for a, b in pairwise(rungs))
