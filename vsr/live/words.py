"""Keeps the log of days readable: a line says which relay it is about, and trouble is told seldom.

A stranger who knocks on a port, or a source that is tried again for ever, must not fill a log.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

_AGAIN_S: Final = 60.0
"""Seconds after which the same trouble is worth another line."""


class Words(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines begin with a name, where there is one. Thread-safe."""

    def __init__(
        self, logger: logging.Logger, name: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(logger, {})
        self._name, self._clock = name, clock
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As any logger; the name may hold whatever its owner likes, a % too."""
        if self._name and self.isEnabledFor(level):
            msg, args = "%s: %s", (self._name, str(msg) % args if args else msg)
        super().log(level, msg, *args, **kwargs)

    def trouble(self, words: str, kind: str = "") -> None:
        """Warn, but of one kind (these very words where none is given) not again and again."""
        kind, at = kind or words, self._clock()
        with self._lock:
            self._told = {k: told for k, told in self._told.items() if at - told < _AGAIN_S}
            again = kind in self._told
            self._told.setdefault(kind, at)
        self.log(logging.DEBUG if again else logging.WARNING, "%s", words)
