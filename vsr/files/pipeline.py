"""Run source -> upscaler -> sink with a thread for each and bounded queues between them."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, Final, Generic, Protocol, TypeVar

import av

from vsr.media.frame import Frame
from vsr.media.timestamps import Packet

T = TypeVar("T")

DEPTH: Final = 8
"""Items (frames and packets) in each queue: enough to absorb frames that take longer."""
WAITING: Final = 256 * 2**20
"""Bytes of items in each queue, unless one item alone has more."""
_POLL: Final = 0.1
"""Seconds after which a blocked worker checks whether it should stop."""
_INTERLEAVE: Final = 1.0
"""Seconds by which sound may come after its picture in a file."""
_EVER: Final = float("inf")


class _HaltedError(Exception):
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
    left to itself when that is set: raises _HaltedError.
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
                    raise _HaltedError from None
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


class Slice:
    """Some frames of an input, by number, and the packets that play with them.

    Iterate once. `frames` and `interrupted` are complete when the iterator has ended.
    """

    def __init__(
        self,
        items: Iterable[Frame | Packet],
        start: int = 0,
        count: int | None = None,
        stop: threading.Event | None = None,
        may_hang: bool = False,
    ) -> None:
        """`count` frames from number `start` on, None: to the end; or until `stop` is set.

        `may_hang`: reading an item may take long, as from a network; `stop` is heard meanwhile.
        """
        self._items, self._stop = items, stop
        if may_hang and stop is not None:
            self._items = prefetch(items, name="read", halt=stop)
        self.start, self.count = start, count
        self.frames = 0
        """Frames delivered so far."""
        self.interrupted = False
        """Whether `stop` ended it early."""

    def __iter__(self) -> Iterator[Frame | Packet]:
        """The frames and packets in the order they were read.

        Decoding lags behind reading, and containers interleave loosely: packets are held back
        until the first frame's time is known, and read on a little after the last one.
        """
        if self.count == 0:
            return
        flow = self._until_stopped()
        held, last = self._skip(flow)
        if last is None:
            return
        begin = last.time if self.start else -_EVER
        self.frames = 1
        yield last
        yield from (packet for packet in held if plays(packet, after=begin))
        held.clear()
        while self.frames != self.count:
            item = next(flow, None)
            if item is None:
                return
            if isinstance(item, Frame):
                self.frames += 1
                last = item
            yield item
        for item in flow:
            if not isinstance(item, Frame):
                if plays(item, before=last.time):
                    yield item
            elif item.time > last.time + _INTERLEAVE:
                return

    def _until_stopped(self) -> Iterator[Frame | Packet]:
        try:
            for item in self._items:
                if self._stop is not None and self._stop.is_set():
                    self.interrupted = True
                    return
                yield item
        except _HaltedError:
            self.interrupted = True

    def _skip(self, flow: Iterator[Frame | Packet]) -> tuple[list[Packet], Frame | None]:
        """Read up to the first frame; also returns the packets that may play with it."""
        held: list[Packet] = []
        for item in flow:
            if not isinstance(item, Frame):
                held.append(item)
            elif item.index >= self.start:
                return held, item
            else:
                held = [packet for packet in held if plays(packet, after=item.time)]
        return held, None


def plays(packet: Packet, after: float = -_EVER, before: float = _EVER) -> bool:
    """Whether a packet begins in that time (s); cover art and packets without a time always do."""
    art = packet.stream.disposition & av.stream.Disposition.attached_pic
    if art or packet.pts is None or packet.time_base is None:
        return True
    return after <= float(packet.pts * packet.time_base) <= before


class Writer(Protocol):
    """What `run` asks of an output: see `vsr.media.sink.Sink`."""

    def write(self, item: Frame | Packet) -> list[Frame]:
        """Take an item; return the frames that are written by that."""
        ...

    def drain(self) -> list[Frame]:
        """Return the frames that were held back."""
        ...


Enlarge = Callable[[Iterable[Any]], Iterator[Any]]
"""`Upscaler.process`, or one that takes pictures of any size."""


def run(
    selected: Slice,
    enlarge: Enlarge,
    sink: Writer,
    on_muxed: Callable[[Frame], None],
    room: int = WAITING,
) -> None:
    """Process frames and packets to the end of the slice; the caller closes the sink.

    `room`: bytes that may wait between two stages.

    Decoding, inference and encoding overlap: decode and inference each have a thread, encoding
    and `on_muxed`, called for every frame once its packet is written, have the caller's. Raises
    whatever a stage raised; no thread is left behind.
    """
    with closing(prefetch(selected, name="decode", room=room)) as decoded:
        enlarged = prefetch(enlarge(decoded), name="infer", room=room)
        with closing(enlarged):
            for item in enlarged:
                for frame in sink.write(item):
                    on_muxed(frame)
    for frame in sink.drain():
        on_muxed(frame)
