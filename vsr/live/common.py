"""Exponential backoff and rate-limited logging, shared by all parts of a relay."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

_JITTER: Final = 0.2
"""Fraction of a pause that is random, so that many relays do not retry at the same time."""
_MAX_COUNTED_FAILURES: Final = 20
"""Number of failures after which the pause stops growing, so that the power does not overflow."""

POLL_S: Final = 0.05
"""Interval between checks of a relay's stop event, in seconds."""
_WARN_INTERVAL_S: Final = 60.0
"""Shortest interval between two warnings of the same kind, in seconds."""
THROUGHPUT_HISTORY_S: Final = 60
"""Length of each output's throughput history, and of its graph on the status page, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential backoff with jitter; pauses in seconds."""

    first: float
    longest: float
    """Upper limit of a pause; `first` if that is greater."""
    growth: float = 2.0
    """Ratio of a pause to the previous one."""

    def pause(self, failures: int) -> float:
        """Return the pause after `failures` consecutive failures, in seconds."""
        grown = self.first * self.growth ** min(max(0, failures - 1), _MAX_COUNTED_FAILURES)
        return min(grown, max(self.first, self.longest)) * random.uniform(1 - _JITTER, 1)


class RelayLog(logging.LoggerAdapter[logging.Logger]):
    """Prefix log lines with a name and rate-limit repeated warnings. Thread-safe."""

    def __init__(
        self, logger: logging.Logger, name: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(logger, {})
        self._name, self._clock = name, clock
        self._lock = threading.Lock()
        self._last_warned: dict[str, float] = {}

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log with the name as a prefix; the name may contain %."""
        if self._name and self.isEnabledFor(level):
            msg, args = "%s: %s", (self._name, str(msg) % args if args else msg)
        super().log(level, msg, *args, **kwargs)

    def warn_rarely(self, message: str, kind: str = "") -> None:
        """Warn at most once a minute per `kind` (default: `message`); log repeats at DEBUG."""
        kind, at = kind or message, self._clock()
        with self._lock:
            self._last_warned = {
                k: last for k, last in self._last_warned.items() if at - last < _WARN_INTERVAL_S
            }
            is_repeated = kind in self._last_warned
            self._last_warned.setdefault(kind, at)
        self.log(logging.DEBUG if is_repeated else logging.WARNING, "%s", message)
