"""Shares engines between relays: the thread that holds the lock runs all queued frames of a rung.

Frames of several streams pass through an engine one after the other without a pause (on a GPU, one
is uploaded while another is computed), and each waits only for those queued before it. They are not
combined into a batch: no measurement has shown a gain yet.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vsr.media.frame import Frame

Work = Callable[[Sequence[Frame], int], list[Frame]]
"""(frames, rung) -> the upscaled frames, in the same order."""


@dataclass(eq=False)
class _Request:
    frame: Frame
    rung: int
    result: Frame | None = None
    error: Exception | None = None
    done: bool = False


class EngineQueue:
    """Queue from which the thread with the engine lock runs all frames of its rung. Thread-safe."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._waiting: list[_Request] = []
        self._engine = threading.Lock()

    def upscale(self, frame: Frame, rung: int) -> Frame:
        """Upscale a frame on a rung; an error of `work` is raised for every frame of that call."""
        request = _Request(frame, rung)
        with self._lock:
            self._waiting.append(request)
        with self._engine:
            if not request.done:
                self._run(self._take(rung))
        if request.error is not None:
            raise request.error
        assert request.result is not None
        return request.result

    def _take(self, rung: int) -> list[_Request]:
        with self._lock:
            taken = [request for request in self._waiting if request.rung == rung]
            self._waiting = [request for request in self._waiting if request.rung != rung]
        return taken

    def _run(self, requests: Sequence[_Request]) -> None:
        try:
            frames = self._work([request.frame for request in requests], requests[0].rung)
            for request, frame in zip(requests, frames, strict=True):
                request.result = frame
        except Exception as exc:
            for request in requests:
                request.error = exc
        for request in requests:
            request.done = True
