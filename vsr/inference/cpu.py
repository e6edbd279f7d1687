"""Detects what this computer's processor can do."""

import math
import os
from functools import cache
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_OWN_GROUPS: Final = Path("/proc/self/cgroup")
_INT8: Final = frozenset(
    # x86: multiply-accumulate of bytes in one instruction; ARM: dot products of bytes
    {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm"}
)


@cache
def has_int8_instructions() -> bool:
    """Whether 8-bit networks are faster here. Known on Linux; False where nothing says so."""
    try:
        text = _CPUINFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    named = (line.partition(":") for line in text.splitlines())
    return any(
        not _INT8.isdisjoint(value.split())
        for name, _, value in named
        if name.strip() in {"flags", "Features"}
    )


def cpu_limit(groups: Path = Path("/sys/fs/cgroup"), own: Path = _OWN_GROUPS) -> int | None:
    """Processors' worth of time that control groups grant this process, rounded up.

    None where that is no less than the processors it may run on, or where nothing says so. A
    container with a limit (`docker --cpus 2`) still sees all processors of its host: a thread for
    each would use the grant up early in every period, and then all of them stand still.
    """
    grants = []
    try:
        lines = own.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            top, read = groups, _grant
        elif "cpu" in controllers.split(","):
            top, read = groups / "cpu", _grant_v1
        else:
            continue
        folder = top / path.strip("/")
        grants += [read(each) for each in (folder, *folder.parents) if each.is_relative_to(top)]
    least = math.ceil(min(grants, default=math.inf)) if any(map(math.isfinite, grants)) else None
    return least if least is not None and least < _processors() else None


def _grant(folder: Path) -> float:
    """Processors granted by a group of version 2: `cpu.max` holds microseconds and their period."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return max(1.0, int(quota) / int(period))
    except (OSError, ValueError):  # "max": no limit
        return math.inf


def _grant_v1(folder: Path) -> float:
    """Processors granted by a group of version 1, where -1 is no limit."""
    try:
        quota, period = (
            int((folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii"))
            for name in ("quota", "period")
        )
        return max(1.0, quota / period) if quota > 0 else math.inf
    except (OSError, ValueError):
        return math.inf


def _processors() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
