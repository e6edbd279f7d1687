"""Writes the summary at the top of a latency report."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from markupsafe import Markup

from vsr.report.html.columns import Codes, Columns, slowest_rows
from vsr.report.html.relay_summary import relay_summary
from vsr.report.html.text import clock, count, duration, printable, share, span


def deadline_ms(facts: Mapping[str, Any]) -> float | None:
    """Return the deadline in milliseconds; None if there is none."""
    ms = facts.get("deadline", {}).get("ms")
    return float(ms) if ms else None


def input_rate(facts: Mapping[str, Any]) -> float | None:
    """Return the input's frame rate; None if it is unknown."""
    try:
        return float(Fraction(str(facts.get("input", {}).get("rate")))) or None
    except (ValueError, ZeroDivisionError):
        return None


def frames_finished(facts: Mapping[str, Any], rows: int) -> int:
    """Return the number of frames that this run wrote. `rows`: number of rows of the ledger.

    `frames.out` of a resumed run also counts the frames of the earlier run, which have no rows.
    Relays, whose rows may be incomplete, are never resumed.
    """
    out = int(facts["frames"]["out"])
    return min(out, rows) if deadline_ms(facts) is None else out


def run_seconds(facts: Mapping[str, Any], rows: int) -> float:
    """Return the duration of the run, computed from its frames per second; 0 if they are 0."""
    return frames_finished(facts, rows) / facts["fps"] if facts.get("fps") else 0.0


def summary(facts: Mapping[str, Any], columns: Columns) -> list[str]:
    """Return sentences about the figures; Markup for those with names of rungs or files."""
    rows = len(columns.index)
    lines = [_about_speed(facts, rows)]
    if facts.get("stages", {}).get("total"):
        lines += [_about_latency(facts, columns), _about_stages(facts)]
    else:
        lines.append("No frame was finished: no latency was measured.")
    lines += [_about_deadline(facts), _about_rungs(facts, columns), _about_events(facts, columns)]
    lines += relay_summary(facts)
    lines.append(_about_missing_rows(facts, rows))
    if facts.get("interrupted"):
        lines.append("The run was stopped before the end of the input.")
    lines += [f"Note: {note}" for note in facts.get("notes", ())]
    return [sentence for sentence in lines if sentence]


def _about_speed(facts: Mapping[str, Any], rows: int) -> str:
    frames, rate = facts.get("frames", {}), input_rate(facts)
    out, finished = frames.get("out", 0), frames_finished(facts, rows)
    text = f"{count(out)} of {count(frames.get('in', 0))} frames were written"
    seconds = run_seconds(facts, rows)
    if not seconds:
        return text + "."
    if finished < out:
        text += f", {count(finished)} of them by this run"
    text += f" in {span(seconds)}: {facts['fps']:,.1f} frames per second"
    return text + (
        f", {facts['fps'] / rate:.2f} times the input's rate of {rate:.5g}." if rate else "."
    )


def _about_latency(facts: Mapping[str, Any], columns: Columns) -> str:
    total = facts["stages"]["total"]
    text = (
        f"Total latency was at most {duration(total['p50'])} for half of the frames, "
        f"{duration(total['p95'])} for 95 % and {duration(total['p99'])} for 99 %"
    )
    if facts.get("ledger_from"):  # its row may no longer be held
        return f"{text}; the slowest frame took {duration(total['max'])}."
    rows = slowest_rows(columns, 1)
    if not len(rows):
        return text + "."
    where = f"frame {count(int(columns.index[rows[0]]))} at {clock(columns.pts[rows[0]])}"
    return f"{text}; the slowest, {where}, took {duration(float(columns.total[rows[0]]))}."


def stages_outside_total(facts: Mapping[str, Any]) -> frozenset[str]:
    """Return the stages outside of the total: `mux`, except in the report of a relay."""
    return frozenset({"mux"}) if deadline_ms(facts) is None else frozenset()


