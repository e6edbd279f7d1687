"""Begins the report of a run, with what is known before the first frame."""

from pathlib import Path

from vsr.files.ends import AnySink, AnySource
from vsr.files.segments import SegmentedSink
from vsr.files.settings import RunSettings
from vsr.inference.backend import Backend
from vsr.inference.upscaler import Upscaler
from vsr.media.target import pipe_of
from vsr.report.report import Report


def new_report(
    settings: RunSettings, output: Path, source: AnySource, upscaler: Upscaler, backend: Backend
) -> Report:
    """Make the report of a run that has not begun: what goes in, what comes out, and how."""
    info, model = source.info, upscaler.model
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
            "model": model.name,
            "scale": model.scale,
            "precision": model.precision,
            "model_sha256": model.sha256,
            "backend": backend.name,
            "device": backend.device,
            "size": list(upscaler.out_size),
            "tiles": upscaler.tiles,
            "matrix": info.colour.matrix,
            "range": "full" if info.colour.full_range else "limited",
        },
    )


def changes_of(sink: AnySink | SegmentedSink) -> str | None:
    """Say what an output converts or leaves out; None if nothing."""
    notes = list(sink.converted)
    if sink.left_out:
        notes.append(f"{sink.path.name} cannot carry {', '.join(sink.left_out)}: left out")
    return "; ".join(notes) or None
