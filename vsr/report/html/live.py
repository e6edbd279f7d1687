"""Writes the plain sentences about a relay's outputs, sound and slate in its report."""

from collections.abc import Iterator, Mapping
from typing import Any

from vsr.media.bitrate import format_bitrate
from vsr.report.html.text import count, printable, span


def about_live(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each fault that a viewer could notice; none for a file's report."""
    live = facts.get("live") or {}
    for output in live.get("outputs", ()):
        yield from _about_output(output)
    silence, dropped = live.get("silence_s", 0.0), live.get("sound_dropped", 0)
    if silence >= 1.0:
        yield f"Sound was replaced by silence for {span(silence)}."
    if dropped:
        yield f"{count(dropped)} packets of sound did not go out."
    if live.get("slate_s", 0.0) >= 1.0:
        yield f"The slate was shown in place of the source for {span(live['slate_s'])}."


def _about_output(output: Mapping[str, Any]) -> Iterator[str]:
    title = printable(f"Output {output.get('number', 1)} ({output['name']})")
    if not output.get("packets"):
        why = printable(output.get("last_error") or "no reason is known")
        yield f"{title} never opened: {why}."
    elif output.get("reconnects"):
        yield f"{title} was away and came back {count(output['reconnects'])} times."
    if output.get("bitrate_changes"):
        lowest, full = (
            format_bitrate(output["bitrate_lowest"]),
            format_bitrate(output["bitrate_full"]),
        )
        yield f"{title} had a slow line: its pictures went down to {lowest} of {full}."
    if output.get("skips"):
        yield f"{title} left out pictures up to a key frame {count(output['skips'])} times."
