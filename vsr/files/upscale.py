"""`vsr.upscale`: `vsr run` for Python."""

import os
import threading
from collections.abc import Callable
from typing import Unpack

from vsr.files.job import Job
from vsr.files.progress import Progress
from vsr.files.settings import RunOptions, RunSettings, with_options
from vsr.report.report import Report


def upscale(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    settings: RunSettings | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    **options: Unpack[RunOptions],
) -> Report:
    """Upscale a video file: `vsr.upscale("in.mp4", "out.mp4", model="carn-m")`.

    Options come from `settings`, from keywords named as in `vsr run`, or both: keywords take
    precedence. `on_progress` is called on the calling thread after every frame. Setting `stop` ends
    the run early with a playable file. Returns the report. Raises VsrError with a one-line message;
    then no file is left under the output's name. Exception: if a report or receipt cannot be
    written, the video is finished, and the message says so.
    """
    chosen = with_options(RunSettings() if settings is None else settings, **options)
    return Job(os.fspath(input), output, chosen, on_progress, stop).run()
