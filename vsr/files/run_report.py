"""Creates the report of a run, with the facts known before the first frame."""

import logging
from fractions import Fraction
from pathlib import Path

from vsr.errors import InputError, InterruptedRunError, VsrError
from vsr.files.input_output import AnySink, AnySource
from vsr.files.pipeline import Slice
from vsr.files.segments import SegmentedSink
from vsr.files.settings import RunSettings
from vsr.inference.flicker import can_filter
from vsr.inference.upscaler import Outline
from vsr.media.target import pipe_of
from vsr.report.report import Report

log = logging.getLogger(__name__)


def new_report(
    settings: RunSettings,
    output: Path,
    source: AnySource,
    upscaler: Outline,
    device: tuple[str, str],
) -> Report:
    """Create the report of a run that has not started: input, output and settings.

    `device`: names of the backend and of its device.
    """
    info = source.info
    return Report(
        start_frame=settings.start_frame,
        input={
            "name": source.name,
            "codec": info.codec,
            "pixel_format": info.pixel_format,
            "size": [info.width, info.height],
            "rate": str(info.rate),
            "frames_announced": info.frames,
        },
        output={
            "name": str(output) if pipe_of(output) is None else "stdout",
            "model": upscaler.name,
            "scale": upscaler.scale,
            "precision": upscaler.precision,
            "model_sha256": upscaler.sha256,
            "backend": device[0],
            "device": device[1],
            "size": list(upscaler.out_size),
            "tiles": upscaler.tiles,
            "flicker_filter": bool(settings.flicker_filter) and can_filter(info.colour),
            "matrix": info.colour.matrix,
            "range": "full" if info.colour.full_range else "limited",
        },
    )


def add_note(report: Report, note: str | None) -> None:
    """Log a warning and add it to the report's notes; do nothing if `note` is None."""
    if note:
        report.notes.append(note)
        log.warning(note)


def conversion_note(sink: AnySink | SegmentedSink) -> str | None:
    """Return a message on what an output converts or leaves out; None if nothing."""
    notes = list(sink.converted)
    if sink.left_out:
        notes.append(f"{sink.path.name} cannot contain {', '.join(sink.left_out)}: left out")
    return "; ".join(notes) or None


def time_window(
    settings: RunSettings, source: AnySource
) -> tuple[Fraction | None, Fraction | None]:
    """Return (`offset`, `end`) of the sink in seconds; with a start frame, (None, duration)."""
    length = None
    if settings.max_frames is not None:
        length = settings.max_frames / source.info.rate
    if settings.start_frame:  # its time is known once it has been read
        return None, length
    return source.offset(), None if length is None else source.first_time + length


def no_frames_error(source: AnySource, selected: Slice) -> VsrError:
    """Return the error of a run that ended without a frame."""
    if selected.interrupted:
        return InterruptedRunError("stopped before the first frame; nothing was written")
    return InputError(f"{source.name} has only {source.frames_read} frames; nothing was written")
