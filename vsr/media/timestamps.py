"""Corrects timestamps: of inputs whose clock jumps, of pictures, and of packets to write."""

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
    Packet = av.Packet  # only its stub is subscriptable

_MAX_BACKWARD_S: Final = 0.5
"""Maximum backward step of a stream's dts that is not a jump, in seconds."""
_MAX_FORWARD_S: Final = 10
"""Maximum forward step in a broadcast that is not a jump, in seconds."""
_CONTINUOUS: Final = ("audio", "video")
"""Types of streams without pauses; subtitles may pause for minutes."""
_MAX_TICKS: Final = 2**62
_BEFORE_ALL: Final = -(2**63)
_CERTAIN: Final = 2**31
"""Count of wrong times that later ones cannot outweigh."""


class TimestampCorrector:
    """Corrects timestamps that jump, as in recordings that were joined end to end.

    A jump is a step back by more than half a second in any input, or forward by more than ten
    seconds in a broadcast, where FFmpeg takes a step back for a clock wrap. Other files keep long
    gaps.

    Packets after a jump are shifted behind everything before it, in all streams alike, so that
    audio and video stay in sync; FFmpeg's tools do the same for discontinuities. Only audio and
    video can cause a shift: a wrong time in a subtitle or data packet affects only that packet.
    """

    def __init__(self, note: Callable[[str, str, bool], None], broadcast: bool = False) -> None:
        self._note, self._broadcast = note, broadcast
        self._shift = Fraction(0)
        self._end = (0, Fraction(1))
        self._end_s = self._text_end_s = 0.0
        self.jumps = 0
        """Number of jumps that were corrected."""
        self._last: dict[int, int] = {}
        """Stream index -> dts of its last packet, in the stream's time base."""

    @property
    def end(self) -> Fraction:
        """Time in seconds at which the packets read so far end."""
        ticks, base = self._end
        return ticks * base

    @property
    def shown_until(self) -> float:
        """Time (s) at which the packets read so far end, with subtitles, which may end later."""
        return max(self._end_s, self._text_end_s)

    def correct(self, packet: Packet) -> None:
        """Shift the packet's times in place if its stream, or another one earlier, jumped."""
        base = packet.time_base
        if packet.pts is None or not base:
            return
        if packet.dts is not None:
            self._shift_times(packet, packet.dts, packet.pts, base)
        ticks = packet.pts + (packet.duration or 0)
        seconds = ticks * float(base)  # Fractions are slow, and this is done for every packet
        if packet.stream.type not in _CONTINUOUS:
            self._text_end_s = max(self._text_end_s, seconds)
        elif seconds > self._end_s:
            self._end, self._end_s = (ticks, base), seconds

    def _shift_times(self, packet: Packet, dts: int, pts: int, base: Fraction) -> None:
        index = packet.stream.index
        last = self._last.get(index)
        if last is not None and packet.stream.type in _CONTINUOUS:
            step = (dts - last) * float(base)
            if self._jumps(step + float(self._shift) if self._shift else step):
                self._shift = self.end - pts * base
                self.jumps += 1
                self._note(
                    "times", f"timestamps jump at {last * float(base):.2f} s; corrected", True
                )
        if self._shift:
            moved = round((dts * base + self._shift) / base)
            if last is not None and moved <= last:
                moved = last + 1  # the streams of a part may end at different times
            packet.pts, packet.dts = pts + moved - dts, moved
            dts = moved
        self._last[index] = dts

    def _jumps(self, step: float) -> bool:
        return step < -_MAX_BACKWARD_S or (self._broadcast and step > _MAX_FORWARD_S)


