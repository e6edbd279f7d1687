"""Run source -> upscaler -> sink with a thread for each and bounded queues between them."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, Final, Protocol

import av

from vsr.media.frame import Frame
from vsr.media.prefetch import WAITING, HaltedError, prefetch
from vsr.media.timestamps import Packet

_INTERLEAVE: Final = 1.0
"""Seconds by which sound may come after its picture in a file."""
_EVER: Final = float("inf")


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
        until the first frame's time is known, and read on a little after the last one. With a
        `count`, those that begin after a frame's end wait for the next one.
        """
        if self.count == 0:
            return
        flow = self._until_stopped()
        held, last = self._skip(flow)
        if last is None:
            return
        begin = last.time if self.start else -_EVER
        ahead = [packet for packet in held if plays(packet, after=begin)]
        held.clear()
        self.frames = 1
        yield last
        while True:
            until = _EVER if self.count is None else _end(last)
            yield from (packet for packet in ahead if plays(packet, before=until))
            ahead = [packet for packet in ahead if not plays(packet, before=until)]
            if self.frames == self.count:
                break
            item = next(flow, None)
            if item is None:
                yield from ahead
                return
            if isinstance(item, Frame):
                self.frames += 1
                last = item
                yield item
            else:
                ahead.append(item)
        for item in flow:
            if not isinstance(item, Frame):
                if plays(item, before=_end(last)):
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
        except HaltedError:
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


def _end(frame: Frame) -> float:
    """When a frame ceases to be shown (s)."""
    return float((frame.pts + frame.duration) * frame.time_base)


def plays(packet: Packet, after: float = -_EVER, before: float = _EVER) -> bool:
    """Whether a packet begins in that time (s); cover art and packets without a time always do."""
    art = packet.stream.disposition & av.stream.Disposition.attached_pic
    if art or packet.pts is None or packet.time_base is None:
        return True
    return after <= float(packet.pts * packet.time_base) < before


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
