"""The page of `vsr relay --status`: whole without a script, and then kept up to date by one.

The script asks for the page again every second and exchanges what has changed, so that everything
is formatted in one place. Names are hostile input: all text goes through `escaped`, and the policy
admits no other script and no other address.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from vsr.live.status.snapshot import TIMELINE_S, OutputStatus, Snapshot
from vsr.live.status.style import SCRIPT, STYLE
from vsr.report.html.charts import round_step
from vsr.report.html.text import count, duration, escaped, share, size, span
from vsr.report.ledger import STAGES

_DIGEST: Final = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; script-src 'sha256-{_DIGEST}'; style-src 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""For the header of that name."""
_HEIGHT: Final = 100
"""Of the timeline, in its own units."""
_HIGHEST: Final = 3.0
"""Deadlines that the timeline shows at most; what is above is cut off."""
_STATISTICS: Final = ("p50", "p95", "p99", "max")
_COLOURS: Final = 6
_OFFSET_MS: Final = 40.0
"""From here on people see that lips and words are apart."""
_UNKNOWN: Final = "\u2013"


def page(snapshot: Snapshot, versions: Mapping[str, str]) -> str:
    """The page as it is now."""
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        '<noscript><meta http-equiv="refresh" content="5"></noscript>\n'
        f"<title>{_title(snapshot)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
        _head(snapshot),
        _pictures(snapshot),
        _tiles(snapshot),
        _section("latency", "Latency from arrival to packet", _timeline(snapshot)),
        f'<div class="pair">\n{_percentiles(snapshot)}\n{_rungs(snapshot)}\n</div>',
        f'<div class="pair">\n{_outputs(snapshot.outputs)}\n{_flow(snapshot)}\n</div>',
        _facts(snapshot, versions),
        f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _section(part: str, title: str, body: str) -> str:
    """Something that the script exchanges as a whole."""
    return f'<section id="{part}">\n<h2>{title}</h2>\n{body}\n</section>'


def _title(s: Snapshot) -> str:
    state = "flows" if not s.trouble else "no output"
    return f"{state} · {escaped(s.rung or 'vsr relay')} · {s.fps_out:.1f} fps"


def _head(s: Snapshot) -> str:
    reached = sum(o.state == "open" for o in s.outputs)
    words = (
        "output flows"
        if reached == len(s.outputs)
        else (f"output flows to {reached} of {len(s.outputs)}")
    )
    state = "good" if not s.trouble and reached == len(s.outputs) else "bad"
    words = escaped(s.trouble) if s.trouble else words
    targets = ", ".join(f"<bdi>{escaped(o.name)}</bdi>" for o in s.outputs)
    target = f"to {targets} · " if targets else ""
    return (
        f'<header id="head">\n<p class="state {state}"><i></i>{words}</p>\n'
        f"<h1><bdi>{escaped(s.name)}</bdi></h1>\n"
        f'<p class="dim">{target}up {span(s.uptime_s)}</p>\n</header>'
    )


def _pictures(s: Snapshot) -> str:
    """Outside of what is exchanged: the script loads each anew without a flicker."""
    stage = s.stage
    texts = [
        ("before", _stream(stage.source) if stage else "", s.before),
        (
            "after",
            " · ".join(filter(None, (s.rung, _stream(stage.output)))) if stage else "",
            s.after,
        ),
    ]
    figures = []
    for name, words, planes in texts:
        height, width = planes[0].shape if planes else (9, 16)
        file = f'src="{name}.jpg" ' if planes else ""
        figures.append(
            f'<figure>\n<img id="{name}" {file}width="{width}" height="{height}" '
            f'alt="the picture {name}">\n<figcaption id="{name}-words"><b>{name}</b> '
            f"<bdi>{escaped(words)}</bdi></figcaption>\n</figure>"
        )
    return f'<div class="pair pictures">\n{"".join(figures)}\n</div>'


def _stream(facts: Mapping[str, Any]) -> str:
    """Size, codec and rate in short."""
    pixels = "x".join(str(n) for n in facts.get("size", ()))
    rate = f"{facts['rate']} fps" if facts.get("rate") else ""
    return " ".join(str(w) for w in (pixels, facts.get("codec"), rate) if w)


