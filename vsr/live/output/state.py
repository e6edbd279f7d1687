"""How an output fares, as its status and report show it."""

import time
from dataclasses import dataclass, field
from typing import Final, Literal

FULL: Final = "the disk is full"
State = Literal["connecting", "open", "retrying", "closed"]


@dataclass(frozen=True, kw_only=True)
class OutputState:
    """State and counters of an output; a packet is counted as sent, dropped or queued."""

    state: State = "connecting"
    since: float = field(default_factory=time.monotonic)
    """When it came into this state (s, `time.monotonic`)."""
    reconnects: int = 0
    packets: int = 0
    """Written to the network, as its process reports five times a second."""
    bytes: int = 0
    dropped: int = 0
    """Not sent; with those that a killed process may have sent since it last told."""
    pictures: int = 0
    """Pictures of the source that were sent."""
    pictures_dropped: int = 0
    skips: int = 0
    """How often pictures were left out up to a key frame because too much waited."""
    queued: int = 0
    """Waiting or under way."""
    queued_s: float = 0.0
    """Stream time that waits."""
    queued_bytes: int = 0
    trouble: str = ""
    """Why nothing is sent although it is open; empty where that is not so."""
    last_error: str = ""
    """Why the last session ended, without secrets."""

    @property
    def open_s(self) -> float:
        """How long it has been open (s); 0 if it is not."""
        return time.monotonic() - self.since if self.state == "open" else 0.0
