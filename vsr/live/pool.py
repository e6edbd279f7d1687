"""The engines of a process: relays with the same networks and picture size share theirs."""

import threading
from collections.abc import Callable

from vsr.backends import Backend, load_backend
from vsr.live.rung_models import Stage, Wanted, find_models
from vsr.live.rungs import Rungs
from vsr.models import Model


class Pool:
    """Makes backends, networks and rungs once each. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._backends: dict[tuple[str, str | None], Backend] = {}
        self._found: dict[Wanted, list[Model]] = {}
        self._rungs: dict[tuple[Wanted, Stage], Rungs] = {}

    def find(self, wanted: Wanted) -> list[Model]:
        """The networks of the rungs. Raises UsageError, ModelError or BackendError."""
        with self._lock:
            if wanted not in self._found:
                self._found[wanted] = find_models(wanted, self._backend(wanted))
            return self._found[wanted]

    def rungs(self, wanted: Wanted, stage: Stage, stopped: Callable[[], bool]) -> Rungs:
        """The rungs for pictures of that stage, loaded and warm; see `Rungs` for what it raises.

        One thread loads at a time: the others' engines would upset the times it measures.
        """
        found = self.find(wanted)
        with self._lock:
            if (wanted, stage) not in self._rungs:
                made = Rungs(found, self._backend(wanted), stage, stopped, wanted)
                self._rungs[wanted, stage] = made
            return self._rungs[wanted, stage]

    def close(self) -> None:
        """Build no more engines."""
        for rungs in self._rungs.values():
            rungs.close()

    def _backend(self, wanted: Wanted) -> Backend:
        key = wanted.backend, wanted.device
        if key not in self._backends:
            self._backends[key] = load_backend(*key, live=True)
        return self._backends[key]
