"""Lets several relays use one engine: whoever comes when it is free takes along all who wait.

So pictures of several streams go through an engine one behind the other without a pause, on a GPU
the upload of one beside the computing of another, and nobody waits longer than for the pictures
before his. They are not made one batch: nothing has shown yet that this would gain.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vsr.media.frame import Frame

Work = Callable[[Sequence[Frame], int], list[Frame]]
"""(frames, rung) -> the frames enlarged, in their order."""


@dataclass(eq=False)
class _Order:
    frame: Frame
    rung: int
    result: Frame | None = None
    error: Exception | None = None
    done: bool = False


class Turns:
    """Calls `work` for one thread at a time, with the frames of all that wait. Thread-safe."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._door = threading.Lock()
        self._waiting: list[_Order] = []
        self._engine = threading.Lock()

    def enlarge(self, frame: Frame, rung: int) -> Frame:
        """The frame by that rung; raises what `work` raises, in everyone it concerns."""
        order = _Order(frame, rung)
        with self._door:
            self._waiting.append(order)
        with self._engine:
            if not order.done:
                self._serve(self._take(rung))
        if order.error is not None:
            raise order.error
        assert order.result is not None
        return order.result

    def _take(self, rung: int) -> list[_Order]:
        with self._door:
            taken = [order for order in self._waiting if order.rung == rung]
            self._waiting = [order for order in self._waiting if order.rung != rung]
        return taken

    def _serve(self, orders: Sequence[_Order]) -> None:
        try:
            frames = self._work([order.frame for order in orders], orders[0].rung)
            for order, frame in zip(orders, frames, strict=True):
                order.result = frame
        except Exception as exc:
            for order in orders:
                order.error = exc
        for order in orders:
            order.done = True