def _tiles(s: Snapshot) -> str:
    """The numbers to look at first; red is what went wrong in the last minute."""
    p99, offset = s.minute.get("total", {}).get("p99"), s.av_offset_ms
    rung = f"<bdi>{escaped(s.rung)}</bdi>" if s.rung else _UNKNOWN
    limit = f"p99 of the last minute, limit {s.deadline_ms:g} ms"
    reconnects = sum(o.reconnects for o in s.outputs)
    tiles = [
        ("wide", "rung", rung, False),
        ("wide", limit, _ms(p99), p99 is not None and p99 > s.deadline_ms),
        ("", "fps in", f"{s.fps_in:.1f}", False),
        ("", "fps out", f"{s.fps_out:.1f}", False),
        ("", "dropped", count(s.dropped), s.dropped_minute > 0),
        ("", "late", count(s.late), s.late_minute > 0),
        ("", "repeated", count(s.repeated), s.repeated_minute > 0),
        ("", "sessions of the source", count(s.sessions), False),
        ("", "reconnects of outputs", count(reconnects), False),
        ("", "A/V offset", _UNKNOWN if offset is None else _signed(offset),
         offset is not None and abs(offset) > _OFFSET_MS),
    ]  # fmt: skip
    cells = "".join(
        f'<div class="{kind}{" bad" if bad else ""}"><b>{text}</b><span>{name}</span></div>'
        for kind, name, text, bad in tiles
    )
    return f'<div class="tiles" id="tiles">{cells}</div>'


def _signed(ms: float) -> str:
    return f"{round(ms):+d} ms" if round(ms) else "0 ms"


def _ms(value: float | None) -> str:
    return _UNKNOWN if value is None else duration(value)


