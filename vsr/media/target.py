"""Checks the name and location of an output file before anything is opened."""

import logging
import os
import platform
import re
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Final

from vsr.errors import OutputError, UsageError, reason
from vsr.media.pictures.names import is_picture
from vsr.media.references import is_part_of
from vsr.media.whole_file import real_path

log = logging.getLogger(__name__)

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
    "nut": "nut",
    "y4m": "yuv4mpegpipe",
}
"""File ending -> FFmpeg's container. Unlike AVI, all store the time of every frame, except Y4M,
which holds raw frames at a constant rate for other programs."""
MUXER_OPTIONS: Final = {"yuv4mpegpipe": {"strict": "-1"}}
"""Container -> FFmpeg options; more than 8 bits are an extension of Y4M."""
_PIPE_ENDINGS: Final = ("mkv", "nut", "y4m", "ts", "webm", "flv")
"""Endings of containers that can be written without seeking."""
STDOUT: Final = "-"
_PIPE: Final = re.compile(r"-|pipe:(\d+)")
_URL: Final = re.compile(r"\w[\w+.-]+:/")
"""Pattern of a URL whose two slashes `Path` has reduced to one."""
_MAX_STEM_BYTES: Final = 200
"""Maximum length of the name's part kept in the temporary name, in bytes; the system allows 255."""


def container_format(path: Path) -> str:
    """Return FFmpeg's name of the container for a file name. Raises UsageError."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in CONTAINERS:
        known = ", ".join(f".{name}" for name in CONTAINERS)
        raise UsageError(
            f"'{path.name}' has no ending of a container that vsr writes: use one of {known}"
        )
    return CONTAINERS[suffix]


def pipe_of(path: Path) -> int | None:
    """Return the open file descriptor that an output names (`-`: stdout, `pipe:5`), else None."""
    found = _PIPE.fullmatch(str(path))
    return int(found[1] or 1) if found else None


def pipe_format(name: str | None) -> str:
    """Return FFmpeg's name of a pipe's container, from its usual ending. Raises UsageError."""
    if name is None:
        return CONTAINERS[_PIPE_ENDINGS[0]]
    if name not in _PIPE_ENDINGS:
        raise UsageError(
            f"'{name}' cannot be written to a pipe; use one of {', '.join(_PIPE_ENDINGS)}"
        )
    return CONTAINERS[name]


def check_target(path: Path, source: str, overwrite: bool) -> None:
    """Raise an error for an output that cannot or must not be written."""
    if pipe_of(path) is not None:
        return
    if _URL.match(path.as_posix()):  # not repeated: it may hold a stream key
        raise UsageError("the output is a URL, and vsr run writes files: use vsr relay to publish")
    if not is_picture(path):
        container_format(path)
    try:
        _check_place(path, source, overwrite)
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {reason(exc)}") from exc


def _check_place(path: Path, source: str, overwrite: bool) -> None:
    if path.is_dir():
        raise OutputError(f"the output {path} is a folder: name a file in it")
    if not (folder := real_path(path).parent).is_dir():
        raise OutputError(f"the output folder does not exist: {folder} (create it first)")
    if is_part_of(path, source):
        raise UsageError(f"input and output are the same file: {path}")
    if path.exists() and not path.is_file():
        raise OutputError(
            f"the output {path} is a pipe or a device, which would be replaced by a file: "
            f"use - as OUTPUT and redirect it (vsr run INPUT - > {path})"
        )
    if path.exists() and not overwrite:
        raise output_exists_error(path)


def output_exists_error(path: Path) -> OutputError:
    """Make the error for an existing output that must not be replaced."""
    how = "give -y, or overwrite=True in Python, to replace it"
    return OutputError(f"the output exists: {path} ({how})")


def part_path(path: Path) -> Path:
    """Return the temporary path of an output, next to its `real_path`, until it is complete.

    It is valid UTF-8 even if the output's name is not.
    """
    path = real_path(path)
    return path.with_name(f"{_part_stem(path)}{os.getpid()}-{_computer()}.part{path.suffix}")


def delete_abandoned_parts(path: Path) -> None:
    """Delete the temporary files of the same output whose process on this computer was killed."""
    path = real_path(path)
    before, after = _part_stem(path), f"-{_computer()}.part{path.suffix}"
    form = re.compile(rf"{re.escape(before)}(\d{{1,9}}){re.escape(after)}")
    with suppress(OSError):  # opening the output raises the error
        for file in list(path.parent.iterdir()):
            if (found := form.fullmatch(file.name)) and not _is_running(int(found[1])):
                file.unlink()
                log.info("deleted %s, which a killed run left", file)


def _part_stem(path: Path) -> str:
    return f".{os.fsencode(path.stem)[:_MAX_STEM_BYTES].decode(errors='ignore')}."


def _computer() -> str:
    """Return an identifier of the computer or container whose process numbers are used here."""
    name = platform.node()
    with suppress(OSError):  # Linux
        name += str(Path("/proc/self/ns/pid").stat().st_ino)
    return f"{zlib.crc32(name.encode('utf-8', 'replace')):08x}"


def _is_running(process: int) -> bool:
    """Return whether a process exists; True if that is unknown."""
    if os.name != "posix":  # elsewhere, signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True
