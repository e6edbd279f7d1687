"""Tracks a frame's packet until every output has sent or dropped it."""

import math
import threading
from collections.abc import Callable

import numpy as np

from vsr.media.frame import Frame


class Delivery:
    """Collects the results of all outputs for one frame. Thread-safe."""

    def __init__(self, frame: Frame, outputs: int, on_done: Callable[[Frame], None]) -> None:
        """`on_done` is called once, in the thread of the last output, and must not block."""
        self._frame, self._pending, self._on_done = frame, outputs, on_done
        self._lock = threading.Lock()
        self.is_counted = frame.event != "repeated"
        """Whether the frame is counted: it is from the source, not a repeated one."""
        frame.stamps.sent = math.nan

    def sent(self, at: float) -> None:
        """Record that an output wrote the packet at `at` (s, `now`)."""
        self._record_result(at)

    def dropped(self) -> None:
        """Record that an output dropped the packet."""
        self._record_result(math.nan)

    def _record_result(self, at: float) -> None:
        stamps = self._frame.stamps
        with self._lock:
            stamps.sent = float(np.fmax(stamps.sent, at))  # ignores NaN
            self._pending -= 1
            done = self._pending == 0
        if done:
            self._on_done(self._frame)
