"""The latency report that people read: one HTML file, without network, light and dark.

Sentences, percentiles per stage, the run over time, a histogram and the worst frames. Everything
is drawn here; the script only answers the pointer. Names and URLs are hostile input: all text goes
through `escaped`, and the page's own policy admits no other script and no connection.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from vsr.report.html.charts import histogram
from vsr.report.html.columns import Columns, worst
from vsr.report.html.style import SCRIPT, STYLE
from vsr.report.html.text import clock, count, duration, escaped, size, span
from vsr.report.html.timeline import SLOTS, Timeline, timeline
from vsr.report.html.words import deadline_of, rate_of, seconds_of, sentences

WORST: Final = 10
STATISTICS: Final = ("mean", "p50", "p95", "p99", "max")
_MARKS: Final = {"p50": 50, "p95": 95, "p99": 99}
_UNREADABLE: Final = frozenset({"since"})
"""Times of a clock that nobody knows."""
_MEANING: Final = {
    "decode": "from its packet's reading until the picture is ready",
    "wait": "in the queues between the stages",
    "infer": "making the larger picture",
    "encode": "until its own packet comes out, the encoder's delay included",
    "mux": "writing that packet; not part of the total",
}


def page(facts: Mapping[str, Any], columns: Columns) -> str:
    """The report of `facts` (the head of the .json report, see `Report.facts`) and the rows."""
    names = [str(facts.get(end, {}).get("name", "")) for end in ("input", "output")]
    title = f"<bdi>{escaped(names[0])}</bdi> → <bdi>{escaped(names[1])}</bdi>"
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escaped(names[1])}: latency</title>\n<style>{STYLE}</style>\n</head>\n"
        f'<body>\n<main>\n<h1>{title}</h1>\n<p class="dim">{_subtitle(facts)}</p>',
        _section("In short", sentences(facts, columns)),
        _tiles(facts),
        *_measured(facts, columns),
        _section("The run", _all_facts(facts)),
        "</main>",
        _tooltips(columns),
        "</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>"


def _subtitle(facts: Mapping[str, Any]) -> str:
    """What went in, what was done to it and what came out, on one line."""
    source, target = facts.get("input", {}), facts.get("output", {})
    rate = rate_of(facts)
    before = [source.get("codec"), _shown("size", source.get("size")), rate and f"{rate:.5g} fps"]
    model = target.get("model") or " / ".join(target.get("rungs", ()))
    made = f"{model} x{target['scale']}" if target.get("scale") else model
    where = " on ".join(str(target[k]) for k in ("backend", "device") if target.get(k))
    after = [_shown("size", target.get("size")), target.get("encoder")]
    steps = (before, [made, target.get("precision"), where], after)
    return " → ".join(escaped(" ".join(str(s) for s in step if s)) for step in steps)


def _tiles(facts: Mapping[str, Any]) -> str:
    """The numbers to look at first."""
    frames, total = facts.get("frames", {}), facts.get("stages", {}).get("total")
    tiles = [("frames in", count(frames.get("in", 0)), False)]
    tiles.append(("frames out", count(frames.get("out", 0)), False))
    for name in ("dropped", "concealed"):
        number = frames.get(name, 0)
        tiles.append((name, count(number), number > 0))
    tiles.append(("frames/s", f"{facts.get('fps', 0):,.2f}", False))
    tiles.append(("running time", span(seconds_of(facts)), False))
    if total:
        tiles.append(("p50 total", duration(total["p50"]), False))
        tiles.append(("p99 total", duration(total["p99"]), False))
    deadline = deadline_of(facts)
    if deadline is not None:
        missed = facts["deadline"]["misses"]
        tiles.append(("late", count(missed), missed > 0))
    kinds = {True: "bad", False: "good"}
    cells = (
        f'<div class="{kinds[bad]}"><b>{text}</b><span>{name}</span></div>'
        for name, text, bad in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _measured(facts: Mapping[str, Any], columns: Columns) -> list[str]:
    """Everything that takes at least one row."""
    if not len(columns.index):
        return []
    deadline, stages, begins = deadline_of(facts), facts.get("stages", {}), facts.get("ledger_from")
    whole, since = (", whole run", f" since {clock(begins['pts_s'])}") if begins else ("", "")
    table = _stages(stages, columns.stages) if stages else ""
    curve = timeline(columns, deadline)
    sections = [_section(f"Latency by stage{whole}", table)] if table else []
    sections.append(_section(f"Total latency over the input's time{since}", curve))
    total = columns.total[columns.timed]
    if len(total):
        marks = {k: v for k, v in stages.get("total", {}).items() if k in _MARKS}
        if begins:  # those of the whole run are no marks of these rows
            marks = {k: float(np.percentile(total, q)) for k, q in _MARKS.items()}
        spread = histogram(total, marks, deadline)
        sections.append(_section(f"How total latency is spread{since}", spread))
        sections.append(_section(f"The slowest frames{since}", _slowest(columns, deadline)))
    return sections


def _stages(stages: Mapping[str, Mapping[str, float]], names: tuple[str, ...]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in STATISTICS)
    rows = []
    for name in names:
        numbers = "".join(f"<td>{stages[name][s]:,.3f}</td>" for s in STATISTICS)
        kind = ' class="whole"' if name == names[-1] else ""
        rows.append(f'<tr{kind}><th scope="row">{escaped(name)}</th>{numbers}</tr>')
    key = "".join(
        f'<li><i class="s{k}"></i>{escaped(name)}: {_MEANING.get(name, "")}</li>'
        for k, name in enumerate(names[:-1])
    )
    means = {name: stages[name]["mean"] for name in names[:-1] if name != "mux"}
    return (
        f'<div class="scroll"><table class="stages"><thead><tr><th scope="col">ms</th>{head}'
        f"</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>\n"
        f'<p class="unit">the mean frame</p>{_bar(means, sum(means.values()), names)}'
        f'<ul class="key">{key}</ul>'
    )


def _bar(
    parts: Mapping[str, float], whole: float, names: tuple[str, ...], limit: float | None = None
) -> str:
    """One stacked bar; `whole` (ms) is its full width, `limit` (ms) a line across it."""
    pieces = []
    for name, ms in parts.items():
        width = 100 * ms / whole if whole > 0 else 0.0
        if ms > 0:
            label = f"<em>{escaped(name)}</em>" if width >= 18 else ""
            pieces.append(
                f'<i class="s{names.index(name)}" style="width:{width:.2f}%" '
                f'title="{escaped(name)} {duration(ms)}">{label}</i>'
            )
    if limit is not None and limit < whole:
        pieces.append(f'<s style="left:{100 * limit / whole:.2f}%"></s>')
    return f'<div class="bar">{"".join(pieces)}</div>'


def _slowest(columns: Columns, deadline: float | None) -> str:
    """The worst frames as bars of their stages, and the same as numbers."""
    slowest, names = worst(columns, WORST), columns.stages
    whole = float(columns.total[slowest[0]])
    items, rows = [], []
    for row in slowest:
        ms = {name: float(columns.ms[k, row]) for k, name in enumerate(names)}
        rung, event = columns.rungs[columns.rung[row]], columns.events[columns.event[row]]
        about = [f"frame {count(int(columns.index[row]))}", clock(columns.pts[row])]
        about += [f"<bdi>{escaped(word)}</bdi>" for word in (rung, event) if word]
        within = {name: ms[name] for name in names[:-1] if name != "mux"}
        items.append(
            f"<li><p><b>{duration(ms[names[-1]])}</b><span>{' · '.join(about)}</span></p>"
            f"{_bar(within, whole, names, deadline)}</li>"
        )
        cells = "".join(f"<td>{value:,.3f}</td>" for value in ms.values())
        rows.append(
            f'<tr><th scope="row">{columns.index[row]}</th><td>{columns.pts[row]:.3f}</td>{cells}'
            f"<td>{escaped(rung)}</td><td>{escaped(event)}</td></tr>"
        )
    key = "".join(
        f'<li><i class="s{k}"></i>{escaped(name)}</li>'
        for k, name in enumerate(names[:-1])
        if name != "mux"
    )
    if deadline is not None and deadline < whole:
        key += f"<li><s></s>deadline {duration(deadline)}</li>"
    titles = ("frame", "time s", *(f"{name} ms" for name in names), "rung", "event")
    head = "".join(f'<th scope="col">{escaped(title)}</th>' for title in titles)
    return (
        f'<ol class="worst">{"".join(items)}</ol><ul class="key">{key}</ul>\n<details><summary>The '
        f'same in numbers</summary><div class="scroll"><table class="frames"><thead><tr>{head}'
        f"</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _all_facts(facts: Mapping[str, Any]) -> str:
    """Input, output, relay, machine and versions, whatever they hold."""
    groups = []
    for group in ("input", "output", "live", "machine", "versions"):
        if not facts.get(group):
            continue
        entries = "".join(
            f"<dt>{escaped(str(key).replace('_', ' '))}</dt><dd>{shown}</dd>"
            for key, value in facts[group].items()
            if (shown := _lines(str(key), value))
        )
        groups.append(f"<div><h3>{group}</h3><dl>{entries}</dl></div>")
    return f'<div class="facts">{"".join(groups)}</div>'


def _lines(key: str, value: object) -> str:
    """A fact, each of several things on a line of its own."""
    parts = value if isinstance(value, (list, tuple)) else []
    several = any(isinstance(part, Mapping) for part in parts)
    lines = [_shown(key, part) for part in (parts if several else [value])]
    return "<br>".join(f"<bdi>{escaped(line)}</bdi>" for line in lines if line)


def _shown(key: str, value: object) -> str:
    """A fact as people read it."""
    if value is None:
        return ""
    if key == "size" and isinstance(value, (list, tuple)):
        return "x".join(str(v) for v in value)
    if key == "bytes" and isinstance(value, int):
        return size(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown("", v) for v in value)
    if isinstance(value, Mapping):
        parts = {str(k): _shown(str(k), v) for k, v in value.items() if k not in _UNREADABLE}
        return ", ".join(f"{k.replace('_', ' ')} {text}" for k, text in parts.items() if text)
    return str(value)


def _tooltips(columns: Columns) -> str:
    """The script and what it shows; nothing where there is no curve."""
    if not columns.timed.any():
        return ""
    x, texts = Timeline(columns).words()
    data = json.dumps({"width": SLOTS, "x": x, "text": texts}).replace("<", "\\u003c")
    return f'<script type="application/json" id="slots">{data}</script>\n<script>{SCRIPT}</script>'
