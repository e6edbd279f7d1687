"""Shows the progress of a run: one line on a terminal, or one JSON object per line."""

import json
import sys
from collections.abc import Callable
from typing import Final, TextIO

from vsr.cli.streams import write_if_possible
from vsr.files.progress import Progress
from vsr.media.frame import now

Show = Callable[[Progress], None]
_MIN_INTERVALS_S: Final = {"line": 0.2, "json": 0.5, "none": float("inf")}
"""Minimum interval between displays, in seconds."""


def progress_line(p: Progress) -> str:
    """Return a line such as `  42% 128/300 frames  23.1 fps  0.77x  left 0:07`."""
    left = "" if p.remaining is None else f"  left {_clock(p.remaining)}"
    if p.finished:
        return f"done {p.frames} frames in {_clock(p.elapsed)}  {p.fps:.1f} fps  {p.speed:.2f}x"
    share = (
        f"{min(100, 100 * p.frames // p.total):3d}% {p.frames}/{p.total}"
        if p.total
        else f"{p.frames}"
    )
    return f"{share} frames  {p.fps:.1f} fps  {p.speed:.2f}x{left}"


def progress_json(p: Progress) -> str:
    """Return one object with the keys of ffmpeg's `-progress`, so that its parsers can read it."""
    return json.dumps(
        {
            "frame": p.frames,
            "fps": round(p.fps, 2),
            "out_time_us": round(p.position * 1_000_000),
            "drop_frames": p.lost,
            "dup_frames": 0,
            "speed": f"{p.speed:.3f}x",
            "progress": "end" if p.finished else "continue",
        }
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def progress_printer(
    kind: str, line_to: TextIO | None = None, json_to: TextIO | None = None
) -> Show:
    """Return a callback that shows progress: `auto`, `json` (on stdout) or `none`.

    `auto`: one line on stderr, which is rewritten, if stderr is a terminal; else nothing.
    """
    terminal = line_to or sys.stderr
    if kind == "auto":
        kind = "line" if terminal.isatty() else "none"
    last = float("-inf")

    def show(p: Progress) -> None:
        nonlocal last, kind
        if kind == "none" or not (p.finished or now() - last >= _MIN_INTERVALS_S[kind]):
            return
        last = now()
        if kind == "json":
            is_written = write_if_possible(json_to or sys.stdout, progress_json(p) + "\n")
        else:
            end = "\n" if p.finished else ""
            is_written = write_if_possible(terminal, f"\r\x1b[K{progress_line(p)}{end}")
        if not is_written:  # the reader has closed the stream; the run continues
            kind = "none"

    return show
