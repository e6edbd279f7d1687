"""Determines the processors and memory that the system and control groups allow this process."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

GROUPS: Final = Path("/sys/fs/cgroup")
OWN_GROUPS: Final = Path("/proc/self/cgroup")
_MEMINFO: Final = Path("/proc/meminfo")
PROCESSORS_VARIABLE: Final = "VSR_PROCESSORS"
"""Environment variable: number of processors that a process may use."""


def free_memory(
    groups: Path = GROUPS, own: Path = OWN_GROUPS, meminfo: Path = _MEMINFO
) -> int | None:
    """Return the bytes this process may still use before the system or a control group runs out.

    Returns None if unknown, as on systems other than Linux. Memory that caches files counts as
    free, as the system reclaims it.
    """
    found = [_available(meminfo)]
    found += [_free_in_group_v2(folder) for folder in _folders("", groups, own)]
    found += [_free_in_group_v1(folder) for folder in _folders("memory", groups, own)]
    least = min(found)
    return None if math.isinf(least) else max(0, int(least))


def cpu_limit(groups: Path = GROUPS, own: Path = OWN_GROUPS) -> int | None:
    """Return the CPU quota of this process in processors, rounded up.

    The quota is the lowest limit of its control groups and of the environment variable
    `PROCESSORS_VARIABLE`, which is set for processes that share the processors. Returns None if
    there is no limit below the number of processors. A container with a limit (`docker --cpus 2`)
    still sees all processors of its host: a thread for each would use up the quota early in every
    period, and then all threads are paused.
    """
    quotas = [_cpu_quota_v2(folder) for folder in _folders("", groups, own)]
    quotas += [_cpu_quota_v1(folder) for folder in _folders("cpu", groups, own)]
    if os.environ.get(PROCESSORS_VARIABLE, "").isdigit():
        quotas.append(max(1, int(os.environ[PROCESSORS_VARIABLE])))
    least = min(quotas, default=math.inf)
    return None if math.isinf(least) or math.ceil(least) >= processor_count() else math.ceil(least)


def format_bytes(size: int) -> str:
    """Format a number of bytes, such as `1.5 GiB` or `61 MiB`."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def processor_count() -> int:
    """Return the number of processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _folders(controller: str, groups: Path, own: Path) -> Iterator[Path]:
    """Yield this process's group of a controller and its parents; "" is version 2, with one tree.

    In a container the path may be the host's, so that only the top exists here: then the top is the
    container's group.
    """
    try:
        lines = own.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            for top in (groups / controller,) if controller else (groups, groups / "unified"):
                folder = top / path.strip("/")
                yield from (each for each in (folder, *folder.parents) if each.is_relative_to(top))


def _numbers(read: Callable[[], float]) -> float:
    """Return what `read` reads from a group's files; infinity if there is no limit or it fails."""
    try:
        return read()
    except (OSError, ValueError, ZeroDivisionError):  # "max": no limit
        return math.inf


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii").split()[0])


def _available(meminfo: Path) -> float:
    def read() -> float:
        for line in meminfo.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
        return math.inf

    return _numbers(read)


def _free_in_group_v2(folder: Path) -> float:
    cached = _cached(folder / "memory.stat", "inactive_file")
    return _numbers(
        lambda: _number(folder / "memory.max") - _number(folder / "memory.current") + cached
    )


def _free_in_group_v1(folder: Path) -> float:
    cached = _cached(folder / "memory.stat", "total_inactive_file")
    used = folder / "memory.usage_in_bytes"
    return _numbers(lambda: _number(folder / "memory.limit_in_bytes") - _number(used) + cached)


def _cached(stat: Path, key: str) -> int:
    """Return the bytes of cached files in a group's memory that can be reclaimed."""
    try:
        lines = (line.split() for line in stat.read_text(encoding="ascii").splitlines())
        return next((int(value) for name, value in lines if name == key), 0)
    except (OSError, ValueError):
        return 0


def _cpu_quota_v2(folder: Path) -> float:
    """Return a version 2 group's limit in processors: `cpu.max` holds quota and period in us."""

    def read() -> float:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return max(1.0, int(quota) / int(period))

    return _numbers(read)


def _cpu_quota_v1(folder: Path) -> float:
    """Return a version 1 group's limit in processors; a quota of -1 means no limit."""

    def read() -> float:
        quota = _number(folder / "cpu.cfs_quota_us")
        return max(1.0, quota / _number(folder / "cpu.cfs_period_us")) if quota > 0 else math.inf

    return _numbers(read)
