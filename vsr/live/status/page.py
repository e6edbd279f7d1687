"""Renders the page of `vsr relay --status`: complete without JavaScript, updated by a script.

The script requests the page every second and replaces the changed parts, so that all formatting is
on the server: values in this file, the page in templates/status.html.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vsr.live.common import THROUGHPUT_HISTORY_S
from vsr.live.status.health import health
from vsr.live.status.snapshot import TIMELINE_S, OutputStatus, Snapshot
from vsr.media.bitrate import format_bitrate
from vsr.report.html.charts import round_step
from vsr.report.html.templates import Tile, csp_hash, render, static
from vsr.report.html.text import count, duration, share, span
from vsr.report.ledger import STAGES

_PACKAGE: Final = "vsr.live.status"
_SCRIPT: Final = static(_PACKAGE, "status.js")
POLICY: Final = (
    f"default-src 'none'; script-src {csp_hash(_SCRIPT)}; style-src 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Value of the Content-Security-Policy header."""
_HEIGHT: Final = 100
"""Height of the timeline, in viewBox units."""
_MAX_DEADLINES: Final = 3.0
"""Upper end of the timeline's scale, in deadlines; higher latencies are clipped."""
_STATISTICS: Final = ("p50", "p95", "p99", "max")
_COLOURS: Final = 6
_MAX_OFFSET_MS: Final = 40.0
"""A/V offset above which viewers notice bad lip sync, in ms."""
_RATE_AVERAGE_S: Final = 3
"""Averaging time of an output's displayed bitrate, in seconds."""
_GRAPH_HEIGHT: Final = 20
"""Height of an output's bitrate graph, in viewBox units."""
_UNKNOWN: Final = "\u2013"


@dataclass(frozen=True)
class Piece:
    """Consecutive seconds of one rung, for the strip under the timeline."""

    rung: str
    colour: str
    start: int
    width: int


def page(snapshot: Snapshot, versions: Mapping[str, str]) -> str:
    """Render the page for a snapshot; `versions` are for its footer."""
    s = snapshot
    return render(
        _PACKAGE,
        "status.html",
        s=s,
        health=health(s),
        images=list(_images(s)),
        tiles=list(_tiles(s)),
        latency=_latency(s),
        stages={"statistics": _STATISTICS, "rows": list(_percentiles(s))},
        rungs=list(_rungs(s)),
        outputs=[(output, _rates(output)) for output in s.outputs],
        counters=list(_counters(s)),
        versions=versions,
        unknown=_UNKNOWN,
        script=_SCRIPT,
    )


def _images(s: Snapshot) -> Iterator[dict[str, Any]]:
    """Yield the two images. The script reloads them separately, to avoid flicker."""
    before = _stream(s.stage.source) if s.stage else ""
    upscaled = _stream(s.stage.output) if s.stage else ""
    after = " · ".join(filter(None, (s.showing or s.rung, upscaled)))
    for name, caption, planes in (("before", before, s.before), ("after", after, s.after)):
        height, width = planes[0].shape if planes else (9, 16)
        yield {
            "name": name, "caption": caption, "there": bool(planes), "width": width,
            "height": height,
        }  # fmt: skip


def _stream(facts: Mapping[str, Any]) -> str:
    """Format size, codec and frame rate."""
    pixels = "x".join(str(n) for n in facts.get("size", ()))
    rate = f"{facts['rate']} fps" if facts.get("rate") else ""
    return " ".join(str(w) for w in (pixels, facts.get("codec"), rate) if w)


def _tiles(s: Snapshot) -> Iterator[Tile]:
    """Yield the key figures; problems, mostly of the last minute, are red."""
    p99, offset = s.minute.get("total", {}).get("p99"), s.av_offset_ms
    yield Tile("rung", s.rung or _UNKNOWN, wide=True)
    yield Tile(
        f"p99 latency in the last minute, limit {s.deadline_ms:g} ms",
        _UNKNOWN if p99 is None else duration(p99),
        p99 is not None and p99 > s.deadline_ms,
        wide=True,
    )
    yield Tile("fps in", f"{s.fps_in:.1f}", s.stage is not None and not s.fps_in)
    yield Tile("fps sent", f"{s.fps_out:.1f}", s.stage is not None and not s.fps_out)
    yield Tile("dropped", count(s.dropped), s.dropped_minute > 0)
    yield Tile("late", count(s.late), s.late_minute > 0)
    yield Tile("repeated", count(s.repeated), s.repeated_minute > 0)
    signed = _UNKNOWN
    if offset is not None:
        signed = f"{round(offset):+d} ms" if round(offset) else "0 ms"
    silent = s.has_sound and (s.sound_age_s or 0.0) > s.health_after
    yield Tile("silence sent for audio", span(s.silence_s) if s.silence_s else "0 s", silent)
    yield Tile("audio packets dropped", count(s.sound_dropped), s.sound_dropped > 0)
    yield Tile("A/V offset", signed, abs(offset or 0.0) > _MAX_OFFSET_MS)


