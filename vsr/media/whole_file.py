"""Writes files atomically: to a temporary file, which is renamed at the end."""

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
"""Ending of a file that is not complete yet."""


def real_path(path: Path) -> Path:
    """Return the target of a symbolic link, existing or not; any other path unchanged."""
    try:
        return path.resolve() if path.is_symlink() else path
    except OSError:  # such as a name too long: opening it raises the error
        return path


def is_same_file(one: Path, other: Path) -> bool:
    """Return whether two paths name the same file, existing or not."""
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return one.resolve() == other.resolve()


def temporary_path(path: Path) -> Path:
    """Return a hidden path in the same folder; no other thread or process uses it."""
    return path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}{PART}")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to `path` at the end.

    The old file is kept until then; for a symbolic link, its target is replaced. After any error
    the new file is deleted. Raises OSError if it cannot be renamed. Thread-safe, also across
    processes.
    """
    path = real_path(path)
    part = temporary_path(path)
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def is_full_disk(exc: Exception) -> bool:
    """Return whether writing failed because the disk or the quota is full."""
    return getattr(exc, "errno", None) in _FULL_DISK


def writing_failed(action: str, path: Path, exc: Exception) -> OutputError:
    """Make the error for an output that cannot be written."""
    if is_full_disk(exc):
        return OutputError(
            f"the disk is full: {path} cannot be written; free some space and run again"
        )
    return OutputError(f"cannot {action} {path}: {reason(exc)}")
