"""Runs source -> upscaler -> sink, with one thread for each and bounded queues between them."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from typing import Any, Final, Protocol

import av

from vsr.media.frame import Frame
from vsr.media.prefetch import MAX_QUEUE_BYTES, HaltedError, prefetch
from vsr.media.timestamps import Packet

_INTERLEAVE: Final = 1.0
"""Maximum distance of audio behind its frame in a file, in seconds."""
_INFINITY: Final = float("inf")


class Slice:
    """A range of an input's frames, by number, and the packets that play with them.

    Iterate once. `frames` and `interrupted` are final when the iteration has ended.
    """

    def __init__(
        self,
        items: Iterable[Frame | Packet],
        start: int = 0,
        count: int | None = None,
        stop: threading.Event | None = None,
        may_hang: bool = False,
        lead: tuple[Fraction, int] = (Fraction(0), 0),
    ) -> None:
        """Select `count` frames from number `start` on (None: to the end), until `stop` is set.

        `may_hang`: reading an item may block, as from a network; `stop` is checked meanwhile.
        `lead`: (seconds, number); frames from that number on, and not further before the last
        unselected one, are yielded before the selected ones, but not counted.
        """
        self._items, self._stop = items, stop
        if may_hang and stop is not None:
            self._items = prefetch(items, name="read", halt=stop)
        self.start, self.count = start, count
        self._lead_s, self._lead_start = lead
        self._lead = deque[Frame]()
        self.frames = 0
        """Number of frames yielded so far."""
        self.interrupted = False
        """Whether `stop` ended the iteration early."""

    def __iter__(self) -> Iterator[Frame | Packet]:
        """Yield the frames and packets in the order in which they were read.

        Decoding lags behind reading, and containers interleave loosely. Packets are therefore held
        back until the first frame's time is known, and read for a short time after the last frame.
        With a `count`, packets that begin after a frame's end wait for the next frame.
        """
        if self.count == 0:
            return
        flow = self._until_stopped()
        held, last = self._skip(flow)
        if last is None:
            return
        begin = last.time if self.start else -_INFINITY
        ahead = [packet for packet in held if plays(packet, after=begin)]
        held.clear()
        while self._lead:
            yield self._lead.popleft()
        self.frames = 1
        yield last
        while True:
            until = _INFINITY if self.count is None else _end(last)
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
        """Read up to the first selected frame; return (packets that may play with it, frame)."""
        held: list[Packet] = []
        for item in flow:
            if not isinstance(item, Frame):
                held.append(item)
            elif item.index >= self.start:
                return held, item
            else:
                held = [packet for packet in held if plays(packet, after=item.time)]
                self._add_to_lead(item)
        return held, None

    def _add_to_lead(self, frame: Frame) -> None:
        if self._lead_s and frame.index >= self._lead_start:
            self._lead.append(frame)
            begin = frame.pts * frame.time_base - self._lead_s
            while self._lead[0].pts * self._lead[0].time_base < begin:
                self._lead.popleft()


def _end(frame: Frame) -> float:
    """Return the end of a frame's presentation (s)."""
    return float((frame.pts + frame.duration) * frame.time_base)


def plays(packet: Packet, after: float = -_INFINITY, before: float = _INFINITY) -> bool:
    """Return whether a packet begins in that time (s); True for cover art and untimed packets."""
    art = packet.stream.disposition & av.stream.Disposition.attached_pic
    if art or packet.pts is None or packet.time_base is None:
        return True
    return after <= float(packet.pts * packet.time_base) < before


class Writer(Protocol):
    """Interface of an output for `run`; see `vsr.media.sink.Sink`."""

    def write(self, item: Frame | Packet) -> list[Frame]:
        """Write an item; return the frames whose packets were written."""
        ...

    def drain(self) -> list[Frame]:
        """Write the buffered frames and return them."""
        ...


Enlarge = Callable[[Iterable[Any]], Iterator[Any]]
"""Type of `Upscaler.process` and `AnySizeUpscaler.process`."""


def run(
    selected: Slice,
    enlarge: Enlarge,
    sink: Writer,
    on_muxed: Callable[[Frame], None],
    max_waiting_bytes: int = MAX_QUEUE_BYTES,
) -> None:
    """Process frames and packets to the end of the slice; the caller closes the sink.

    `max_waiting_bytes`: limit for the items waiting between two stages, in bytes.

    Decoding, inference and encoding overlap. Decoding and inference each have a thread. Encoding
    and `on_muxed`, called for every frame once its packet is written, use the caller's thread.
    Raises any exception of a stage; all threads have ended when it returns or raises.
    """
    with closing(prefetch(selected, name="decode", room=max_waiting_bytes)) as decoded:
        enlarged = prefetch(enlarge(decoded), name="infer", room=max_waiting_bytes)
        with closing(enlarged):
            for item in enlarged:
                for frame in sink.write(item):
                    on_muxed(frame)
    for frame in sink.drain():
        on_muxed(frame)