def _about_stages(facts: Mapping[str, Any]) -> str:
    """Return a sentence on the stage that takes most of the mean frame's time, `wait` aside."""
    stages, outside = facts["stages"], {"total", *stages_outside_total(facts)}
    whole = stages["total"]["mean"]
    parts = {name: s["mean"] for name, s in stages.items() if name not in outside}
    if whole <= 0 or not parts:
        return ""
    first, *others = sorted(parts, key=lambda name: -parts[name])
    cost = f"{duration(parts[first])} on average, {100 * parts[first] / whole:.0f} % of the total"
    if first != "wait" or not others:
        delay = ", including the encoder's look-ahead" if first == "encode" else ""
        return f"The slowest stage is {first}: {cost}{delay}."
    return (
        f"Frames spend the most time in queues, waiting for a busy stage or for the reordering of "
        f"B-frames: {cost}. The slowest processing stage is {others[0]} "
        f"({duration(parts[others[0]])})."
    )


def _about_deadline(facts: Mapping[str, Any]) -> str:
    deadline = deadline_ms(facts)
    if deadline is None:
        return ""
    missed, frames = facts["deadline"]["misses"], facts["frames"]["in"]
    if not missed:
        return f"No frame missed the deadline of {duration(deadline)}."
    part = f"{share(missed, frames)} of the frames ({count(missed)} of {count(frames)})"
    return f"{part[0].upper()}{part[1:]} missed the deadline of {duration(deadline)}."


def _about_rungs(facts: Mapping[str, Any], columns: Columns) -> str:
    """Return a sentence on the rungs, from the facts' counts if rows are missing, else the rows."""
    made = facts.get("rungs") or _count_names(columns.rungs, columns.rung)
    if len(made) < 2:
        return ""
    whole = sum(made.values())
    parts = [
        Markup("{} {}").format(_name(name or "no rung"), share(made[name], whole))
        for name in sorted(made, key=lambda name: -made[name])
    ]
    text = Markup("Frames by rung: {}").format(Markup(", ").join(parts))
    if facts.get("ledger_from"):
        return text + "."
    rows = int(np.count_nonzero(np.diff(columns.rung)))
    changes = facts.get("live", {}).get("rung_changes", rows)  # rows include single trials too
    often = "once" if changes == 1 else f"{count(changes)} times"
    return text + f"; the rung changed {often}."


def _about_events(facts: Mapping[str, Any], columns: Columns) -> str:
    """Return a sentence on events, from the facts' counts if rows are missing, else the rows."""
    counts = facts["events"] if "events" in facts else _count_names(columns.events, columns.event)
    parts = [f"{count(number)} {name}" for name, number in counts.items() if name]
    return f"Events: {', '.join(parts)}." if parts else ""


def _count_names(names: Sequence[str], codes: Codes) -> dict[str, int]:
    numbers = np.bincount(codes, minlength=len(names))
    return {name: int(number) for name, number in zip(names, numbers, strict=True)}


def _about_missing_rows(facts: Mapping[str, Any], rows: int) -> str:
    """Return a sentence on the part of the run that the charts show, and the files of the rest."""
    if facts.get("period"):
        begin, end = (facts["period"][key] for key in ("from", "to"))
        return f"This report covers a part of a longer run, from {begin} to {end}."
    frames = facts.get("frames", {}).get("in", rows)
    shown = f"{count(rows)} of {count(frames)} frames"
    if not facts.get("ledger_from"):
        return f"The charts below show {shown}." if rows and frames > rows else ""
    parts = [_name(name) for name in facts.get("parts", ())]
    text = Markup(
        "The figures cover the whole run; the timeline, the histogram and the slowest frames "
        "cover its last period only, from {} on: {}."
    ).format(clock(facts["ledger_from"]["pts_s"]), shown)
    if not parts:
        return text
    files = "a file" if len(parts) == 1 else f"{count(len(parts))} files"
    ends = Markup(" to ").join(parts if len(parts) < 2 else (parts[0], parts[-1]))
    return text + Markup(" Earlier frames are in {} in the same folder: {}.").format(files, ends)


def _name(text: object) -> Markup:
    """Return an untrusted name, isolated so that its writing direction affects no other text."""
    return Markup("<bdi>{}</bdi>").format(printable(text))
