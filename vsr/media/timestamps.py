"""Corrects timestamps: of inputs whose clock jumps, of pictures, and of packets to be written."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import av
from av.rational import AVRational

if TYPE_CHECKING:
    Packet = av.Packet[Any]
else:
    Packet = av.Packet  # subscriptable in its stub only

_JUMP: Final = 0.5
"""Seconds by which a stream's dts may step back before that counts as a jump."""
_GAP: Final = 10
"""Seconds by which it may step forward in a broadcast."""
_STEADY: Final = ("audio", "video")
"""Streams without pauses; subtitles may pause for minutes."""
_FARTHEST: Final = 2**62
_NEVER: Final = -(2**63)
_SURELY: Final = 2**31
"""Wrong times that no later ones outweigh."""


class TimestampCorrector:
    """Corrects timestamps that jump, as in recordings that were joined end to end.

    A jump is a step back by more than half a second anywhere, or forward by more than ten in a
    broadcast, where FFmpeg takes a step back for a wrap of the clock. Other files keep long gaps.

    What follows a jump is moved behind everything before it, all streams alike, so that sound and
    picture stay together; FFmpeg's own tools do the same for discontinuities. Only sound and
    picture move the clock: a subtitle or data packet with a wrong time is wrong by itself.
    """

    def __init__(self, note: Callable[[str, str, bool], None], broadcast: bool = False) -> None:
        self._note, self._broadcast = note, broadcast
        self._shift = Fraction(0)
        self._end = (0, Fraction(1))
        self._end_s = 0.0
        self.jumps = 0
        """Jumps that were closed."""
        self._last: dict[int, int] = {}
        """Stream -> decoding time of its last packet, in the stream's time base."""

    @property
    def end(self) -> Fraction:
        """Time in seconds at which the packets read so far end."""
        ticks, base = self._end
        return ticks * base

    def correct(self, packet: Packet) -> None:
        """Shift the packet's times in place if its stream, or another one before, jumped."""
        base = packet.time_base
        if packet.pts is None or not base:
            return
        if packet.dts is not None:
            self._shift_times(packet, packet.dts, packet.pts, base)
        if packet.stream.type in _STEADY:
            ticks = packet.pts + (packet.duration or 0)
            seconds = ticks * float(base)  # Fractions are slow, and this is done for every packet
            if seconds > self._end_s:
                self._end, self._end_s = (ticks, base), seconds

    def _shift_times(self, packet: Packet, dts: int, pts: int, base: Fraction) -> None:
        index = packet.stream.index
        last = self._last.get(index)
        if last is not None and packet.stream.type in _STEADY:
            step = (dts - last) * float(base)
            if self._jumps(step + float(self._shift) if self._shift else step):
                self._shift = self.end - pts * base
                self.jumps += 1
                self._note("times", f"times jump at {last * float(base):.2f} s; joined there", True)
        if self._shift:
            moved = round((dts * base + self._shift) / base)
            if last is not None and moved <= last:
                moved = last + 1  # the streams of a part need not end together
            packet.pts, packet.dts = pts + moved - dts, moved
            dts = moved
        self._last[index] = dts

    def _jumps(self, step: float) -> bool:
        return step < -_JUMP or (self._broadcast and step > _GAP)


class PictureTimes:
    """Finds the presentation time of decoded pictures, as FFmpeg's best effort does.

    That is the pts, unless more of these than of the dts step back, as in H.264 with B-frames that
    was put into a container by its decoding times. There a decoder's dts, of the packet that made
    it give the picture away, is the time to show it at.

    Where a decoder reorders, the first pictures are held back until that is known: FFmpeg has shown
    the first of them at a wrong time by then. Use for one stream, from one thread.
    """

    def __init__(self, look_ahead: int) -> None:
        """`look_ahead`: pictures that may be held back; 0 for a live stream."""
        self._wait = look_ahead
        self._held: deque[av.VideoFrame] = deque()
        self._last_pts = self._last_dts = _NEVER
        self._wrong_pts = self._wrong_dts = 0

    def add(
        self, pictures: "list[av.VideoFrame]", reorders: bool
    ) -> Iterator[tuple[av.VideoFrame, int | None]]:
        """Yield pictures with their pts, None where nobody knows.

        `reorders`: whether the decoder may give pictures in another order than their packets'.
        """
        self._held.extend(pictures)
        if self._wait and reorders:
            if len(self._held) < self._wait:
                return
            by_decoding = not _rise(p.pts for p in self._held) and _rise(p.dts for p in self._held)
            self._wrong_pts = _SURELY if by_decoding else 0
        self._wait = 0
        yield from self.rest()

    def rest(self) -> Iterator[tuple[av.VideoFrame, int | None]]:
        """Yield the pictures that are held back."""
        while self._held:
            picture = self._held.popleft()
            yield picture, self._time(picture.pts, picture.dts)

    def _time(self, pts: int | None, dts: int | None) -> int | None:
        """Choose one of both; this is `guess_correct_pts` of FFmpeg's libavcodec/decode.c."""
        if dts is not None:
            self._wrong_dts += dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._wrong_pts += pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and self._wrong_pts <= self._wrong_dts:
            return pts
        return dts


def _rise(times: Iterable[int | None]) -> bool:
    """Whether all times are known and each is later than the one before."""
    known = list(times)
    pairs = itertools.pairwise(known)
    return None not in known and all(a < b for a, b in pairs if a is not None and b is not None)


def earlier(time: int | None, ticks: int) -> int | None:
    """A time that many ticks earlier, within what a packet holds; a damaged file has any."""
    return None if time is None else max(-_FARTHEST, min(time - ticks, _FARTHEST))


class Rising:
    """Makes the dts of one stream's packets rise, as muxers demand, where they do not.

    Packets with the time of the one before, or an earlier one, are moved behind it by one unit of
    the muxer's time base; FFmpeg's own tools do the same.
    """

    def __init__(self, time_base: Fraction, equal: bool) -> None:
        """`equal`: whether the muxer takes equal times."""
        self._unit, self._step = AVRational(time_base), 0 if equal else 1
        self._last: int | None = None

    def correct(self, packet: Packet) -> None:
        """Convert a packet's times to the muxer's time base, and move them if they must be."""
        packet.rescale_ts(self._unit)
        if packet.dts is None:
            return
        if self._last is not None and packet.dts < self._last + self._step:
            packet.dts = self._last + self._step
        if packet.pts is not None:
            packet.pts = max(packet.pts, packet.dts)
        self._last = packet.dts


class CodingTimes:
    """Makes the dts of an encoder's packets where the encoder left them undefined.

    x265 does that for videos of fewer pictures than it may reorder: their dts is whatever lay in
    its memory. Use for one encoder that is given pictures with rising pts, from one thread.
    """

    def __init__(self) -> None:
        self._fed: deque[int] = deque()
        self._first = self._latest = 0
        self._made: bool | None = None

    def feed(self, pts: int) -> None:
        """Note the pts of a picture that the encoder is given."""
        if not self._fed and self._made is None:
            self._first = pts
        self._fed.append(pts)
        self._latest = pts

    def correct(self, packet: Packet) -> None:
        """Set a packet's dts if it must be; call for every packet, in coding order."""
        if not self._fed or packet.pts is None:
            return
        due, longest = self._fed.popleft(), self._latest - self._first
        if self._made is None:  # what comes first tells: none is later than its pts or waits longer
            dts = packet.dts
            self._made = dts is None or not self._first - longest <= dts <= packet.pts
        if self._made:
            packet.dts = due - longest
