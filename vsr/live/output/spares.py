"""Processes for outputs that are started before the stream is known.

Starting Python and FFmpeg takes longer than connecting: while the source is being opened it costs
no time.
"""

import subprocess
import threading
from contextlib import suppress

from vsr.live.output import process
from vsr.media.child import start_child


class Spares:
    """Started processes that wait for their plans. Thread-safe."""

    def __init__(self, count: int = 0) -> None:
        """Start so many; one that cannot be started is left out, and told of by its output."""
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        with suppress(OSError):
            for _ in range(count):
                self._processes.append(start_child(process.__file__, bufsize=0))

    def take(self) -> "subprocess.Popen[bytes] | None":
        """Hand one over; None if there is none left."""
        with self._lock:
            return self._processes.pop() if self._processes else None

    def close(self) -> None:
        """Kill those that nobody took."""
        while (left := self.take()) is not None:
            left.kill()
            for pipe in (left.stdin, left.stdout):
                if pipe is not None:
                    pipe.close()
            left.wait()
