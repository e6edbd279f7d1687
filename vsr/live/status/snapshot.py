"""Figures of a relay at one moment, for status page, Prometheus and health check.

No clock, no lock, no thread; `StatusBoard` makes them.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from vsr.media.colour import Colour
from vsr.media.frame import Planes

SCHEMA: Final = "vsr-status/1"
FLOW_S: Final = 5.0
"""Seconds without a packet after which nothing flows; frames per second are counted over them."""
TIMELINE_S: Final = 120
"""Seconds that the timeline goes back, in columns of a second."""


@dataclass(frozen=True, kw_only=True)
class OutputStatus:
    """State and counters of one output, from `Output.facts()`."""

    name: str
    state: str
    since_s: float
    """Seconds in this state."""
    reconnects: int
    packets: int
    bytes: int
    dropped: int
    queued: int
    queued_s: float
    queued_bytes: int
    last_error: str
    pictures: int = 0
    """Pictures of the source that were sent."""
    pictures_dropped: int = 0
    queue_ms: Mapping[str, float] = field(default_factory=dict)
    """Mean, p50, p95, p99, max of what pictures' packets waited for the muxer."""
    send_ms: Mapping[str, float] = field(default_factory=dict)
    """The same of how long writing them took."""

    number: int = 1
    """Tells it from others, whose masked names may be the same."""
    trouble: str = ""
    """Why nothing is sent although it is open."""
    skips: int = 0
    """How often pictures were left out up to a key frame."""
    bitrate: int = 0
    """Of the pictures, now and at best (bit/s)."""
    bitrate_full: int = 0
    bitrate_changes: int = 0
    sent_bps: Sequence[int] = ()
    """Bits sent in each of the last seconds, the newest last."""
    av_offset_ms: float | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "OutputStatus":
        """Create it from a mapping with `since` (s, `time.monotonic`); ignores other entries."""
        given = {f.name: facts[f.name] for f in fields(cls) if f.name in facts}
        return cls(since_s=time.monotonic() - facts["since"], **given)


@dataclass(frozen=True, kw_only=True)
class LatencyTimeline:
    """The last `TIMELINE_S` seconds, a column each, oldest first; None where nothing was shown."""

    p50: tuple[float | None, ...]
    """Milliseconds."""
    max: tuple[float | None, ...]
    rung: tuple[str | None, ...]
    """What made the column's last picture."""


