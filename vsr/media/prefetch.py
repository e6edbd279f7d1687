"""Runs an iterator on a thread of its own, a few items ahead, behind a bounded queue."""

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Final, Generic, TypeVar

import av

from vsr.media.frame import Frame

T = TypeVar("T")

DEPTH: Final = 8
"""Items (frames and packets) in each queue: enough to absorb frames that take longer."""
WAITING: Final = 256 * 2**20
"""Bytes of items in each queue, unless one item alone has more."""
_POLL: Final = 0.1
"""Seconds after which a blocked worker checks whether it should stop."""


class HaltedError(Exception):
    """The run was stopped while it waited for the next item."""


class _End:
    """The last item of a queue, with the error that ended it, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Queue(Generic[T]):
    """A queue between two threads, bounded by a number of items and by their bytes.

    One item is always taken, however large it is.
    """

    def __init__(self, depth: int, room: int) -> None:
        self._depth, self._room = depth, room
        self._items: deque[tuple[T | _End, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()

    def put(self, item: T | _End, stop: threading.Event) -> bool:
        """Add an item when there is room; False when `stop` was set before."""
        size = _bytes(item)
        with self._changed:
            while not stop.is_set():
                if self._takes(size):
                    self._items.append((item, size))
                    self._bytes += size
                    self._changed.notify_all()
                    return True
                self._changed.wait(_POLL)
        return False

    def get(self, timeout: float | None) -> T | _End | None:
        """Return the next item; None when nothing came in `timeout` seconds (None: wait)."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items, timeout):
                return None
            item, size = self._items.popleft()
            self._bytes -= size
            self._changed.notify_all()
            return item

    def _takes(self, size: int) -> bool:
        fits = len(self._items) < self._depth and self._bytes + size <= self._room
        return fits or not self._items


def _bytes(item: object) -> int:
    if isinstance(item, Frame):
        return sum(plane.nbytes for plane in item.planes)
    return item.size if isinstance(item, av.Packet) else 0


def prefetch(
    upstream: Iterable[T],
    depth: int = DEPTH,
    name: str = "prefetch",
    halt: threading.Event | None = None,
    room: int = WAITING,
) -> Generator[T, None, None]:
    """Run `upstream` on its own thread, at most `depth` items or `room` bytes ahead.

    An error in `upstream` is raised here, after the items before it. Closing this iterator early
    stops the worker and closes `upstream`. Order is kept. With `halt`, an upstream that hangs is
    left to itself when that is set: raises HaltedError.
    """
    ready = _Queue[T](depth, room)
    stop = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        items: Iterator[T] | None = None
        try:
            items = iter(upstream)
            for item in items:
                if not ready.put(item, stop):
                    break
                del item  # or it is held while the next one is made
        except BaseException as exc:  # handed to the consumer, who raises it
            error = exc
        finally:
            try:
                if isinstance(items, Generator):
                    items.close()
            except BaseException as exc:
                error = error or exc
            ready.put(_End(error), stop)

    worker = threading.Thread(target=work, name=name, daemon=True)
    worker.start()
    patience = None
    try:
        while True:
            found = ready.get(_POLL if halt else None)
            if found is None:
                if halt and halt.is_set():
                    patience = 0.0
                    raise HaltedError from None
                continue
            if isinstance(found, _End):
                if found.error is not None:
                    raise found.error
                return
            yield found
            del found
    finally:
        stop.set()
        worker.join(patience)