def _rates(output: OutputStatus) -> dict[str, str]:
    """Return an output's current bitrate, a reduced video bitrate, and the graph's points."""
    rates = output.sent_bps
    newest = rates[-_RATE_AVERAGE_S:]
    words = format_bitrate(sum(newest) / len(newest)) if newest else _UNKNOWN
    reduced = ""
    if output.bitrate < output.bitrate_full:
        now, full = format_bitrate(output.bitrate), format_bitrate(output.bitrate_full)
        reduced = f"bitrate reduced to {now} of {full}: slow connection"
    top = max(rates, default=0) or 1
    heights = (round(_GRAPH_HEIGHT * (1 - rate / top), 1) for rate in rates)
    points = " ".join(f"{k},{y}" for k, y in enumerate(heights))
    return {
        "now": words, "reduced": reduced, "points": points, "top": format_bitrate(top),
        "width": str(THROUGHPUT_HISTORY_S), "height": str(_GRAPH_HEIGHT),
    }  # fmt: skip


def _percentiles(s: Snapshot) -> Iterator[dict[str, Any]]:
    """Yield the total latency of the whole run and the last minute, then the minute's stages."""
    rows = [("whole run", s.run, "total"), ("last minute", s.minute.get("total", {}), "total")]
    rows += [(f"· {stage}", s.minute.get(stage, {}), "part") for stage in STAGES[:-2]]
    for name, numbers, kind in rows:
        yield {"name": name, "kind": kind, "ms": [numbers.get(k) for k in _STATISTICS]}


def _latency(s: Snapshot) -> dict[str, Any]:
    """Return the timeline: median and maximum per second, the deadline, and the rungs."""
    deadline = s.deadline_ms
    highest = max((v for v in s.timeline.max if v is not None), default=0.0)
    highest_shown = min(max(1.2 * deadline, 1.05 * highest), _MAX_DEADLINES * deadline)
    top = round_step(highest_shown / 5) * -(-highest_shown // round_step(highest_shown / 5))

    def y(ms: float) -> float:
        return round(_HEIGHT * (1 - min(ms / top, 1.0)), 1)

    line, pen = [], "M"
    for k, value in enumerate(s.timeline.p50):
        if value is not None:
            line.append(f"{pen}{k} {y(value)}H{k + 1}")
        pen = "M" if value is None else "L"
    bars = [
        f"M{k} {_HEIGHT}V{y(v)}h1V{_HEIGHT}z" for k, v in enumerate(s.timeline.max) if v is not None
    ]
    return {
        "seconds": TIMELINE_S, "height": _HEIGHT, "top": top, "limit": f"{y(deadline)}%",
        "slowest": "".join(bars), "median": "".join(line), "strip": list(_strip(s)),
    }  # fmt: skip


def _colour(s: Snapshot, rung: str) -> str:
    names = list(s.stage.rungs) if s.stage else []
    return f"c{names.index(rung) % _COLOURS}" if rung in names else "cx"


def _strip(s: Snapshot) -> Iterator[Piece]:
    """Yield the pieces of the strip that shows the rung of each second."""
    columns, start = s.timeline.rung, 0
    for k in range(1, len(columns) + 1):
        if k == len(columns) or columns[k] != columns[start]:
            rung = columns[start]
            if rung is not None:
                yield Piece(rung, _colour(s, rung), start, k - start)
            start = k


def _rungs(s: Snapshot) -> Iterator[dict[str, Any]]:
    names = [*(s.stage.rungs if s.stage else ()), *s.shown]
    whole, minute = sum(s.shown.values()), sum(s.shown_minute.values())
    for name in dict.fromkeys(names):
        number = s.shown.get(name, 0)
        yield {
            "name": name, "colour": _colour(s, name), "frames": number,
            "minute": share(s.shown_minute.get(name, 0), minute), "run": share(number, whole),
            "percent": 100 * number / whole if whole else 0.0,
        }  # fmt: skip


def _counters(s: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield names and values of the counters and queue lengths."""

    def number(value: int | None) -> str:
        return _UNKNOWN if value is None else count(value)

    yield "frames in", count(s.frames_in)
    yield "frames sent", count(s.frames_out)
    for event, n in s.events.items():
        yield f"frames with event {event}", count(n)
    yield "newest packet", _UNKNOWN if s.packet_age_s is None else f"{span(s.packet_age_s)} ago"
    yield "source sessions", count(s.sessions)
    yield "output reconnects", count(sum(o.reconnects for o in s.outputs))
    yield "frames waiting for an engine", number(s.waiting)
    yield "frames and audio waiting for the encoder", number(s.encoding)
    yield "source clock jumps", count(s.jumps)
    yield "timestamps corrected", count(s.nudged)