@dataclass(frozen=True, kw_only=True)
class StreamFacts:
    """Facts of source and output, known when the relay goes live."""

    source: Mapping[str, Any]
    """Of the input, such as size, rate, codec."""
    output: Mapping[str, Any]
    rungs: Sequence[str]
    """Best first."""
    colour: Colour


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """Figures of a relay. Latencies are milliseconds from a picture's arrival to its packet."""

    name: str
    """The source without its secrets."""
    deadline_ms: float
    uptime_s: float
    stage: StreamFacts | None
    """None: not live yet."""
    rung: str | None
    """What made the newest picture."""
    shown: Mapping[str, int]
    """Pictures of the whole run by rung, without repeated ones."""
    shown_minute: Mapping[str, int]
    frames_out: int
    """Pictures that at least one output sent, repeated ones included."""
    dropped: int
    repeated: int
    late: int
    """Pictures shown later than the deadline."""
    dropped_minute: int
    repeated_minute: int
    late_minute: int
    events: Mapping[str, int]
    """Other things that happened to pictures, such as `fallback`."""
    fps_in: float
    fps_out: float
    """Of pictures that at least one output sent, repeated ones included."""
    run: Mapping[str, float]
    """Mean, p50, p95, p99, max of the whole run; percentiles to 1 %. Empty without pictures."""
    minute: Mapping[str, Mapping[str, float]]
    """The same of the last minute, for each of `STAGES`."""
    timeline: LatencyTimeline
    buckets: Sequence[tuple[float, int]]
    """(upper bound, pictures not later than that), to infinity."""
    total_ms: float
    """The sum of all latencies."""
    packet_age_s: float | None
    """Since the newest packet; None: there was none."""
    outputs: Sequence[OutputStatus]
    sessions: int
    jumps: int
    nudged: int
    waiting: int | None
    """Decoded pictures that wait for an engine."""
    encoding: int | None
    """Larger pictures and packets of sound that wait for the encoder."""
    av_offset_ms: float | None
    real_age_s: float | None = None
    """Since the newest picture of the source went out; None: there was none."""
    sound_age_s: float | None = None
    """The same of sound of the source, from when it was live."""
    has_sound: bool = False
    """Whether the source has sound."""
    showing: str = ""
    """What is shown in place of the source."""
    sound_dropped: int = 0
    silence_s: float = 0.0
    """Silence that was sent in place of sound."""
    health_after: float = FLOW_S
    """Seconds without a picture or sound of the source after which that is a fault."""
    before: Planes | None
    after: Planes | None

    @property
    def frames_in(self) -> int:
        """Number of pictures of the source that were shown or dropped."""
        return sum(self.shown.values()) + self.dropped

    @property
    def trouble(self) -> str:
        """Reason why no output sends pictures and sound of the source; empty if one does."""
        return next(self._troubles(), "")

    def _troubles(self) -> Iterator[str]:
        """Yield the reasons, the one that explains the others first."""
        if self.stage is None:
            yield f"not live yet: waiting for {self.name}"
        if not any(output.state == "open" for output in self.outputs):
            states = "; ".join(f"{o.name} is {o.state}" for o in self.outputs)
            yield f"no output is open: {states}"
        if self.packet_age_s is None:
            yield "no packet went out yet"
        elif self.packet_age_s > self.health_after:
            yield f"no packet went out for {self.packet_age_s:.0f} s"
        if self.real_age_s is None or self.real_age_s > self.health_after:
            yield self.source_away
        if self.has_sound and (self.sound_age_s or 0.0) > self.health_after:
            yield self.sound_missing

    @property
    def source_away(self) -> str:
        """For how long no picture of the source went out, in words."""
        age = "yet" if self.real_age_s is None else f"for {self.real_age_s:.0f} s"
        return f"source away {age}, showing {self.showing or 'the last picture'}"

    @property
    def sound_missing(self) -> str:
        """For how long no sound of the source went out, in words."""
        return f"no sound for {self.sound_age_s or 0.0:.0f} s, sending silence"

    def facts(self) -> dict[str, Any]:
        """Return everything but the pictures, for JSON."""
        stage = self.stage
        return {
            "schema": SCHEMA,
            "flows": not self.trouble,
            "trouble": self.trouble,
            "name": self.name,
            "uptime_s": round(self.uptime_s, 3),
            "source": dict(stage.source) if stage else {},
            "output": dict(stage.output) if stage else {},
            "rungs": list(stage.rungs) if stage else [],
            "rung": self.rung,
            "frames": {
                "in": self.frames_in, "out": self.frames_out, "dropped": self.dropped,
                "repeated": self.repeated, "late": self.late,
                "dropped_minute": self.dropped_minute, "repeated_minute": self.repeated_minute,
                "late_minute": self.late_minute, "events": dict(self.events),
                "by_rung": dict(self.shown), "by_rung_minute": dict(self.shown_minute),
            },
            "fps": {"in": round(self.fps_in, 2), "out": round(self.fps_out, 2)},
            "latency_ms": {
                "deadline": self.deadline_ms, "run": dict(self.run),
                "minute": {name: dict(part) for name, part in self.minute.items()},
                "timeline": asdict(self.timeline),
            },
            "queues": {"waiting": self.waiting, "encoding": self.encoding},
            "av_offset_ms": self.av_offset_ms,
            "packet_age_s": self.packet_age_s, "real_age_s": self.real_age_s,
            "sound": {
                "there": self.has_sound, "age_s": self.sound_age_s,
                "dropped": self.sound_dropped, "silence_s": self.silence_s,
            },
            "sessions": self.sessions,
            "clock": {"jumps": self.jumps, "nudged": self.nudged},
            "outputs": [asdict(output) for output in self.outputs],
        }  # fmt: skip
