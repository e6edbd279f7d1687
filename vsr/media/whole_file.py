"""Writes files atomically: to a temporary file, renamed at the end."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Final

from vsr.errors import OutputError, reason

_FULL_DISK: Final = (errno.ENOSPC, errno.EDQUOT)
PART: Final = ".part"
"""Ending of a file that is not whole yet."""


def real_path(path: Path) -> Path:
    """Return the file that a symbolic link points to, there or not; any other path as it is."""
    try:
        return path.resolve() if path.is_symlink() else path
    except OSError:  # such as for a name that is too long: opening it says so
        return path


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths name one file, whether it is there or not."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return one.resolve() == other.resolve()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to `path` at the end.

    The old file stays until then; of a symbolic link, what it points to is replaced. After any
    error nothing is left of the new one. Raises OSError where it cannot be renamed. Threads and
    processes may write at the same time.
    """
    path = real_path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}{PART}")
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def is_full_disk(exc: Exception) -> bool:
    """Whether writing failed because there is no room."""
    return getattr(exc, "errno", None) in _FULL_DISK


def writing_failed(action: str, path: Path, exc: Exception) -> OutputError:
    """Make the error for an output that cannot be written."""
    if is_full_disk(exc):
        return OutputError(
            f"the disk is full: {path} cannot be written; free some space and run again"
        )
    return OutputError(f"cannot {action} {path}: {reason(exc)}")
