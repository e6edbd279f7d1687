"""A file that a live stream is recorded into: it takes no other's name, and outlives a full disk.

Imports nothing that takes time, for `vsr.live.output.process`.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from vsr.media.whole_file import is_full_disk

_ROOM_S: Final = 0.5
"""Seconds between two looks for room on a full disk."""


class Recording:
    """A file that waits for room where the disk is full, so that it stays whole.

    For one thread; it has what PyAV asks of a file.
    """

    def __init__(self, path: str, on_full: Callable[[], None]) -> None:
        """`on_full` is called again and again while there is no room. Raises OSError for a path
        that cannot be written to, or that is taken."""
        self.name = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self._on_full, self._parent = on_full, os.getppid()

    def write(self, data: bytes) -> int:
        """Write all of it, however long that takes; returns its size. Raises OSError."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except OSError as exc:
                if not is_full_disk(exc) or os.getppid() != self._parent:
                    raise
                self._on_full()
                time.sleep(_ROOM_S)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place in the file, as `io.IOBase.seek`."""
        return os.lseek(self._fd, offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def discard(self) -> None:
        """Delete the file, in which nothing was recorded."""
        with suppress(OSError):
            os.unlink(self.name)  # noqa: PTH108 - no more is imported than it takes


def unused(path: str) -> str:
    """Return the path, numbered if a file exists: a recording overwrites no other.

    Of a symbolic link, it is what the link points to, there or not.
    """
    if os.path.islink(path) and (os.path.isfile(path) or not os.path.exists(path)):  # noqa: PTH110, PTH113, PTH114 - as below
        path = os.path.realpath(path)
    stem, suffix = os.path.splitext(path)  # noqa: PTH122 - no more is imported than it takes
    number = 1
    while os.path.isfile(path):  # noqa: PTH113 - a pipe or a device is written to as it is
        number += 1
        path = f"{stem}-{number}{suffix}"
    return path
