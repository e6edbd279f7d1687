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
_MOST_FAILURES: Final = 20
"""Number of failures after which the pause stops growing, so that the power does not overflow."""

POLL: Final = 0.05
"""Interval between checks of a relay's stop event, in seconds."""
_AGAIN_S: Final = 60.0
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
        grown = self.first * self.growth ** min(max(0, failures - 1), _MOST_FAILURES)
        return min(grown, max(self.first, self.longest)) * random.uniform(1 - _JITTER, 1)


class RelayLog(logging.LoggerAdapter[logging.Logger]):
    """Prefix log lines with a name and rate-limit repeated warnings. Thread-safe."""

    def __init__(
        self, logger: logging.Logger, name: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(logger, {})
        self._name, self._clock = name, clock
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log with the name as a prefix; the name may contain %."""
        if self._name and self.isEnabledFor(level):
            msg, args = "%s: %s", (self._name, str(msg) % args if args else msg)
        super().log(level, msg, *args, **kwargs)

    def warn_rarely(self, words: str, kind: str = "") -> None:
        """Warn at most once a minute per `kind` (default: `words`); log repeats at DEBUG."""
        kind, at = kind or words, self._clock()
        with self._lock:
            self._told = {k: told for k, told in self._told.items() if at - told < _AGAIN_S}
            again = kind in self._told
            self._told.setdefault(kind, at)
        self.log(logging.DEBUG if again else logging.WARNING, "%s", words)
