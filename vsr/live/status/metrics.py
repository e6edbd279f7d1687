"""Exports a snapshot as Prometheus metrics, for `/metrics`."""

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from vsr.live.status.board import StatusBoard
from vsr.live.status.snapshot import Snapshot
from vsr.report.html.text import printable
from vsr.version import __version__

_OUTPUT_LABELS: Final[Sequence[str]] = ("output", "name")
"""Label names: two outputs may have the same masked name, so their number distinguishes them."""


class Metrics:
    """Metrics of one relay and its process, in a separate registry."""

    def __init__(self, board: StatusBoard) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_RelayCollector(board))
        ProcessCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition in the format of a request's `Accept`, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _RelayCollector(Collector):
    def __init__(self, board: StatusBoard) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        snapshot = self._board.snapshot()
        yield InfoMetricFamily("vsr_relay", "Version of vsr.", {"version": __version__})
        yield from _gauges(snapshot)
        yield from _counters(snapshot)
        yield from _outputs(snapshot)
        yield HistogramMetricFamily(
            "vsr_relay_latency_seconds",
            "Time from a frame's arrival to its sent packet.",
            buckets=[_bucket(bound, count) for bound, count in snapshot.buckets],
            sum_value=snapshot.total_ms / 1000,
        )


def _bucket(bound_ms: float, count: int) -> tuple[str, float]:
    return ("+Inf" if bound_ms == float("inf") else str(bound_ms / 1000), count)


def _gauges(s: Snapshot) -> Iterator[Metric]:
    known = {
        "flows": (
            "1 while the source's video and audio are sent to at least one output.",
            not s.trouble,
        ),
        "uptime_seconds": ("Time since the relay was started.", s.uptime_s),
        "deadline_seconds": ("Latency limit of a frame (--max-latency).", s.deadline_ms / 1000),
        "fps_in": ("Source frames per second.", s.fps_in),
        "fps_out": ("Frames sent per second, including repeated ones.", s.fps_out),
        "picture_age_seconds": ("Time since a source frame was sent.", s.real_age_s),
        "sound_age_seconds": (
            "Time since source audio was sent.",
            s.sound_age_s if s.has_sound else None,
        ),
        "waiting_frames": ("Decoded frames waiting for an engine.", s.waiting),
        "encoding_items": ("Frames and audio packets waiting for the encoder.", s.encoding),
        "av_offset_seconds": (
            "How much later video is than its audio, compared with the source.",
            None if s.av_offset_ms is None else s.av_offset_ms / 1000,
        ),
    }
    for name, (help_text, value) in known.items():
        if value is not None:  # an unknown value is absent, not 0
            yield GaugeMetricFamily(f"vsr_relay_{name}", help_text, value)
    rung = GaugeMetricFamily("vsr_relay_rung", "1 for the rung in use.", labels=["rung"])
    for name in s.stage.rungs if s.stage else ():
        rung.add_metric([printable(name)], name == s.rung)
    yield rung


def _counters(s: Snapshot) -> Iterator[Metric]:
    known = {
        "frames_in": ("Source frames shown or dropped.", s.frames_in),
        "frames_out": ("Frames sent, including repeated ones.", s.frames_out),
        "frames_dropped": ("Source frames dropped.", s.dropped),
        "frames_repeated": ("Repetitions of the last frame because none arrived.", s.repeated),
        "frames_late": ("Frames sent after their deadline.", s.late),
        "source_sessions": ("Connections to the source.", s.sessions),
        "silence_seconds": ("Duration of silence sent in place of audio.", s.silence_s),
        "sound_dropped": ("Audio packets not sent.", s.sound_dropped),
        "clock_jumps": ("Source clock jumps that were corrected.", s.jumps),
        "clock_nudges": ("Frame timestamps corrected because they did not increase.", s.nudged),
    }
    for name, (help_text, value) in known.items():
        yield CounterMetricFamily(f"vsr_relay_{name}", help_text, value)
    shown = CounterMetricFamily(
        "vsr_relay_frames", "Source frames shown, by rung.", labels=["rung"]
    )
    for name, number in s.shown.items():
        shown.add_metric([printable(name)], number)
    yield shown
    events = CounterMetricFamily("vsr_relay_events", "Frames affected, by event.", labels=["event"])
    for name, number in s.events.items():
        events.add_metric([printable(name)], number)
    yield events


def _outputs(s: Snapshot) -> Iterator[Metric]:
    labels = [(str(output.number), printable(output.name)) for output in s.outputs]
    gauges: dict[str, tuple[str, Sequence[float]]] = {
        "open": ("1 while its session is open.", [o.state == "open" for o in s.outputs]),
        "queued_packets": ("Packets queued.", [o.queued for o in s.outputs]),
        "queued_seconds": ("Duration of the queued packets.", [o.queued_s for o in s.outputs]),
        "queued_bytes": ("Bytes queued.", [o.queued_bytes for o in s.outputs]),
        "bitrate": ("Current video bitrate, in bit/s.", [o.bitrate for o in s.outputs]),
        "bitrate_full": ("Full video bitrate, in bit/s.", [o.bitrate_full for o in s.outputs]),
        "sent_bits_per_second": (
            "Bits sent in the last second.",
            [o.sent_bps[-1] if o.sent_bps else 0 for o in s.outputs],
        ),
    }
    counters: dict[str, tuple[str, Sequence[float]]] = {
        "reconnects": ("Sessions after the first.", [o.reconnects for o in s.outputs]),
        "packets": ("Packets written to the network.", [o.packets for o in s.outputs]),
        "bytes": ("Bytes written to the network.", [o.bytes for o in s.outputs]),
        "dropped_packets": ("Packets not sent.", [o.dropped for o in s.outputs]),
        "pictures": ("Source frames sent.", [o.pictures for o in s.outputs]),
        "bitrate_changes": (
            "Changes of the video bitrate.",
            [o.bitrate_changes for o in s.outputs],
        ),
        "skips": (
            "Times that frames were dropped up to a key frame.",
            [o.skips for o in s.outputs],
        ),
        "dropped_pictures": (
            "Source frames not sent.",
            [o.pictures_dropped for o in s.outputs],
        ),
    }
    for name, (help_text, numbers) in gauges.items():
        gauge = GaugeMetricFamily(f"vsr_relay_output_{name}", help_text, labels=_OUTPUT_LABELS)
        for label, number in zip(labels, numbers, strict=True):
            gauge.add_metric(label, number)
        yield gauge
    for name, (help_text, counts) in counters.items():
        counter = CounterMetricFamily(f"vsr_relay_output_{name}", help_text, labels=_OUTPUT_LABELS)
        for label, count in zip(labels, counts, strict=True):
            counter.add_metric(label, count)
        yield counter
