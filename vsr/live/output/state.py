"""State and counters of an output, for its status and report."""

import time
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from vsr.live.output.packet_queue import PacketQueue
from vsr.live.output.session import Session
from vsr.live.output.tally import Tally

DISK_FULL: Final = "the disk is full"
State = Literal["connecting", "open", "retrying", "closed"]


@dataclass(frozen=True, kw_only=True)
class OutputState:
    """State and counters of an output; each packet is counted as sent, dropped or queued."""

    state: State = "connecting"
    since: float = field(default_factory=time.monotonic)
    """Time at which this state began (s, `time.monotonic`)."""
    reconnects: int = 0
    packets: int = 0
    """Number of packets written to the network; the process reports it five times a second."""
    bytes: int = 0
    dropped: int = 0
    """Number of packets not sent, including any that a killed process sent but did not report."""
    pictures: int = 0
    """Number of source frames sent."""
    pictures_dropped: int = 0
    skips: int = 0
    """Number of times frames were dropped up to a key frame because of a large backlog."""
    queued: int = 0
    """Number of packets queued or being sent."""
    queued_s: float = 0.0
    """Duration of the queued packets, in seconds of stream time."""
    queued_bytes: int = 0
    trouble: str = ""
    """Reason why an open output sends nothing; empty if there is no problem."""
    last_error: str = ""
    """Reason why the last session ended, without secrets."""

    @property
    def open_s(self) -> float:
        """Time since the output opened (s); 0 if it is not open."""
        return time.monotonic() - self.since if self.state == "open" else 0.0


def during_session(
    known: OutputState, queue: PacketQueue, session: Session, tally: Tally
) -> OutputState:
    """Return the state with the counts of the queue and of the current session."""
    return replace(
        known,
        dropped=known.dropped + queue.dropped,
        packets=known.packets + session.packets,
        bytes=known.bytes + session.bytes,
        queued=len(queue) + session.in_flight,
        queued_s=queue.seconds,
        queued_bytes=queue.bytes,
        pictures=tally.pictures,
        pictures_dropped=tally.pictures_dropped,
        skips=queue.skips,
    )


def after_session(known: OutputState, session: Session) -> OutputState:
    """Return the state with the counts of a session that has ended."""
    return replace(
        known,
        packets=known.packets + session.packets,
        bytes=known.bytes + session.bytes,
        dropped=known.dropped + session.in_flight,
    )
