"""Builds the latency report as HTML: one file without network requests, for light and dark.

This module computes the content: sentences, percentiles per stage, timeline, histogram and slowest
frames; templates/report.html lays it out. The script only handles the pointer. The page's
Content-Security-Policy allows no other script and no connection.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from vsr.report.html.charts import histogram
from vsr.report.html.columns import Columns, slowest_rows
from vsr.report.html.summary import (
    deadline_ms,
    input_rate,
    run_seconds,
    stages_outside_total,
    summary,
)
from vsr.report.html.templates import Tile, csp_hash, render, static
from vsr.report.html.text import clock, count, duration, printable, size, span
from vsr.report.html.timeline import MAX_SLOTS, TimeAxis, timeline

MAX_SLOWEST: Final = 10
"""Number of frames in the list of the slowest."""
STATISTICS: Final = ("mean", "p50", "p95", "p99", "max")
_PACKAGE: Final = "vsr.report.html"
_MARKS: Final = {"p50": 50, "p95": 95, "p99": 99}
_HIDDEN_KEYS: Final = frozenset({"since"})
"""Keys of facts that are not shown: times of the process's monotonic clock."""
_STAGE_MEANINGS: Final = {
    "decode": "from reading the packet to the decoded frame",
    "wait": "in the queues between the stages",
    "infer": "upscaling the frame",
    "encode": "until the frame's packet is encoded, including the encoder's delay",
    "mux": "writing the packet; not part of the total",
}
_STAGE_MEANINGS_LIVE: Final = {
    **_STAGE_MEANINGS,
    "wait": "in the queues between the stages, and for frames that are shown earlier (B-frames)",
    "mux": "in the queue of the slowest output, and writing to it",
}


@dataclass(frozen=True)
class BarSegment:
    """A stage's part of a stacked bar; `width` in percent of the bar."""

    name: str
    colour: int
    ms: float
    width: float


def render_page(facts: Mapping[str, Any], columns: Columns) -> str:
    """Return the report of `facts` (see `Report.facts`) and the rows as HTML text."""
    script = static(_PACKAGE, "report.js")
    deadline, stages, begins = deadline_ms(facts), facts.get("stages", {}), facts.get("ledger_from")
    rows, timed = len(columns.index), bool(columns.timed.any())
    return render(
        _PACKAGE,
        "report.html",
        source=facts.get("input", {}).get("name", ""),
        target=facts.get("output", {}).get("name", ""),
        subtitle=_subtitle(facts),
        sentences=summary(facts, columns),
        tiles=list(_tiles(facts, rows)),
        scope=", whole run" if begins else "",
        since=f" since {clock(begins['pts_s'])}" if begins else "",
        deadline=deadline,
        stages=_stages(facts, columns.stages) if stages and rows else None,
        timeline=timeline(columns, deadline) if rows else None,
        histogram=_latency_histogram(facts, columns) if timed else None,
        slowest=_slowest(facts, columns) if timed else None,
        facts=list(_all_facts(facts)),
        tooltips=_tooltip_data(columns) if timed else "",
        script=script,
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src {csp_hash(script)}",
    )


def _subtitle(facts: Mapping[str, Any]) -> str:
    """Return one line with the input, the model and its backend, and the output."""
    source, target = facts.get("input", {}), facts.get("output", {})
    rate = input_rate(facts)
    before = [
        source.get("codec"),
        _fact_text("size", source.get("size")),
        rate and f"{rate:.5g} fps",
    ]
    model = target.get("model") or " / ".join(target.get("rungs", ()))
    made = f"{model} x{target['scale']}" if target.get("scale") else model
    where = " on ".join(str(target[k]) for k in ("backend", "device") if target.get(k))
    after = [_fact_text("size", target.get("size")), target.get("encoder")]
    steps = (before, [made, target.get("precision"), where], after)
    return " → ".join(" ".join(str(s) for s in step if s) for step in steps)


def _tiles(facts: Mapping[str, Any], rows: int) -> Iterator[Tile]:
    """Yield the key figures. `rows`: number of rows of the ledger."""
    frames, total = facts.get("frames", {}), facts.get("stages", {}).get("total")
    yield Tile("frames in", count(frames.get("in", 0)))
    yield Tile("frames out", count(frames.get("out", 0)))
    for name in ("dropped", "concealed"):
        number = frames.get(name, 0)
        yield Tile(name, count(number), number > 0)
    yield Tile("frames/s", f"{facts.get('fps', 0):,.2f}")
    yield Tile("run time", span(run_seconds(facts, rows)))
    if total:
        yield Tile("p50 total", duration(total["p50"]))
        yield Tile("p99 total", duration(total["p99"]))
    if deadline_ms(facts) is not None:
        missed = facts["deadline"]["misses"]
        yield Tile("late frames", count(missed), missed > 0)


