"""Counts the packets one output has sent and dropped, and measures how long sending took."""

import threading
from typing import Any

from vsr.live.output.delivery import Delivery
from vsr.live.output.record import Record
from vsr.live.output.sync import SyncMeter
from vsr.media.frame import now
from vsr.report.histogram import Histogram


class Tally:
    """Counts and timings of an output's packets over all its sessions. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.pictures = self.pictures_dropped = 0
        """Number of source frames sent and dropped, without repeated ones."""
        self._times = {"queue_ms": Histogram(), "send_ms": Histogram()}
        """Histograms of how long video packets waited for the muxer and how long writing took."""
        self._sync = SyncMeter()
        self._heard: float | None = None
        """Time at which source audio was last written (s, `now`)."""

    def sent(self, record: Record, begin: float, end: float, shown: float | None) -> None:
        """Count a packet that was written from `begin` to `end` (s, `now`). `shown` is its pts in
        the output (s), or None if the muxer left it out."""
        if shown is None:
            self.dropped(record)
            return
        with self._lock:
            if record.origin is not None:
                self._sync.add(record.kind, record.origin, shown, end)
                self._heard = end if record.kind == "audio" else self._heard
            if record.delivery is not None:
                self.pictures += record.delivery.counts
                self._times["queue_ms"].add(1000 * (begin - record.offered))
                self._times["send_ms"].add(1000 * (end - begin))
        if record.delivery is not None:
            record.delivery.sent(end)

    def dropped(self, record: Record) -> None:
        """Count a dropped packet."""
        if record.delivery is not None:
            self.missed(record.delivery)

    def missed(self, delivery: Delivery) -> None:
        """Count a frame that got no packet, or whose packet is not sent."""
        with self._lock:
            self.pictures_dropped += delivery.counts
        delivery.dropped()

    def facts(self) -> dict[str, Any]:
        """Return the age of the newest audio (s), A/V offsets and histogram summaries (ms)."""
        with self._lock:
            heard = self._heard
            return {
                "sound_age_s": None if heard is None else round(now() - heard, 3),
                "av_offset_ms": self._sync.offset_ms(now()),
                "av_offset_last_ms": self._sync.last_ms,
                "av_offset_worst_ms": self._sync.worst_ms,
                **{name: times.summary() for name, times in self._times.items()},
            }
