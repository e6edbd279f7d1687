"""Measures the throughput of one output, and adapts its bitrate to its network connection."""

import logging
from collections import deque
from typing import Any, Final

from vsr.live.common import THROUGHPUT_HISTORY_S, RelayLog
from vsr.live.output.adapt import Adapter
from vsr.media.bitrate import format_bitrate

ADAPTED_SCHEMES: Final = ("rtmp", "rtmps", "rtsp")
"""URL schemes over TCP, whose flow control shows how much the server accepts."""


class LinkMonitor:
    """Tracks and logs the throughput of one output. Call `sample` and `restart` from one thread;
    the other methods are thread-safe."""

    def __init__(self, url: str, bitrate: float | None, log: logging.Logger, name: str) -> None:
        """`bitrate` is the full video bitrate (bit/s); None: it is not adapted."""
        scheme = url.partition("://")[0].lower()
        adapts = bitrate is not None and scheme in ADAPTED_SCHEMES
        self._full_bps = bitrate or 0.0
        self._adapter = Adapter(self._full_bps) if adapts else None
        self._log = RelayLog(log, name)
        self._current_second: int | None = None
        self._bytes_before = 0
        self._history: deque[float] = deque(maxlen=THROUGHPUT_HISTORY_S)

    @property
    def share(self) -> float:
        """Fraction of the full bitrate that the output should get."""
        return self._adapter.share if self._adapter else 1.0

    def restart(self, at: float) -> None:
        """Restart the measurement because a new session opened at `at` (s, any clock)."""
        if self._adapter:
            self._adapter.restart(at)

    def sample(self, at: float, oldest_wait_s: float, backlog: int, sent: int, audio: int) -> None:
        """Measure, and adapt the bitrate if needed.

        `oldest_wait_s` is the waiting time of the oldest packet (s), `backlog` the number of bytes
        waiting, `sent` the bytes sent and `audio` the audio bytes offered, over all sessions.
        """
        self._add_to_history(at, sent)
        adapter = self._adapter
        if adapter is None or not adapter.sample(at, oldest_wait_s, backlog, sent, audio):
            return
        now, full = format_bitrate(adapter.share * self._full_bps), format_bitrate(self._full_bps)
        if adapter.was_reduced:
            self._log.warning(
                "connection carries about %s: bitrate reduced to %s of %s (use a lower "
                "--bitrate or a faster connection)",
                format_bitrate(adapter.throughput_bps), now, full,
            )  # fmt: skip
        else:
            self._log.info("no backlog: bitrate raised to %s of %s", now, full)

    def _add_to_history(self, at: float, sent: int) -> None:
        second = int(at)
        if self._current_second is None:
            self._current_second, self._bytes_before = second, sent
        if second > self._current_second:
            rate = 8 * (sent - self._bytes_before) / (second - self._current_second)
            self._history.extend([rate] * min(second - self._current_second, THROUGHPUT_HISTORY_S))
            self._current_second, self._bytes_before = second, sent

    def log_skip(self) -> None:
        """Log that frames were dropped because the backlog was too large."""
        self._log.warn_rarely(
            "the backlog is too large: dropping frames up to the next key frame "
            "(use a lower --bitrate or a faster connection)"
        )

    def facts(self) -> dict[str, Any]:
        """Return bitrates in bit/s: `bitrate` and `bitrate_full` (current and full video bitrate),
        `bitrate_lowest`, `sent_bps` (one entry per second, newest last); and the number of
        `bitrate_changes`."""
        adapter = self._adapter
        return {
            "bitrate": round(self.share * self._full_bps),
            "bitrate_full": round(self._full_bps),
            "bitrate_lowest": round((adapter.lowest_share if adapter else 1.0) * self._full_bps),
            "bitrate_changes": adapter.changes if adapter else 0,
            "sent_bps": [round(rate) for rate in tuple(self._history)],
        }