def _percentiles(s: Snapshot) -> str:
    """The whole against the deadline, and the last minute's stages."""
    rows = [("whole run", s.run, "total"), ("last minute", s.minute.get("total", {}), "total")]
    rows += [(f"· {stage}", s.minute.get(stage, {}), "part") for stage in STAGES[:-2]]
    lines = []
    for name, numbers, kind in rows:
        cells = []
        for statistic in _STATISTICS:
            value = numbers.get(statistic)
            late = kind == "total" and value is not None and value > s.deadline_ms
            cells.append(f"<td{' class=bad' if late else ''}>{_ms(value)}</td>")
        lines.append(f'<tr class="{kind}"><th scope="row">{name}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{statistic}</th>' for statistic in _STATISTICS)
    table = (
        f'<div class="scroll"><table><thead><tr><th scope="col"></th>{head}</tr></thead>\n'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
    return _section("stages", "Where the time goes", table)


def _timeline(s: Snapshot) -> str:
    """Median and maximum of every second, the deadline, and what made the pictures."""
    deadline = s.deadline_ms
    highest = max((v for v in s.timeline.max if v is not None), default=0.0)
    wanted = min(max(1.2 * deadline, 1.05 * highest), _HIGHEST * deadline)
    top = round_step(wanted / 5) * -(-wanted // round_step(wanted / 5))

    def y(ms: float) -> float:
        return round(_HEIGHT * (1 - min(ms / top, 1.0)), 1)

    bars = "".join(
        f"M{k} {_HEIGHT}V{y(v)}h1V{_HEIGHT}z" for k, v in enumerate(s.timeline.max) if v is not None
    )
    line, pen = [], "M"
    for k, value in enumerate(s.timeline.p50):
        if value is not None:
            line.append(f"{pen}{k} {y(value)}H{k + 1}")
        pen = "M" if value is None else "L"
    level = f"{y(deadline)}%"
    return (
        f'<div class="plot"><svg class="chart" role="img" aria-label="Latency of the last '
        f'{TIMELINE_S} seconds"><svg viewBox="0 0 {TIMELINE_S} {_HEIGHT}" '
        f'preserveAspectRatio="none"><path class="high" d="{bars}"/><path class="mid" '
        f'd="{"".join(line)}"/></svg><line class="limit" x1="0" x2="100%" y1="{level}" '
        f'y2="{level}"/><text x="0" y="{level}" dy="-5">deadline {deadline:g} ms</text>'
        f'<text class="end" x="100%" y="0" dy="11">{top:g} ms</text></svg>\n{_strip(s)}'
        f'<p class="ends dim"><span>{TIMELINE_S} s ago</span><span class="key"><i class="mid"></i>'
        f'median <i class="high"></i>slowest of each second</span><span>now</span></p></div>'
    )


def _colour(s: Snapshot, rung: str) -> str:
    names = list(s.stage.rungs) if s.stage else []
    return f"c{names.index(rung) % _COLOURS}" if rung in names else "cx"


def _strip(s: Snapshot) -> str:
    """One line, coloured by rung."""
    columns, pieces, start = s.timeline.rung, [], 0
    for k in range(1, len(columns) + 1):
        if k == len(columns) or columns[k] != columns[start]:
            rung = columns[start]
            if rung is not None:
                pieces.append(
                    f'<rect class="{_colour(s, rung)}" x="{start}" width="{k - start}" height="1">'
                    f"<title>{escaped(rung)}</title></rect>"
                )
            start = k
    return (
        f'<svg class="strip" viewBox="0 0 {TIMELINE_S} 1" preserveAspectRatio="none" role="img" '
        f'aria-label="Rung of the last {TIMELINE_S} seconds">{"".join(pieces)}</svg>\n'
    )


def _rungs(s: Snapshot) -> str:
    names = [*(s.stage.rungs if s.stage else ()), *s.shown]
    whole, minute = sum(s.shown.values()), sum(s.shown_minute.values())
    rows = []
    for name in dict.fromkeys(names):
        number = s.shown.get(name, 0)
        width = 100 * number / whole if whole else 0.0
        mark = ' class="now"' if name == s.rung else ""
        rows.append(
            f'<tr{mark}><th scope="row"><i class="{_colour(s, name)}"></i><bdi>{escaped(name)}'
            f"</bdi></th><td>{share(s.shown_minute.get(name, 0), minute)}</td>"
            f"<td>{share(number, whole)}</td><td>{count(number)}</td></tr>\n"
            f'<tr class="bar"><td colspan="4"><svg viewBox="0 0 100 1" preserveAspectRatio="none">'
            f'<rect class="{_colour(s, name)}" width="{width:.2f}" height="1"/></svg></td></tr>'
        )
    head = "".join(f'<th scope="col">{t}</th>' for t in ("", "last minute", "whole run", "frames"))
    body = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table>"
    return _section("rungs", "Rungs", f'<div class="scroll">{body}</div>')


def _flow(s: Snapshot) -> str:
    def number(value: int | None) -> str:
        return _UNKNOWN if value is None else count(value)

    age = _UNKNOWN if s.packet_age_s is None else span(s.packet_age_s)
    entries = [
        ("pictures in", count(s.frames_in)),
        ("pictures out", count(s.frames_out)),
        *((f"of these {escaped(event)}", count(n)) for event, n in s.events.items()),
        ("newest packet", f"{age} ago" if age != _UNKNOWN else age),
        ("wait for an engine", number(s.waiting)),
        ("wait for the encoder", number(s.encoding)),
        ("leaps of the source's clock", count(s.jumps)),
        ("times put right", count(s.nudged)),
    ]
    return _section("flow", "Flow", _list(entries))


def _list(entries: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in entries)
    return f"<dl>{items}</dl>"


def _outputs(outputs: Sequence[OutputStatus]) -> str:
    if not outputs:
        return _section("outputs", "Outputs", '<p class="dim">None before the source is there.</p>')
    cards = []
    for o in outputs:
        state = "good" if o.state == "open" else "bad"
        words = [
            f"{count(o.packets)} packets", size(o.bytes), f"{count(o.reconnects)} reconnects",
            f"{count(o.dropped)} dropped",
            f"{count(o.queued)} on the way ({o.queued_s:.2f} s wait)",
        ]  # fmt: skip
        kind = "dim" if o.state == "open" else "error"
        error = f'<p class="{kind}">last fault: <bdi>{escaped(o.last_error)}</bdi></p>'
        cards.append(
            f'<li><p class="state {state}"><i></i>{escaped(o.state)} for {span(o.since_s)}</p>'
            f'<p class="name"><bdi>{escaped(o.name)}</bdi></p>'
            f'<p class="dim">{" · ".join(words)}</p>{error if o.last_error else ""}</li>'
        )
    return _section("outputs", "Outputs", f'<ul class="cards">{"".join(cards)}</ul>')


def _facts(s: Snapshot, versions: Mapping[str, str]) -> str:
    used = " · ".join(f"{escaped(name)} {escaped(text)}" for name, text in versions.items())
    return (
        f'<footer><p>{used}</p>\n<p><a href="status.json">status.json</a> <a href="metrics">metrics'
        f'</a> <a href="healthz">healthz</a></p>\n<p id="gone" hidden>The relay does not answer: '
        f"what stands here is old.</p></footer>"
    )
