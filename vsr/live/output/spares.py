"""Starts processes for outputs before the stream's parameters are known.

Starting Python and FFmpeg takes longer than connecting. It is done while the source is being
opened, so that it adds no delay.
"""

import subprocess
import threading
from contextlib import suppress

from vsr.live.output import process
from vsr.media.child import start_child


class Spares:
    """Pool of started processes that wait for their plans. Thread-safe."""

    def __init__(self, count: int = 0) -> None:
        """Start `count` processes.

        One that cannot be started is left out: the output that misses it starts its own, and
        reports the error if that fails too.
        """
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        for _ in range(count):
            with suppress(OSError):
                self._processes.append(start_child(process.__file__, bufsize=0))

    def take(self) -> "subprocess.Popen[bytes] | None":
        """Remove and return one process; None if none is left."""
        with self._lock:
            return self._processes.pop() if self._processes else None

    def close(self) -> None:
        """Kill the unused processes."""
        while (left := self.take()) is not None:
            left.kill()
            for pipe in (left.stdin, left.stdout):
                if pipe is not None:
                    pipe.close()
            left.wait()
