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

_OUTPUT: Final[Sequence[str]] = ("output", "name")
"""Label names: two outputs may have the same masked name, so their number distinguishes them."""


class Metrics:
    """Metrics of one relay and its process, in a separate registry."""

    def __init__(self, board: StatusBoard) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Relay(board))
        ProcessCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition in the format of a request's `Accept`, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Relay(Collector):
    def __init__(self, board: StatusBoard) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        snapshot = self._board.snapshot()
        yield InfoMetricFamily("vsr_relay", "What runs.", {"version": __version__})
        yield from _gauges(snapshot)
        yield from _counters(snapshot)
        yield from _outputs(snapshot)
        yield HistogramMetricFamily(
            "vsr_relay_latency_seconds",
            "From a picture's arrival to its packet.",
            buckets=[_bucket(bound, count) for bound, count in snapshot.buckets],
            sum_value=snapshot.total_ms / 1000,
        )


def _bucket(bound_ms: float, count: int) -> tuple[str, float]:
    return ("+Inf" if bound_ms == float("inf") else str(bound_ms / 1000), count)


def _gauges(s: Snapshot) -> Iterator[Metric]:
    known = {
        "flows": ("1 while packets go out to at least one output.", not s.trouble),
        "uptime_seconds": ("Since the relay was started.", s.uptime_s),
        "deadline_seconds": ("What --max-latency allows a picture.", s.deadline_ms / 1000),
        "fps_in": ("Pictures of the source a second.", s.fps_in),
        "fps_out": ("Pictures that go out a second, repeated ones included.", s.fps_out),
        "picture_age_seconds": ("Since a picture of the source went out.", s.real_age_s),
        "sound_age_seconds": (
            "Since sound of the source went out.",
            s.sound_age_s if s.has_sound else None,
        ),
        "waiting_frames": ("Decoded pictures that wait for an engine.", s.waiting),
        "encoding_items": ("Pictures and sound that wait for the encoder.", s.encoding),
        "av_offset_seconds": (
            "How much later pictures come against their sound than in the source.",
            None if s.av_offset_ms is None else s.av_offset_ms / 1000,
        ),
    }
    for name, (words, value) in known.items():
        if value is not None:  # an unknown value is absent, not 0
            yield GaugeMetricFamily(f"vsr_relay_{name}", words, value)
    rung = GaugeMetricFamily("vsr_relay_rung", "1 for what makes the pictures.", labels=["rung"])
    for name in s.stage.rungs if s.stage else ():
        rung.add_metric([printable(name)], name == s.rung)
    yield rung


def _counters(s: Snapshot) -> Iterator[Metric]:
    known = {
        "frames_in": ("Pictures of the source that were shown or dropped.", s.frames_in),
        "frames_out": ("Pictures that went out, repeated ones included.", s.frames_out),
        "frames_dropped": ("Pictures left out because even bicubic was late.", s.dropped),
        "frames_repeated": ("Pictures shown again because none came.", s.repeated),
        "frames_late": ("Pictures shown later than the deadline.", s.late),
        "source_sessions": ("Connections to the source.", s.sessions),
        "silence_seconds": ("Silence sent in place of sound.", s.silence_s),
        "sound_dropped": ("Packets of sound that did not go out.", s.sound_dropped),
        "clock_jumps": ("Leaps of the source's clock that were mended.", s.jumps),
        "clock_nudges": ("Pictures whose time did not go forward.", s.nudged),
    }
    for name, (words, value) in known.items():
        yield CounterMetricFamily(f"vsr_relay_{name}", words, value)
    shown = CounterMetricFamily("vsr_relay_frames", "Pictures shown, by rung.", labels=["rung"])
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
        "queued_packets": ("Packets that wait.", [o.queued for o in s.outputs]),
        "queued_seconds": ("Stream time that waits.", [o.queued_s for o in s.outputs]),
        "queued_bytes": ("Bytes that wait.", [o.queued_bytes for o in s.outputs]),
        "bitrate": ("Bits a second of its pictures.", [o.bitrate for o in s.outputs]),
        "bitrate_full": ("The same where the line takes it.", [o.bitrate_full for o in s.outputs]),
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
        "pictures": ("Pictures of the source sent.", [o.pictures for o in s.outputs]),
        "bitrate_changes": ("Steps of its bitrate.", [o.bitrate_changes for o in s.outputs]),
        "skips": ("Times that too much waited.", [o.skips for o in s.outputs]),
        "dropped_pictures": (
            "Pictures of the source not sent.",
            [o.pictures_dropped for o in s.outputs],
        ),
    }
    for name, (words, numbers) in gauges.items():
        gauge = GaugeMetricFamily(f"vsr_relay_output_{name}", words, labels=_OUTPUT)
        for label, number in zip(labels, numbers, strict=True):
            gauge.add_metric(label, number)
        yield gauge
    for name, (words, counts) in counters.items():
        counter = CounterMetricFamily(f"vsr_relay_output_{name}", words, labels=_OUTPUT)
        for label, count in zip(labels, counts, strict=True):
            counter.add_metric(label, count)
        yield counter
