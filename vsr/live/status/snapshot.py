"""Figures of a relay at one point in time, for status page, Prometheus and health check.

Plain data without clock, lock or thread; `StatusBoard` creates the snapshots.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from vsr.media.colour import Colour
from vsr.media.frame import Planes

SCHEMA: Final = "vsr-status/1"
RECENT_S: Final = 5.0
"""Default of `health_after` and averaging time of the frame rates, in seconds."""
TIMELINE_S: Final = 120
"""Length of the timeline, in seconds and columns."""


@dataclass(frozen=True, kw_only=True)
class OutputStatus:
    """State and counters of one output, from `Output.facts()`."""

    name: str
    state: str
    since_s: float
    """Time in this state, in seconds."""
    reconnects: int
    packets: int
    bytes: int
    dropped: int
    queued: int
    queued_s: float
    queued_bytes: int
    last_error: str
    pictures: int = 0
    """Number of source frames sent."""
    pictures_dropped: int = 0
    queue_ms: Mapping[str, float] = field(default_factory=dict)
    """Mean, p50, p95, p99, max of the time that video packets waited for the muxer."""
    send_ms: Mapping[str, float] = field(default_factory=dict)
    """The same for the time that writing them took."""

    number: int = 1
    """Distinguishes outputs, whose masked names may be the same."""
    trouble: str = ""
    """Reason why an open output sends nothing, or empty."""
    skips: int = 0
    """Number of times frames were dropped up to a key frame."""
    bitrate: int = 0
    """Current video bitrate (bit/s); `bitrate_full` is the full one."""
    bitrate_full: int = 0
    bitrate_changes: int = 0
    sent_bps: Sequence[int] = ()
    """Bits sent in each of the last seconds, newest last."""
    av_offset_ms: float | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "OutputStatus":
        """Create one from a mapping with `since` (s, `time.monotonic`); ignore unknown keys."""
        given = {f.name: facts[f.name] for f in fields(cls) if f.name in facts}
        return cls(since_s=time.monotonic() - facts["since"], **given)


@dataclass(frozen=True, kw_only=True)
class LatencyTimeline:
    """One column for each of the last `TIMELINE_S` seconds, oldest first; None: no frame shown."""

    p50: tuple[float | None, ...]
    """Median latency, in ms."""
    max: tuple[float | None, ...]
    rung: tuple[str | None, ...]
    """Rung of the column's last frame."""


@dataclass(frozen=True, kw_only=True)
class StreamFacts:
    """Properties of source and output, known when the relay goes live."""

    source: Mapping[str, Any]
    """Properties of the input, such as size, rate, codec."""
    output: Mapping[str, Any]
    rungs: Sequence[str]
    """Names of the rungs, best first."""
    colour: Colour
    optional_rungs: int = 0
    """Number of the first rungs that are used only if this machine is fast enough."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """Figures of a relay. Latencies run from a frame's arrival to its sent packet, in ms."""

    name: str
    """Name of the source, without secrets."""
    deadline_ms: float
    uptime_s: float
    stage: StreamFacts | None
    """None: not live yet."""
    rung: str | None
    """Rung of the newest frame."""
    shown: Mapping[str, int]
    """Number of frames of the whole run by rung, without repeated ones."""
    shown_minute: Mapping[str, int]
    frames_out: int
    """Number of frames that at least one output sent, including repeated ones."""
    source_frames_out: int = 0
    """Those of `frames_out` that are not repeated, as `frames.out` in the report."""
    dropped: int
    repeated: int
    late: int
    """Number of frames sent after their deadline."""
    dropped_minute: int
    repeated_minute: int
    late_minute: int
    events: Mapping[str, int]
    """Number of frames by other events, such as `fallback`."""
    fps_in: float
    fps_out: float
    """Rate of frames that at least one output sent, including repeated ones."""
    source_fps_out: float = 0.0
    """The same without repeated ones."""
    run: Mapping[str, float]
    """Mean, p50, p95, p99, max of the whole run; percentiles within 1 %. Empty without frames."""
    minute: Mapping[str, Mapping[str, float]]
    """The same for the last minute, for each of `STAGES`."""
    timeline: LatencyTimeline
    buckets: Sequence[tuple[float, int]]
    """(upper bound in ms, number of frames up to it), up to infinity."""
    total_ms: float
    """Sum of all latencies."""
    packet_age_s: float | None
    """Time since the newest video packet was sent (s); None: none was sent."""
    outputs: Sequence[OutputStatus]
    sessions: int
    jumps: int
    nudged: int
    waiting: int | None
    """Number of decoded frames that wait for an engine."""
    encoding: int | None
    """Number of upscaled frames and audio packets that wait for the encoder."""
    av_offset_ms: float | None
    real_age_s: float | None = None
    """Time since the newest source frame was sent (s); None: none was sent."""
    sound_age_s: float | None = None
    """The same for source audio, at most the time since going live."""
    has_sound: bool = False
    """Whether the source has audio."""
    showing: str = ""
    """Description of what is shown in place of the source, or empty."""
    sound_dropped: int = 0
    silence_s: float = 0.0
    """Duration of silence sent in place of audio, in seconds."""
    health_after: float = RECENT_S
    """Time without source video or audio that counts as a fault, in seconds."""
    before: Planes | None
    after: Planes | None

    @property
    def frames_in(self) -> int:
        """Number of source frames shown or dropped."""
        return sum(self.shown.values()) + self.dropped

    @property
    def trouble(self) -> str:
        """Reason why no output sends the source's video and audio; empty if one does."""
        return next(self._troubles(), "")

    def _troubles(self) -> Iterator[str]:
        """Yield the reasons, root cause first."""
        if self.stage is None:
            yield f"not live yet: waiting for {self.name}"
        if not any(output.state == "open" for output in self.outputs):
            states = "; ".join(f"{o.name} is {o.state}" for o in self.outputs)
            yield f"no output is open: {states}"
        if self.packet_age_s is None:
            yield "no packet sent yet"
        elif self.packet_age_s > self.health_after:
            yield f"no packet sent for {self.packet_age_s:.0f} s"
        if self.real_age_s is None or self.real_age_s > self.health_after:
            yield self.source_away
        if self.has_sound and (self.sound_age_s or 0.0) > self.health_after:
            yield self.sound_missing

    @property
    def source_away(self) -> str:
        """Message that says for how long no source frame was sent."""
        age = "yet" if self.real_age_s is None else f"for {self.real_age_s:.0f} s"
        return f"no source video {age}, showing {self.showing or 'the last frame'}"

    @property
    def sound_missing(self) -> str:
        """Message that says for how long no source audio was sent."""
        return f"no source audio for {self.sound_age_s or 0.0:.0f} s, sending silence"

    @property
    def totals(self) -> dict[str, Any]:
        """Counts of frames of the whole run that report and status name alike."""
        return {
            "sent": self.frames_out, "repeated": self.repeated, "late": self.late,
            "by_rung": dict(self.shown),
        }  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """Return everything except the images, for JSON."""
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
                "in": self.frames_in, "out": self.source_frames_out, "dropped": self.dropped,
                "sent": self.frames_out, "repeated": self.repeated, "late": self.late,
                "dropped_minute": self.dropped_minute, "repeated_minute": self.repeated_minute,
                "late_minute": self.late_minute, "events": dict(self.events),
                "by_rung": dict(self.shown), "by_rung_minute": dict(self.shown_minute),
            },
            "fps": {
                "in": round(self.fps_in, 2), "out": round(self.source_fps_out, 2),
                "sent": round(self.fps_out, 2),
            },
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