def _stages(facts: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the table of percentiles, and the mean frame's time by stage."""
    stages, outside = facts["stages"], stages_outside_total(facts)
    means = {name: stages[name]["mean"] for name in names[:-1]}
    whole = sum(ms for name, ms in means.items() if name not in outside)
    meaning = _STAGE_MEANINGS if outside else _STAGE_MEANINGS_LIVE
    return {
        "statistics": STATISTICS,
        "rows": [{"name": n, "ms": [stages[n][s] for s in STATISTICS]} for n in names],
        "mean": _bar_segments(means, whole, outside),
        "meanings": [(name, meaning.get(name, "")) for name in means],
    }


def _bar_segments(
    stages: Mapping[str, float], whole: float, outside: Collection[str]
) -> list[BarSegment]:
    """Return the segments of a stacked bar of `whole` ms, without the stages outside the total."""
    return [
        BarSegment(name, colour, ms, 100 * ms / whole if whole > 0 else 0.0)
        for colour, (name, ms) in enumerate(stages.items())
        if ms > 0 and name not in outside
    ]


def _latency_histogram(facts: Mapping[str, Any], columns: Columns) -> object:
    """Return the histogram of the rows, with percentiles of the same rows."""
    total = columns.total[columns.timed]
    stages = facts.get("stages", {})
    marks = {k: v for k, v in stages.get("total", {}).items() if k in _MARKS}
    if facts.get("ledger_from"):  # percentiles of the whole run do not apply to these rows
        marks = {k: float(np.percentile(total, q)) for k, q in _MARKS.items()}
    return histogram(total, marks, deadline_ms(facts))


def _slowest(facts: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """Return the slowest frames as stacked bars of their stages, and as numbers."""
    slowest, names = slowest_rows(columns, MAX_SLOWEST), columns.stages
    deadline, outside = deadline_ms(facts), stages_outside_total(facts)
    whole = float(columns.total[slowest[0]])
    frames = []
    for row in slowest:
        ms = [float(v) for v in columns.ms[:, row]]
        frames.append({
            "index": int(columns.index[row]), "pts": float(columns.pts[row]),
            "clock": clock(columns.pts[row]), "ms": ms,
            "rung": columns.rungs[columns.rung[row]], "event": columns.events[columns.event[row]],
            "pieces": _bar_segments(dict(zip(names[:-1], ms, strict=False)), whole, outside),
        })  # fmt: skip
    within = deadline is not None and deadline < whole
    return {
        "frames": frames,
        "limit": 100 * deadline / whole if deadline is not None and within else None,
        "key": [
            {"name": name, "colour": k} for k, name in enumerate(names[:-1]) if name not in outside
        ],
        "titles": ["frame", "time s", *(f"{name} ms" for name in names), "rung", "event"],
    }


def _all_facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Yield (group, [(name, lines)]) of all facts on input, output, relay, machine and versions."""
    for group in ("input", "output", "live", "machine", "versions"):
        entries = ((str(k), _fact_lines(str(k), v)) for k, v in facts.get(group, {}).items())
        shown = [(name.replace("_", " "), lines) for name, lines in entries if lines]
        if facts.get(group):
            yield group, shown


def _fact_lines(key: str, value: object) -> list[str]:
    """Return the lines of a fact: a list with mappings has a line per item, all else one line."""
    parts = value if isinstance(value, (list, tuple)) else []
    several = any(isinstance(part, Mapping) for part in parts)
    lines = [_fact_text(key, part) for part in (parts if several else [value])]
    return [line for line in lines if line]


def _fact_text(key: str, value: object) -> str:
    """Return a fact as readable text."""
    if value is None:
        return ""
    if key == "size" and isinstance(value, (list, tuple)):
        return "x".join(str(v) for v in value)
    if key == "bytes" and isinstance(value, int):
        return size(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_fact_text("", v) for v in value)
    if isinstance(value, Mapping):
        parts = {str(k): _fact_text(str(k), v) for k, v in value.items() if k not in _HIDDEN_KEYS}
        return ", ".join(f"{k.replace('_', ' ')} {text}" for k, text in parts.items() if text)
    return printable(value)


def _tooltip_data(columns: Columns) -> Markup:
    """Return the script's data as JSON, with `<` escaped so that it cannot end its element."""
    x, texts = TimeAxis(columns).tooltips()
    text = json.dumps({"width": MAX_SLOTS, "x": x, "text": texts})
    return Markup(text.replace("<", "\\u003c"))
