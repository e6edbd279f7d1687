"""Runs an iterator on a separate thread, a few items ahead, behind a bounded queue."""

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Final, Generic, TypeVar

import av

from vsr.media.frame import Frame

T = TypeVar("T")

QUEUE_DEPTH: Final = 8
"""Maximum number of items (frames and packets) in a queue: enough to absorb slow frames."""
MAX_QUEUE_BYTES: Final = 256 * 2**20
"""Maximum size of the items in a queue, in bytes; a single item may exceed it."""
_POLL: Final = 0.1
"""Interval at which a blocked thread checks whether it should stop, in seconds."""


class HaltedError(Exception):
    """Raised if the run is stopped while it waits for the next item."""


class _End:
    """Last item of a queue, with the error that ended it, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Queue(Generic[T]):
    """Queue between two threads with a limit on the number of items and on their bytes.

    An empty queue accepts an item of any size.
    """

    def __init__(self, depth: int, room: int) -> None:
        self._depth, self._room = depth, room
        self._items: deque[tuple[T | _End, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()

    def put(self, item: T | _End, stop: threading.Event) -> bool:
        """Add an item when there is room; return False if `stop` is set before that."""
        size = _bytes(item)
        with self._changed:
            while not stop.is_set():
                if self._has_room(size):
                    self._items.append((item, size))
                    self._bytes += size
                    self._changed.notify_all()
                    return True
                self._changed.wait(_POLL)
        return False

    def get(self, timeout: float | None) -> T | _End | None:
        """Return the next item; None if none arrives in `timeout` seconds (None: no timeout)."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items, timeout):
                return None
            item, size = self._items.popleft()
            self._bytes -= size
            self._changed.notify_all()
            return item

    def _has_room(self, size: int) -> bool:
        fits = len(self._items) < self._depth and self._bytes + size <= self._room
        return fits or not self._items


def _bytes(item: object) -> int:
    if isinstance(item, Frame):
        return sum(plane.nbytes for plane in item.planes)
    return item.size if isinstance(item, av.Packet) else 0


def prefetch(
    upstream: Iterable[T],
    depth: int = QUEUE_DEPTH,
    name: str = "prefetch",
    halt: threading.Event | None = None,
    room: int = MAX_QUEUE_BYTES,
) -> Generator[T, None, None]:
    """Run `upstream` on a separate thread, at most `depth` items or `room` bytes ahead.

    An error in `upstream` is raised here, after the items before it. Closing this iterator early
    stops the worker and closes `upstream`. Order is kept. If `halt` is set while no item is ready,
    HaltedError is raised and the worker is not waited for, as `upstream` may hang.
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
                del item  # frees it before the next one is made
        except BaseException as exc:  # passed to the consumer, which raises it
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
    join_timeout = None
    try:
        while True:
            found = ready.get(_POLL if halt else None)
            if found is None:
                if halt and halt.is_set():
                    join_timeout = 0.0
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
        worker.join(join_timeout)
