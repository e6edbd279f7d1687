"""Pauses between the attempts of an output to connect."""

from typing import Final

from vsr.live.common import Backoff
from vsr.live.settings import OutputSettings

_KNOWN_FACTOR: Final = 6
"""Factor by which the longest pause of a refusal is shorter if the server knows the stream."""


class Pauses:
    """Grows the pauses while attempts fail. Not thread-safe."""

    def __init__(self, settings: OutputSettings) -> None:
        self._usual = Backoff(first=settings.retry_s, longest=settings.retry_max_s)
        self._refused, self._known = (
            Backoff(first=settings.retry_max_s, longest=longest)
            for longest in (settings.refused_max_s, settings.refused_max_s / _KNOWN_FACTOR)
        )
        self._failures = self._refusals = 0

    def after(self, open_s: float, refused: bool, known: bool = False) -> float:
        """Return the next pause (s), after a session that was open for `open_s` seconds.

        `refused`: whether the server ends every session at once; `known`: whether it accepted one.
        """
        self._failures = 1 if open_s > self._usual.longest else self._failures + 1
        self._refusals = self._refusals + 1 if refused else 0
        if refused:  # failures before, as of a server that was away, do not lengthen the pause
            return (self._known if known else self._refused).pause(self._refusals)
        return self._usual.pause(self._failures)