class PictureTimes:
    """Determines the presentation time of decoded pictures, like FFmpeg's best-effort timestamp.

    It is the pts, unless more pts than dts step back, as in H.264 with B-frames that was muxed with
    decoding times as pts. Then it is the picture's dts: that of the packet on which the decoder
    returned the picture.

    If a decoder reorders, the first pictures are held back until this is known; FFmpeg would show
    the first of them at a wrong time. Use for one stream, from one thread.
    """

    def __init__(self, look_ahead: int) -> None:
        """`look_ahead`: maximum number of pictures held back; 0 for a live stream."""
        self._wait = look_ahead
        self._held: deque[av.VideoFrame] = deque()
        self._last_pts = self._last_dts = _BEFORE_ALL
        self._wrong_pts = self._wrong_dts = 0

    def add(
        self, pictures: "list[av.VideoFrame]", reorders: bool
    ) -> Iterator[tuple[av.VideoFrame, int | None]]:
        """Yield pictures with their pts, None if unknown.

        `reorders`: whether the decoder may return pictures in another order than their packets.
        """
        self._held.extend(pictures)
        if self._wait and reorders:
            if len(self._held) < self._wait:
                return
            pts, dts = ([getattr(p, key) for p in self._held] for key in ("pts", "dts"))
            self._wrong_pts = _CERTAIN if _all_rise(dts) and not _all_rise(pts) else 0
        self._wait = 0
        yield from self.flush()

    def flush(self) -> Iterator[tuple[av.VideoFrame, int | None]]:
        """Yield the pictures that are held back."""
        while self._held:
            picture = self._held.popleft()
            yield picture, self._time(picture.pts, picture.dts)

    def _time(self, pts: int | None, dts: int | None) -> int | None:
        """Choose pts or dts, like `guess_correct_pts` in FFmpeg's libavcodec/decode.c."""
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


def _all_rise(times: Iterable[int | None]) -> bool:
    """Return whether all times are known and each is later than the one before."""
    known = list(times)
    pairs = itertools.pairwise(known)
    return None not in known and all(a < b for a, b in pairs if a is not None and b is not None)


def subtract_ticks(time: int | None, ticks: int) -> int | None:
    """Subtract ticks from a time, within a packet's range, as a damaged file may hold any time."""
    return None if time is None else max(-_MAX_TICKS, min(time - ticks, _MAX_TICKS))


class MonotonicDts:
    """Makes the dts of one stream's packets rise, as muxers require.

    A packet whose dts is not later than the previous one is moved to one unit of the muxer's time
    base after it; FFmpeg's tools do the same.
    """

    def __init__(self, time_base: Fraction, equal: bool) -> None:
        """`equal`: whether the muxer accepts equal times, which then stay equal."""
        self._unit, self._step = AVRational(time_base), 0 if equal else 1
        self._last: int | None = None

    def correct(self, packet: Packet) -> None:
        """Convert a packet's times to the muxer's time base, and move them if necessary."""
        packet.rescale_ts(self._unit)
        if packet.dts is None:
            return
        if self._last is not None and packet.dts < self._last + self._step:
            packet.dts = self._last + self._step
        if packet.pts is not None:
            packet.pts = max(packet.pts, packet.dts)
        self._last = packet.dts


class DtsGenerator:
    """Sets the dts of an encoder's packets if the encoder leaves them undefined.

    x265 does that for videos of fewer pictures than it may reorder: their dts is uninitialised
    memory. Use for one encoder that receives pictures with rising pts, from one thread.
    """

    def __init__(self) -> None:
        self._fed: deque[int] = deque()
        self._first = self._latest = 0
        self._made: bool | None = None

    def feed(self, pts: int) -> None:
        """Record the pts of a picture that is passed to the encoder."""
        if not self._fed and self._made is None:
            self._first = pts
        self._fed.append(pts)
        self._latest = pts

    def correct(self, packet: Packet) -> None:
        """Set a packet's dts if necessary; call for every packet, in coding order."""
        if not self._fed or packet.pts is None:
            return
        due, longest = self._fed.popleft(), self._latest - self._first
        if self._made is None:  # decided by the first packet: is its dts valid?
            dts = packet.dts
            self._made = dts is None or not self._first - longest <= dts <= packet.pts
        if self._made:
            packet.dts = due - longest
