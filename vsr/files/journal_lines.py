"""Reads what earlier runs have left beside an output: the lines of a journal (`journal.py`)."""

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
    """Encoded frames that follow one another, in a file of their own."""

    number: int
    """Its place by its time: see `vsr.media.clips.Cuts`. Numbers without a frame are left out."""
    follows: int | None
    """Number of the segment before it; None for the first."""
    file: str
    frames: int
    first_pts: int
    last_pts: int
    """Presentation times of the first and the last frame, in the input's time base."""
    last_duration: int
    reorder: int
    """Time by which decoding must run ahead of presentation, in the input's time base."""
    bytes: int
    sha256: str
    concealed: int
    """Frames that the decoder had to make up in part."""
    lost: int
    """Frames of the input, in its time, that could not be decoded."""
    ms: float
    """Milliseconds from the first frame's arrival to the file on the disk."""


def folder_of(output: Path) -> Path:
    """Return the folder in which an output's segments are kept."""
    path = real_path(output)
    return path.with_name(f".{path.name}.vsr")


def _done(output: Path) -> list[Segment]:
    """The segments that an earlier run has recorded; none where there is no journal."""
    try:
        lines = lines_of(folder_of(output) / JOURNAL)
        return [Segment(**line) for line in lines[1:] if "file" in line]
    except (OSError, TypeError):
        return []


def has_gaps(output: Path) -> bool:
    """Whether an earlier run of several jobs has left segments behind one that is not done."""
    done = _done(output)
    return len(chain(done)) < len(done)


def check_nothing_kept(output: Path) -> None:
    """Raise UsageError where an earlier run has left segments, which `forget` would delete."""
    if frames := sum(segment.frames for segment in _done(output)):
        raise UsageError(
            f"{folder_of(output)} holds {frames} frames that another run has done: name another "
            "output, or take --restart to discard them"
        )


def model_begun_with(output: Path) -> str | None:
    """The model of a run that an earlier one has begun; None where there is none."""
    try:
        head = lines_of(folder_of(output) / JOURNAL)[:1]
    except OSError:
        return None
    return next((line["model"] for line in head if isinstance(line.get("model"), str)), None)


def left_by_an_interrupted_run(output: Path) -> bool:
    """Whether an output is what an interrupted run made of its segments, untouched since."""
    try:
        lines = lines_of(folder_of(output) / JOURNAL)
        status = output.stat()
    except OSError:
        return False
    made = [line["interrupted"] for line in lines if "interrupted" in line][-1:]
    return made == [state_of(status)]


def forget(output: Path) -> None:
    """Delete what an earlier run has left of an output that is whole now, unless one is at it."""
    folder = folder_of(output)
    if (folder / JOURNAL).exists():
        from filelock import FileLock, Timeout

        with suppress(Timeout, OSError), FileLock(folder / LOCK, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def chain(segments: Iterable[Segment]) -> list[Segment]:
    """The segments, given in any order, that follow one another from the first on."""
    by_place = {segment.follows: segment for segment in segments}
    found, last = [], None
    while (segment := by_place.get(last)) is not None:
        found.append(segment)
        last = segment.number
    return found


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines up to one that is cut off."""
    found = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return [line for line in found if isinstance(line, dict)]


def state_of(status: os.stat_result) -> dict[str, int]:
    return {"bytes": status.st_size, "modified": status.st_mtime_ns}
