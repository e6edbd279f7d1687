"""Watches how much one output sends, and how its bitrate follows its line."""

import logging
from collections import deque
from typing import Any, Final

from vsr.live.common import RelayLog
from vsr.live.output.adapt import Adapter
from vsr.media.bitrate import in_words

ADAPT: Final = ("rtmp", "rtmps", "rtsp")
"""Schemes whose server tells by TCP how much it takes."""
HISTORY_S: Final = 60
"""Seconds that the history of what was sent goes back."""


class Line:
    """Figures and log lines of what one output sends. `look` and `restart` are for one thread,
    the rest for any."""

    def __init__(self, url: str, bitrate: float | None, log: logging.Logger, name: str) -> None:
        """`bitrate` is the full one of the pictures (bit/s); None: it is not adapted."""
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
        """Share of the full bitrate that the output should get."""
        return self._adapter.share if self._adapter else 1.0

    def restart(self, at: float) -> None:
        """Begin to measure anew: another session is open (s, any clock)."""
        if self._adapter:
            self._adapter.restart(at)

    def look(self, at: float, waits: float, backlog: int, sent: int, sound: int) -> None:
        """Measure, and adapt the bitrate where that is needed.

        `waits` is how long the oldest packet has been waiting (s), `backlog` the bytes that wait,
        `sent` and `sound` the bytes sent and the bytes of sound offered, over all sessions.
        """
        self._count(at, sent)
        adapter = self._adapter
        if adapter is None or not adapter.look(at, waits, backlog, sent, sound):
            return
        now, full = in_words(adapter.share * self._full), in_words(self._full)
        if adapter.went_down:
            self._log.warning(
                "the line takes about %s: bitrate down to %s of %s (a lower --bitrate or a "
                "better line would help)", in_words(adapter.line), now, full,
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
        """Say that pictures were left out because too much waited."""
        self._log.warn_rarely(
            "more waits than the line takes: pictures are left out up to the next key frame "
            "(a lower --bitrate or a better line would help)"
        )

    def facts(self) -> dict[str, Any]:
        """Bitrates in bit/s: `bitrate` and `bitrate_full` of the pictures now and at best,
        `bitrate_lowest`, `bitrate_changes`, `sent_bps` second by second, the newest last."""
        adapter = self._adapter
        return {
            "bitrate": round(self.share * self._full),
            "bitrate_full": round(self._full),
            "bitrate_lowest": round((adapter.lowest if adapter else 1.0) * self._full),
            "bitrate_changes": adapter.changes if adapter else 0,
            "sent_bps": [round(rate) for rate in tuple(self._history)],
        }
