"""Writes the sentences of a relay's report about its outputs, audio and slate."""

from collections.abc import Iterator, Mapping
from typing import Any

from vsr.media.bitrate import format_bitrate
from vsr.report.html.text import count, printable, span


def relay_summary(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each fault that a viewer could notice; none for a file's report."""
    live = facts.get("live") or {}
    for output in live.get("outputs", ()):
        yield from _about_output(output)
    silence, dropped = live.get("silence_s", 0.0), live.get("sound_dropped", 0)
    if silence >= 1.0:
        yield f"Audio was replaced by silence for {span(silence)}."
    if dropped:
        yield f"{count(dropped)} audio packets were not sent."
    if live.get("slate_s", 0.0) >= 1.0:
        yield f"The slate was shown in place of the source for {span(live['slate_s'])}."


def _about_output(output: Mapping[str, Any]) -> Iterator[str]:
    title = printable(f"Output {output.get('number', 1)} ({output['name']})")
    if not output.get("packets"):
        why = printable(output.get("last_error") or "unknown reason")
        yield f"{title} was never opened: {why}."
    elif output.get("reconnects"):
        yield f"{title} was disconnected and reconnected {count(output['reconnects'])} times."
    if output.get("bitrate_changes"):
        lowest, full = (
            format_bitrate(output["bitrate_lowest"]),
            format_bitrate(output["bitrate_full"]),
        )
        yield f"{title} had a slow connection: its video bitrate fell to {lowest} of {full}."
    if output.get("skips"):
        yield f"{title} dropped frames up to the next key frame {count(output['skips'])} times."
