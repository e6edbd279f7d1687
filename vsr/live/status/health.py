"""Rates the health of a relay for its status page: a level and a description."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from vsr.live.status.snapshot import Snapshot
from vsr.media.bitrate import format_bitrate

_WARNING_S: Final = 1.5
"""Time without source video or audio after which a warning is shown, in seconds."""

RUNNING: Final = "output running"
"""Description of a relay that sends the source's video and audio."""

Level = Literal["good", "warn", "bad"]


@dataclass(frozen=True)
class Health:
    """Health level of a relay, and its description."""

    level: Level
    text: str


def health(s: Snapshot) -> Health:
    """Rate a snapshot: bad if the health check fails, warn if viewers may notice a problem.

    Before the relay is live, up to `health_after`, a failing check is only a warning.
    """
    if s.trouble:
        waits = s.stage is None and s.uptime_s < s.health_after
        return Health("warn" if waits else "bad", s.trouble)
    warnings = warnings_of(s)
    return Health("warn", "; ".join(warnings)) if warnings else Health("good", RUNNING)


def warnings_of(s: Snapshot) -> list[str]:
    """Return what viewers may notice; empty if nothing, and while the health check fails."""
    return [] if s.trouble else list(_warnings(s))


def _warnings(s: Snapshot) -> Iterator[str]:
    if s.real_age_s is not None and s.real_age_s > max(_WARNING_S, 3 * _frame_interval_s(s)):
        yield s.source_away
    elif s.has_sound and (s.sound_age_s or 0.0) > _WARNING_S:
        yield s.sound_missing
    opened = sum(output.state == "open" for output in s.outputs)
    if opened < len(s.outputs):
        not_open = ", ".join(str(o.number) for o in s.outputs if o.state != "open")
        yield f"{opened} of {len(s.outputs)} outputs are open, not open: {not_open}"
    for output in s.outputs:
        if output.trouble:
            yield f"output {output.number}: {output.trouble}"
        elif 0 < output.bitrate < output.bitrate_full:
            yield (
                f"output {output.number} has a slow connection: "
                f"{format_bitrate(output.bitrate)} of {format_bitrate(output.bitrate_full)}"
            )
    better = _best_rungs(s)
    if s.rung is not None and better and s.rung not in better:
        yield f"using {s.rung} instead of {better[-1]}"
    if s.dropped_minute or s.late_minute:
        number = s.dropped_minute + s.late_minute
        total = sum(s.shown_minute.values()) + s.dropped_minute
        yield f"{number} of {total} frames late or dropped in the last minute"


def _best_rungs(s: Snapshot) -> list[str]:
    """Return the best rung to expect, last, and those above it; empty if it is not known.

    An optional one is expected only if it was used before.
    """
    names = list(s.stage.rungs) if s.stage else []
    optional = s.stage.optional_rungs if s.stage else 0
    best = next((k for k, name in enumerate(names[:optional]) if name in s.shown), optional)
    return names[: best + 1]


def _frame_interval_s(s: Snapshot) -> float:
    """Return the frame interval of the source (s); 0 if it is unknown."""
    try:
        return float(1 / Fraction(str(s.stage.source["rate"]))) if s.stage else 0.0
    except (KeyError, ValueError, ZeroDivisionError):
        return 0.0
