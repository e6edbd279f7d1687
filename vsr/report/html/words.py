"""Writes the plain sentences at the top of a latency report."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from markupsafe import Markup

from vsr.report.html.columns import Codes, Columns, worst
from vsr.report.html.live import about_live
from vsr.report.html.text import clock, count, duration, printable, share, span


def deadline_of(facts: Mapping[str, Any]) -> float | None:
    """Return the deadline in milliseconds; None if there is none."""
    ms = facts.get("deadline", {}).get("ms")
    return float(ms) if ms else None


def rate_of(facts: Mapping[str, Any]) -> float | None:
    """Return the input's frame rate; None if it is unknown."""
    try:
        return float(Fraction(str(facts.get("input", {}).get("rate")))) or None
    except (ValueError, ZeroDivisionError):
        return None


def seconds_of(facts: Mapping[str, Any]) -> float:
    """Return the duration of the run, computed from its frames per second; 0 if they are 0."""
    return facts["frames"]["out"] / facts["fps"] if facts.get("fps") else 0.0


def sentences(facts: Mapping[str, Any], columns: Columns) -> list[str]:
    """Return plain sentences about the numbers; Markup for those with names of rungs or files."""
    rows = len(columns.index)
    said = [_about_speed(facts)]
    if facts.get("stages", {}).get("total"):
        said += [_about_latency(facts, columns), _about_stages(facts)]
    else:
        said.append("No frame was finished, so there is no latency to show.")
    said += [_about_deadline(facts), _about_rungs(facts, columns), _about_events(facts, columns)]
    said += about_live(facts)
    said.append(_about_extent(facts, rows))
    if facts.get("interrupted"):
        said.append("The run was stopped before the end of the input.")
    said += [f"Note: {note}" for note in facts.get("notes", ())]
    return [sentence for sentence in said if sentence]


def _about_speed(facts: Mapping[str, Any]) -> str:
    frames, rate = facts.get("frames", {}), rate_of(facts)
    text = f"{count(frames.get('out', 0))} of {count(frames.get('in', 0))} frames went out"
    seconds = seconds_of(facts)
    if not seconds:
        return text + "."
    text += f" in {span(seconds)}: {facts['fps']:,.1f} frames a second"
    return text + (f", {facts['fps'] / rate:.2f} times the input's {rate:.5g}." if rate else ".")


def _about_latency(facts: Mapping[str, Any], columns: Columns) -> str:
    total = facts["stages"]["total"]
    text = (
        f"Half of the frames were through within {duration(total['p50'])}, 95 of 100 within "
        f"{duration(total['p95'])}, 99 of 100 within {duration(total['p99'])}"
    )
    if facts.get("ledger_from"):  # its row may no longer be held
        return f"{text}; the slowest took {duration(total['max'])}."
    rows = worst(columns, 1)
    if not len(rows):
        return text + "."
    where = f"frame {count(int(columns.index[rows[0]]))} at {clock(columns.pts[rows[0]])}"
    return f"{text}; the slowest, {where}, took {duration(float(columns.total[rows[0]]))}."


def outside_of(facts: Mapping[str, Any]) -> frozenset[str]:
    """Return the stages outside of the total: `mux`, except in the report of a relay."""
    return frozenset({"mux"}) if deadline_of(facts) is None else frozenset()


def _about_stages(facts: Mapping[str, Any]) -> str:
    """Return a sentence on the stage that takes most of the mean frame's time, `wait` aside."""
    stages, outside = facts["stages"], {"total", *outside_of(facts)}
    whole = stages["total"]["mean"]
    parts = {name: s["mean"] for name, s in stages.items() if name not in outside}
    if whole <= 0 or not parts:
        return ""
    first, *others = sorted(parts, key=lambda name: -parts[name])
    cost = f"{duration(parts[first])} on average, {100 * parts[first] / whole:.0f} % of the total"
    if first != "wait" or not others:
        delay = ", the encoder's look-ahead included" if first == "encode" else ""
        return f"The slowest stage is {first}: {cost}{delay}."
    return (
        f"Frames spend the most time waiting, for a stage that is not free or for their turn among "
        f"B-frames: {cost}. Of the stages "
        f"that work, the slowest is {others[0]} ({duration(parts[others[0]])})."
    )


def _about_deadline(facts: Mapping[str, Any]) -> str:
    deadline = deadline_of(facts)
    if deadline is None:
        return ""
    missed, frames = facts["deadline"]["misses"], facts["frames"]["in"]
    if not missed:
        return f"No frame missed the deadline of {duration(deadline)}."
    part = f"{share(missed, frames)} of the frames ({count(missed)} of {count(frames)})"
    return f"{part[0].upper()}{part[1:]} missed the deadline of {duration(deadline)}."


def _about_rungs(facts: Mapping[str, Any], columns: Columns) -> str:
    """Return a sentence on the rungs, from the facts' counts if rows are missing, else the rows."""
    made = facts.get("rungs") or _counted(columns.rungs, columns.rung)
    if len(made) < 2:
        return ""
    whole = sum(made.values())
    parts = [
        Markup("{} {}").format(_name(name or "no rung"), share(made[name], whole))
        for name in sorted(made, key=lambda name: -made[name])
    ]
    text = Markup("Made by {} of the frames").format(Markup(", ").join(parts))
    if facts.get("ledger_from"):
        return text + "."
    rows = int(np.count_nonzero(np.diff(columns.rung)))
    changes = facts.get("live", {}).get("rung_changes", rows)  # rows include single trials too
    often = "once" if changes == 1 else f"{count(changes)} times"
    return text + f"; the rung changed {often}."


def _about_events(facts: Mapping[str, Any], columns: Columns) -> str:
    """Return a sentence on events, from the facts' counts if rows are missing, else the rows."""
    befell = facts["events"] if "events" in facts else _counted(columns.events, columns.event)
    parts = [f"{count(number)} {name}" for name, number in befell.items() if name]
    return f"Events: {', '.join(parts)}." if parts else ""


def _counted(names: Sequence[str], codes: Codes) -> dict[str, int]:
    numbers = np.bincount(codes, minlength=len(names))
    return {name: int(number) for name, number in zip(names, numbers, strict=True)}


def _about_extent(facts: Mapping[str, Any], rows: int) -> str:
    """Return a sentence on the part of the run that the charts show, and the files of the rest."""
    if facts.get("period"):
        begin, end = (facts["period"][key] for key in ("from", "to"))
        return f"This is a part of a longer run, from {begin} to {end}."
    frames = facts.get("frames", {}).get("in", rows)
    shown = f"{count(rows)} of {count(frames)} frames"
    if not facts.get("ledger_from"):
        return f"The pictures below show {shown}." if rows and frames > rows else ""
    parts = [_name(name) for name in facts.get("parts", ())]
    text = Markup(
        "The numbers are those of the whole run; the timeline, the histogram and the slowest "
        "frames show its last period only, from {} on: {}."
    ).format(clock(facts["ledger_from"]["pts_s"]), shown)
    if not parts:
        return text
    files = "a file" if len(parts) == 1 else f"{count(len(parts))} files"
    ends = Markup(" to ").join(parts if len(parts) < 2 else (parts[0], parts[-1]))
    return text + Markup(" Earlier ones are in {} beside this one: {}.").format(files, ends)


def _name(text: object) -> Markup:
    """Return an untrusted name, isolated so that its writing direction affects no other text."""
    return Markup("<bdi>{}</bdi>").format(printable(text))
