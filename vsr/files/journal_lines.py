"""Reads and marks the journal (`journal.py`) of an earlier run next to an output."""

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vsr.errors import UsageError
from vsr.media.whole_file import real_path

SCHEMA: Final = "vsr-journal/2"
JOURNAL: Final = "journal.jsonl"
LOCK: Final = ".lock"
THREADS: Final = "encoder_threads"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Consecutive encoded frames, in a separate file."""

    number: int
    """Index by time: see `vsr.media.clips.Cuts`. Numbers without a frame are skipped."""
    follows: int | None
    """Number of the previous segment; None for the first."""
    file: str
    frames: int
    first_pts: int
    last_pts: int
    """Presentation times of the first and the last frame, in the input's time base."""
    last_duration: int
    reorder: int
    """Delay by which decoding must precede presentation, in the input's time base."""
    bytes: int
    sha256: str
    concealed: int
    """Number of damaged frames that the decoder partly reconstructed."""
    lost: int
    """Number of the input's frames in this segment's time that could not be decoded."""
    ms: float
    """Time from the first frame's arrival to the file on the disk, in milliseconds."""


def folder_of(output: Path) -> Path:
    """Return the folder of an output's segments."""
    path = real_path(output)
    return path.with_name(f".{path.name}.vsr")


def _recorded_segments(output: Path) -> list[Segment]:
    """Return the segments recorded by an earlier run; an empty list if there is no journal."""
    try:
        lines = lines_of(folder_of(output) / JOURNAL)
        return [Segment(**line) for line in lines[1:] if "file" in line]
    except (OSError, TypeError):
        return []


def has_gaps(output: Path) -> bool:
    """Return whether an earlier run with several workers left segments after a missing one."""
    done = _recorded_segments(output)
    return len(until_first_gap(done)) < len(done)


def check_no_kept_segments(output: Path) -> None:
    """Raise UsageError if an earlier run left segments, which this run would delete."""
    if frames := sum(segment.frames for segment in _recorded_segments(output)):
        raise UsageError(
            f"{folder_of(output)} contains {frames} finished frames of another run: name another "
            "output, or use --restart to discard them"
        )


def model_of_unfinished_run(output: Path) -> str | None:
    """Return the model of an earlier, unfinished run; None if there is none."""
    try:
        head = lines_of(folder_of(output) / JOURNAL)[:1]
    except OSError:
        return None
    return next((line["model"] for line in head if isinstance(line.get("model"), str)), None)


def left_by_an_interrupted_run(output: Path) -> bool:
    """Return whether an interrupted run wrote the output, and it is unchanged since."""
    try:
        lines = lines_of(folder_of(output) / JOURNAL)
        status = output.stat()
    except OSError:
        return False
    made = [line["interrupted"] for line in lines if "interrupted" in line][-1:]
    return made == [size_and_time(status)]


def mark_interrupted(output: Path) -> None:
    """Record that a run without segments was interrupted, and its output may be replaced.

    Raises OSError.
    """
    folder, line = folder_of(output), {"interrupted": size_and_time(output.stat())}
    folder.mkdir(exist_ok=True)
    with (folder / JOURNAL).open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(line)}\n")


def delete_kept_segments(output: Path) -> None:
    """Delete an earlier run's segments of a now complete output, unless a process uses them."""
    folder = folder_of(output)
    if (folder / JOURNAL).exists():
        from filelock import FileLock, Timeout

        with suppress(Timeout, OSError), FileLock(folder / LOCK, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def until_first_gap(segments: Iterable[Segment]) -> list[Segment]:
    """Return the segments before the first gap, in order; `segments` may have any order."""
    by_place = {segment.follows: segment for segment in segments}
    found, last = [], None
    while (segment := by_place.get(last)) is not None:
        found.append(segment)
        last = segment.number
    return found


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the journal's lines, up to the first one that is truncated."""
    found = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return [line for line in found if isinstance(line, dict)]


def size_and_time(status: os.stat_result) -> dict[str, int]:
    return {"bytes": status.st_size, "modified": status.st_mtime_ns}
