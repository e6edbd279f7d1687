"""Computes the table of `bench/live.py` from a viewer's observations and the relay's report."""

import os
import statistics
from pathlib import Path
from typing import Any, Final

from tests.flash_beep import View

COLUMNS: Final = (
    "case", "start", "flashes", "no beep", "offset ms (median, least, most)", "report ms",
    "fps", "repeated", "skipped", "latency ms (p50, p99)", "behind the source ms (p50, p99)",
    "first picture s", "CPU", "RSS MiB",
)  # fmt: skip
_SETTLES_S: Final = 2.0
"""Time after a viewer's first picture that is ignored, in seconds: it shows buffered pictures."""
_LEAST: Final = 20
"""Minimum number of pictures that both viewers must have seen."""


def row(view: View, report: dict[str, Any], began: float, source: View | None) -> dict[str, str]:
    """Return the cells of a run that began at `began` (`time.monotonic`); `source` is the view of
    the source, if any."""
    offsets, total = view.offsets, report["stages"].get("total", {})
    middle = f"{statistics.median(offsets):.1f}, {min(offsets)}, {max(offsets)}" if offsets else "-"
    first = f"{view.walls[0] - began:.1f}" if view.walls else "-"
    return {
        "flashes": str(len(view.flashes)),
        "no beep": str(view.missing),
        "offset ms (median, least, most)": middle,
        "report ms": str(report["live"]["av_offset_ms"]),
        "fps": f"{view.fps:.2f}",
        "repeated": str(view.repeated),
        "skipped": str(view.skipped),
        "latency ms (p50, p99)": f"{total.get('p50', 0):.0f}, {total.get('p99', 0):.0f}",
        "behind the source ms (p50, p99)": "-" if source is None else _behind(view, source),
        "first picture s": first,
    }


def _behind(view: View, source: View) -> str:
    """Return p50 and p99 of the delay after the source's viewer saw the same picture, in ms."""
    seen = dict(zip(source.numbers, source.walls, strict=True))
    if not view.walls or not source.walls:
        return "-"
    since = max(view.walls[0], source.walls[0]) + _SETTLES_S
    pairs = [(n, at) for n, at in zip(view.numbers, view.walls, strict=True) if n in seen]
    later = sorted(1000 * (at - seen[n]) for n, at in pairs if min(at, seen[n]) > since)
    if len(later) < _LEAST:
        return "-"
    return f"{statistics.median(later):.0f}, {later[round(0.99 * (len(later) - 1))]:.0f}"


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB; Linux."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its descendants in seconds; Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return own + sum(cpu_s(int(child)) for one in children for child in one.read_text().split())
