"""Writes files atomically: to a temporary file, renamed at the end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Final

PART: Final = ".part"
"""Ending of a file that is not whole yet."""


def real_path(path: Path) -> Path:
    """Return the file that a symbolic link points to, there or not; any other path as it is."""
    try:
        return path.resolve() if path.is_symlink() else path
    except OSError:  # such as for a name that is too long: opening it says so
        return path


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
