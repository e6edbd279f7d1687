"""Holds the engines of a process, shared by relays with the same networks and frame size."""

import math
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vsr.live.settings import RelaySettings
from vsr.media.colour import Colour
from vsr.media.plane_format import YUV420, PlaneFormat

if TYPE_CHECKING:  # imported when needed: libraries load while a source is opened
    from vsr.inference.backend import Backend
    from vsr.inference.models import Model
    from vsr.live.ladder.rungs import Rungs

Networks = tuple[tuple[str, ...], int | None, str, str, str | None]
"""Names, scale, precision, backend and device: relays with equal values share engines."""

_TRIAL: Final = (320, 180)
_BT601: Final = Colour(matrix=6)


class Pool:
    """Creates each backend, network list and `Rungs` only once. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Lock held while engines are loaded, which may take long."""
        self._backends: dict[tuple[str, str | None], Backend] = {}
        self._found: dict[Networks, list[Model]] = {}
        self._rungs: dict[tuple[Networks, tuple[int, int], Colour, PlaneFormat, int], Rungs] = {}
        self._costs: dict[Networks, float] = {}
        """Time that the estimated network takes for a frame of the size `_TRIAL`, in seconds."""
        self._users_lock = threading.Lock()
        """Lock of `_users`, held only briefly."""
        self._users: Counter[Rungs] = Counter()

    def find(self, settings: RelaySettings) -> list["Model"]:
        """Return the networks of the rungs. Raises UsageError, ModelError or BackendError."""
        from vsr.live.ladder.rung_models import find_models

        with self._lock:
            networks = _networks(settings)
            if networks not in self._found:
                self._found[networks] = find_models(settings, self._backend(settings))
            return self._found[networks]

    def rungs(
        self,
        settings: RelaySettings,
        size: tuple[int, int],
        colour: Colour,
        stopped: Callable[[], bool],
        bicubic_first: bool = False,
        interval_s: float = math.inf,
        planes: PlaneFormat = YUV420,
    ) -> "Rungs":
        """Return warmed-up rungs for frames of a size (width, height), colour and format.

        `bicubic_first`: return after loading bicubic, and load the others meanwhile; see `Rungs`.
        `interval_s` is the frame interval (s), which decides whether optional networks are used.

        Raises what `Rungs` raises. Only one thread loads at a time, because parallel loading would
        distort the measured times. Call `release` to release the rungs.
        """
        from vsr.live.ladder.rung_models import optional_count
        from vsr.live.ladder.rungs import Rungs
        from vsr.live.ladder.speed_check import SpeedCheck

        found, optional = self.find(settings), optional_count(settings)
        interval_ms = round(1000 * interval_s) if optional else 0
        key = (_networks(settings), size, colour, planes, interval_ms)
        with self._lock:
            known = self._rungs.get(key)
            if known is None or known.broken:
                self._remove_unused()
                backend = self._backend(settings)
                check = SpeedCheck(
                    found=found, optional_count=optional, interval_s=interval_s, size=size,
                    planes=planes,
                )  # fmt: skip
                known = Rungs(
                    found, backend, size, colour, stopped, settings, bicubic_first, check, planes
                )
                self._rungs[key] = known
            with self._users_lock:
                self._users[known] += 1
            return known

    def estimate(self, settings: RelaySettings, size: tuple[int, int]) -> float:
        """Return the estimated time of the configured or default network for a frame of a size
        (s).

        It is measured on a small frame and scaled by the number of pixels. Returns 0 on a GPU,
        where time does not scale like that and building an engine may take minutes. Raises what
        `find` raises.
        """
        from vsr.live.ladder.rung_models import optional_count
        from vsr.live.ladder.warm_up import measure_cost

        model = self.find(settings)[optional_count(settings)]
        with self._lock:
            backend, networks = self._backend(settings), _networks(settings)
            if backend.name != "openvino":
                return 0.0
            if networks not in self._costs:
                self._costs[networks] = measure_cost(model, backend, _TRIAL, _BT601)
            return self._costs[networks] * size[0] * size[1] / (_TRIAL[0] * _TRIAL[1])

    def release(self, rungs: "Rungs") -> None:
        """Release rungs, which stay loaded until others are loaded. Never waits for a load."""
        with self._users_lock:
            self._users[rungs] -= 1
            if not self._users[rungs]:
                del self._users[rungs]

    def close(self) -> None:
        """Stop building engines."""
        for rungs in self._rungs.values():
            rungs.close()

    def _remove_unused(self) -> None:
        """Remove broken and unused rungs before more engines are loaded."""
        with self._users_lock:
            used = {rungs for rungs in self._users if not rungs.broken}
        for at, rungs in list(self._rungs.items()):
            if rungs not in used:
                self._rungs.pop(at).close()

    def _backend(self, settings: RelaySettings) -> "Backend":
        from vsr.inference.backend import load_backend

        key = settings.backend, settings.device
        if key not in self._backends:
            self._backends[key] = load_backend(*key, live=True)
        return self._backends[key]


def _networks(s: RelaySettings) -> Networks:
    from vsr.live.ladder.rung_models import rung_names

    return rung_names(s), s.scale, s.precision, s.backend, s.device
