"""Writes recordings of live streams: never overwrites a file, and waits while the disk is full.

Imports only small modules, so that `vsr.live.output.process` starts quickly.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from vsr.media.whole_file import is_full_disk

_FULL_DISK_RETRY_S: Final = 0.5
"""Interval between checks for free space on a full disk, in seconds."""


class Recording:
    """A file whose writes wait while the disk is full, so that no data is lost.

    Not thread-safe; provides the methods that PyAV needs of a file object.
    """

    def __init__(self, path: str, on_full: Callable[[], None]) -> None:
        """`on_full` is called repeatedly while the disk is full. Raises OSError for a path that
        cannot be written to, or that exists."""
        self.name = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self._on_full, self._parent = on_full, os.getppid()

    def write(self, data: bytes) -> int:
        """Write all data, waiting while the disk is full; return its size.

        Raises OSError, for a full disk only if the parent has exited.
        """
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except OSError as exc:
                if not is_full_disk(exc) or os.getppid() != self._parent:
                    raise
                self._on_full()
                time.sleep(_FULL_DISK_RETRY_S)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the file position, as `io.IOBase.seek`."""
        return os.lseek(self._fd, offset, whence)

    def tell(self) -> int:
        """Return the file position."""
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def discard(self) -> None:
        """Delete the file, to which nothing was recorded."""
        with suppress(OSError):
            os.unlink(self.name)  # noqa: PTH108 - this file does not import pathlib


def unused_path(path: str) -> str:
    """Return the path, with a number appended if the file exists: nothing is overwritten.

    A symbolic link to a file, or to nothing, is resolved first.
    """
    if os.path.islink(path) and (os.path.isfile(path) or not os.path.exists(path)):  # noqa: PTH110, PTH113, PTH114 - as below
        path = os.path.realpath(path)
    stem, suffix = os.path.splitext(path)  # noqa: PTH122 - this file does not import pathlib
    number = 1
    while os.path.isfile(path):  # noqa: PTH113 - a pipe or a device is written to directly
        number += 1
        path = f"{stem}-{number}{suffix}"
    return path
