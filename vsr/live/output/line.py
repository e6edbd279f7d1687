"""Measures the throughput of one output, and adapts its bitrate to its network connection."""

import logging
from collections import deque
from typing import Any, Final

from vsr.live.common import RelayLog
from vsr.live.output.adapt import Adapter
from vsr.media.bitrate import format_bitrate

ADAPT: Final = ("rtmp", "rtmps", "rtsp")
"""URL schemes over TCP, whose flow control shows how much the server accepts."""
HISTORY_S: Final = 60
"""Length of the throughput history, in seconds."""


class Line:
    """Tracks and logs the throughput of one output. Call `look` and `restart` from one thread;
    the other methods are thread-safe."""

    def __init__(self, url: str, bitrate: float | None, log: logging.Logger, name: str) -> None:
        """`bitrate` is the full video bitrate (bit/s); None: it is not adapted."""
        scheme = url.partition("://")[0].lower()
        adapts = bitrate is not None and scheme in ADAPT
        self._full = bitrate or 0.0
        self._adapter = Adapter(self._full) if adapts else None
        self._log = RelayLog(log, name)
        self._second: int | None = None
        self._base = 0
        self._history: deque[float] = deque(maxlen=HISTORY_S)

    @property
    def share(self) -> float:
        """Fraction of the full bitrate that the output should get."""
        return self._adapter.share if self._adapter else 1.0

    def restart(self, at: float) -> None:
        """Restart the measurement because a new session opened at `at` (s, any clock)."""
        if self._adapter:
            self._adapter.restart(at)

    def look(self, at: float, waits: float, backlog: int, sent: int, sound: int) -> None:
        """Measure, and adapt the bitrate if needed.

        `waits` is the waiting time of the oldest packet (s), `backlog` the number of bytes
        waiting, `sent` the bytes sent and `sound` the audio bytes offered, over all sessions.
        """
        self._count(at, sent)
        adapter = self._adapter
        if adapter is None or not adapter.look(at, waits, backlog, sent, sound):
            return
        now, full = format_bitrate(adapter.share * self._full), format_bitrate(self._full)
        if adapter.went_down:
            self._log.warning(
                "the line takes about %s: bitrate down to %s of %s (a lower --bitrate or a "
                "better line would help)", format_bitrate(adapter.line), now, full,
            )  # fmt: skip
        else:
            self._log.info("nothing waits: bitrate up to %s of %s", now, full)

    def _count(self, at: float, sent: int) -> None:
        second = int(at)
        if self._second is None:
            self._second, self._base = second, sent
        if second > self._second:
            rate = 8 * (sent - self._base) / (second - self._second)
            self._history.extend([rate] * min(second - self._second, HISTORY_S))
            self._second, self._base = second, sent

    def skipped(self) -> None:
        """Log that frames were dropped because the backlog was too large."""
        self._log.warn_rarely(
            "more waits than the line takes: pictures are left out up to the next key frame "
            "(a lower --bitrate or a better line would help)"
        )

    def facts(self) -> dict[str, Any]:
        """Return bitrates in bit/s: `bitrate` and `bitrate_full` (current and full video bitrate),
        `bitrate_lowest`, `sent_bps` (one entry per second, newest last); and the number of
        `bitrate_changes`."""
        adapter = self._adapter
        return {
            "bitrate": round(self.share * self._full),
            "bitrate_full": round(self._full),
            "bitrate_lowest": round((adapter.lowest if adapter else 1.0) * self._full),
            "bitrate_changes": adapter.changes if adapter else 0,
            "sent_bps": [round(rate) for rate in tuple(self._history)],
        }
