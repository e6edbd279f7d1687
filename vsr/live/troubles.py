"""Counts what goes wrong in a relay, for its log and for the notes of its report."""

from dataclasses import dataclass

from vsr.live.common import RelayLog


@dataclass
class _Trouble:
    """One kind of trouble: its newest description and how often it occurred."""

    message: str
    count: int = 0
    is_drop: bool = False


class Troubles:
    """Warns at most once a minute per kind, and counts every occurrence. Not thread-safe."""

    def __init__(self, log: RelayLog) -> None:
        self._log = log
        self._kinds: dict[str, _Trouble] = {}

    def add(self, message: str, kind: str = "") -> None:
        """Count an occurrence of a kind (default: `message`)."""
        self._log.warn_rarely(message, kind)
        self._count(kind or message, message, 1)

    def add_dropped(self, why: str, kind: str = "", frames: int = 1) -> None:
        """Count dropped frames of a kind (default: `why`)."""
        if frames:
            self._log.warn_rarely(f"frames dropped: {why}", kind or why)
            self._count(kind or why, why, frames).is_drop = True

    def _count(self, kind: str, message: str, number: int) -> _Trouble:
        one = self._kinds.setdefault(kind, _Trouble(message))
        one.message, one.count = message, one.count + number
        return one

    def notes(self) -> list[str]:
        """Return a note for each kind, with its count."""
        return [
            f"{each.count} frames dropped: {each.message}"
            if each.is_drop
            else each.message + f" ({each.count} times)" * (each.count > 1)
            for each in self._kinds.values()
        ]
