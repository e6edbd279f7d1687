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
        self._histograms = {"queue_ms": Histogram(), "send_ms": Histogram()}
        """Histograms of how long video packets waited for the muxer and how long writing took."""
        self._sync = SyncMeter()
        self._last_audio_at: float | None = None
        """Time at which source audio was last written (s, `now`)."""

    def sent(self, record: Record, begin: float, end: float, pts_s: float | None) -> None:
        """Count a packet that was written from `begin` to `end` (s, `now`). `pts_s` is its pts in
        the output (s), or None if the muxer left it out."""
        if pts_s is None:
            self.dropped(record)
            return
        with self._lock:
            if record.origin is not None:
                self._sync.add(record.kind, record.origin, pts_s, end)
                self._last_audio_at = end if record.kind == "audio" else self._last_audio_at
            if record.delivery is not None:
                self.pictures += record.delivery.is_counted
                self._histograms["queue_ms"].add(1000 * (begin - record.queued_at))
                self._histograms["send_ms"].add(1000 * (end - begin))
        if record.delivery is not None:
            record.delivery.sent(end)

    def dropped(self, record: Record) -> None:
        """Count a dropped packet."""
        if record.delivery is not None:
            self.missed(record.delivery)

    def missed(self, delivery: Delivery) -> None:
        """Count a frame that got no packet, or whose packet is not sent."""
        with self._lock:
            self.pictures_dropped += delivery.is_counted
        delivery.dropped()

    def settle(self, pictures: int) -> None:
        """Count as dropped what is missing of `pictures` source frames, e.g. in the encoder."""
        with self._lock:
            self.pictures_dropped = max(self.pictures_dropped, pictures - self.pictures)

    def facts(self) -> dict[str, Any]:
        """Return the age of the newest audio (s), A/V offsets and histogram summaries (ms)."""
        with self._lock:
            last_audio_at = self._last_audio_at
            return {
                "sound_age_s": None if last_audio_at is None else round(now() - last_audio_at, 3),
                "av_offset_ms": self._sync.offset_ms(now()),
                "av_offset_last_ms": self._sync.last_ms,
                "av_offset_worst_ms": self._sync.worst_ms,
                **{name: histogram.summary() for name, histogram in self._histograms.items()},
            }
