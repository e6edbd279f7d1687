"""Checks the name and place of an output file before anything is opened."""

import os
import re
from pathlib import Path
from typing import Final

from vsr.errors import OutputError, UsageError, reason
from vsr.media.references import is_part_of

CONTAINERS: Final = {
    "mp4": "mp4",
    "mkv": "matroska",
    "mov": "mov",
    "webm": "webm",
    "m4v": "mp4",
    "ts": "mpegts",
    "m2ts": "mpegts",
    "mts": "mpegts",
    "flv": "flv",
    "3gp": "3gp",
}
"""Endings of output files -> FFmpeg's containers; all hold the time of every frame, unlike AVI."""
_URL: Final = re.compile(r"\w[\w+.-]+:/")
"""A URL whose two slashes `Path` has made one."""
_LONGEST_STEM: Final = 200
"""Bytes of a name kept in the unfinished file's, which must fit the system's 255."""


def container_format(path: Path) -> str:
    """FFmpeg's name of the container for a file name. Raises UsageError."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in CONTAINERS:
        known = ", ".join(f".{name}" for name in CONTAINERS)
        raise UsageError(f"'{path.name}' names no container vsr can write; use one of {known}")
    return CONTAINERS[suffix]


def check_target(path: Path, source: str, overwrite: bool) -> None:
    """Raise an error for an output that cannot or must not be written."""
    if _URL.match(path.as_posix()):  # not repeated: it may hold a stream key
        raise UsageError("vsr run writes files, and the output is a URL: vsr relay publishes to it")
    container_format(path)
    try:
        _check_place(path, source, overwrite)
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {reason(exc)}") from exc


def _check_place(path: Path, source: str, overwrite: bool) -> None:
    if path.is_dir():
        raise OutputError(f"the output {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"the output folder does not exist: {path.parent} (create it first)")
    if is_part_of(path, source):
        raise UsageError(f"input and output are the same file: {path}")
    if path.exists() and not overwrite:
        raise OutputError(f"the output exists: {path} (-y replaces it)")


def part_path(path: Path) -> Path:
    """Return the temporary path of an output, in the same folder, until it is whole."""
    stem = path.stem.encode()[:_LONGEST_STEM].decode(errors="ignore")
    return path.with_name(f".{stem}.{os.getpid()}.part{path.suffix}")
