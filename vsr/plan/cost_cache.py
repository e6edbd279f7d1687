"""Caches measured costs per machine, so that each is measured once."""

import json
import logging
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from platformdirs import user_cache_path

from vsr.inference.backend import Backend
from vsr.inference.flicker import filters_flicker
from vsr.inference.models import Model
from vsr.media.limits import processor_count
from vsr.media.plane_format import PlaneFormat
from vsr.media.whole_file import write_atomically
from vsr.plan.cost import Cost
from vsr.report.report import versions

log = logging.getLogger(__name__)
_SCHEMA: Final = "vsr-plan/1"
_FIELDS: Final = 3
"""Number of fields of a cost; one more marks a cost that was measured on a busy machine."""
_MAX_ENTRIES: Final = 500
"""Maximum number of cached costs; the oldest are deleted first."""


class CostCache:
    """Costs in a file of the user's cache folder. Several processes may use it at once.

    Costs measured with other library versions or on another processor are not used. Costs measured
    while the machine was busy are saved as such: they are estimates, and are measured again. A file
    that cannot be read or written is ignored.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or user_cache_path("vsr", appauthor=False) / "plan.json"
        self._machine = _machine()
        self.measured_busy = 0
        """Number of costs that were measured while the machine was busy."""

    def get(self, key: str, measure: Callable[[], Cost]) -> Cost:
        """Return the cost of a key; measure it if it is not known."""
        if (known := self.known(key)) is not None:
            return known
        cost = measure()
        busy = _is_busy()
        self.measured_busy += busy
        self._add(key, cost, busy)
        return cost

    def known(self, key: str) -> Cost | None:
        """Return the cost of a key; None if it was not measured on an idle machine yet."""
        return self._saved(key, _FIELDS)

    def estimate(self, key: str) -> Cost | None:
        """Return the cost of a key that was measured while the machine was busy; else None."""
        return self._saved(key, _FIELDS + 1)

    def _saved(self, key: str, fields: int) -> Cost | None:
        with suppress(TypeError, ValueError):
            entry = self._read().get(key, ())
            wall, cpu, on_other_device = entry[:_FIELDS]
            if len(entry) == fields:
                return Cost(float(wall), float(cpu), bool(on_other_device))
        return None

    def clear(self) -> None:
        """Delete all costs."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text("utf-8"))
            fits = (content["schema"], content["machine"]) == (_SCHEMA, self._machine)
            return dict(content["costs"]) if fits else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _add(self, key: str, cost: Cost, busy: bool) -> None:
        entry: list[Any] = [round(cost.wall_ms, 3), round(cost.cpu_ms, 3), cost.on_other_device]
        costs = self._read() | {key: entry + ["busy"] * busy}
        kept = dict(list(costs.items())[-_MAX_ENTRIES:])
        content = {"schema": _SCHEMA, "machine": self._machine, "costs": kept}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with write_atomically(self._path) as part:
                part.write_text(json.dumps(content, indent=1), "utf-8")
        except OSError as exc:
            log.debug("measured costs cannot be saved: %s", exc)


def network_key(model: Model, backend: Backend, size: tuple[int, int], planes: PlaneFormat) -> str:
    """Return the key of a network's cost for pictures of a size and format."""
    steps = " and flicker filter" if filters_flicker(model.name, None) else ""
    return (
        f"network {model.sha256 or model.name} x{model.scale} {model.precision} "
        f"{backend.name} {backend.device} {size} {planes}{steps}"
    )


def _is_busy() -> bool:
    """Return whether the load of the last minute was above 1.5 per processor."""
    with suppress(AttributeError, OSError):  # Windows has no load average
        return os.getloadavg()[0] > 1.5 * processor_count()
    return False


def _machine() -> dict[str, Any]:
    """Return the facts on which a cost depends besides its key."""
    return {"processor": _processor(), "cores": processor_count(), "versions": versions()}


def _processor() -> str:
    """Return the name of the processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
