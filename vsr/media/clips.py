"""Cuts a video, without decoding it, into clips of a few seconds for independent decoding."""

import math
from bisect import insort
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Final

import av

from vsr.errors import InputError
from vsr.media.location import absolute_path, url_for_messages
from vsr.media.missing_frames import Losses
from vsr.media.reading import Reading, Streams
from vsr.media.stream_choice import choose_streams
from vsr.media.timestamps import Packet, TimestampCorrector
from vsr.media.whole_file import writing_failed

PREROLL_S: Final = 2
"""Minimum time from the key frame where decoding begins to the first picture used, in seconds, so
that no picture refers to anything earlier."""
_LEAD: Final = (16, Fraction(1))
"""Number of frames, and maximum time in seconds, that prepare filters for a piece."""
_EXTRA_PACKETS: Final = 16
"""Number of packets after a clip's last picture that the clip also holds, for decoders and filters
that look ahead."""
_NOT_ALL_PICTURES: Final = frozenset({"vp8", "libvpx"})
"""Decoders for which a packet need not be a picture."""
_IN_MOV: Final = frozenset({"prores", "dnxhd", "qtrle"})
"""Decoders of codecs that NUT cannot name; their clips are MOV files."""
_BOUND_TO_FILE: Final = frozenset({"rawvideo", "utvideo"})
"""Decoders that need data of the container that is not copied."""


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Cuts a video at regular intervals of presentation time."""

    first: Fraction
    """Input time of the first frame, in seconds."""
    interval: Fraction
    """Interval between cuts, in seconds."""
    frame_interval: Fraction
    """Average frame interval, in seconds."""

    @classmethod
    def of(cls, first: Fraction, frames: int, rate: Fraction) -> "Cuts":
        """Make cuts after every `frames` frames at a constant frame rate (fps)."""
        return cls(first=first, interval=frames / rate, frame_interval=1 / rate)

    def number(self, time: Fraction) -> int:
        """Return the number, from 0, of the piece that holds a frame with that time (s)."""
        return max(0, math.floor((time - self.first + self.frame_interval / 2) / self.interval))

    def begin(self, number: int) -> Fraction:
        """Return the start (s) of a piece, half a frame early, as frame times vary."""
        return self.first + number * self.interval - self.frame_interval / 2

    @property
    def lead(self) -> Fraction:
        """Time (s) before a piece whose frames prepare filters over time for it."""
        frames, longest = _LEAD
        return min(frames * self.frame_interval, longest, self.interval)

    def lead_begin(self, number: int) -> Fraction:
        """Return the time (s) from which on frames prepare the filters of a piece."""
        return max(self.begin(number) - self.lead, self.begin(0))


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A file of packets, and which of their pictures are used. Times are input times in seconds."""

    number: int
    follows: int | None
    """Number of the previous clip; None for the first."""
    path: Path
    begin: Fraction
    end: Fraction
    """Range of the pictures that are used: `begin` inclusive, `end` exclusive."""
    lead_begin: Fraction
    """Start of the pictures before `begin` that only prepare filters; see `Cuts.lead`."""
    shift: Fraction
    """Input time of the file's time 0."""
    hidden: tuple[Fraction, ...]
    """Times of pictures from `lead_begin` to `end` that are not shown."""
    pictures: int
    """Number of pictures shown if none is damaged; 0 if unknown."""


@dataclass(slots=True)
class _Window:
    """Packets in coding order, starting at the key frame before a piece."""

    base: Fraction
    begin: Fraction
    held: list[Packet] = field(default_factory=list)

    def add(self, packet: Packet) -> None:
        self.held.append(packet)
        if packet.is_keyframe and self.time(packet) <= self.begin - PREROLL_S:
            del self.held[:-1]

    def move_to(self, begin: Fraction) -> None:
        """Drop the packets that a piece starting at `begin` (s) does not need."""
        self.begin = begin
        keys = [
            k
            for k, packet in enumerate(self.held)
            if packet.is_keyframe and self.time(packet) <= begin - PREROLL_S
        ]
        if keys:
            del self.held[: keys[-1]]

    def is_past(self, end: Fraction) -> bool:
        """Return whether all pictures before `end` and `_EXTRA_PACKETS` more packets were read."""
        if len(self.held) <= _EXTRA_PACKETS:
            return False
        dts = self.held[-1 - _EXTRA_PACKETS].dts
        return dts is not None and dts * self.base >= end

    def time(self, packet: Packet) -> Fraction:
        assert packet.pts is not None
        return packet.pts * self.base

    def between(self, begin: Fraction, end: Fraction | float) -> list[Packet]:
        return [packet for packet in self.held if begin <= self.time(packet) < end]


class ClipCutter:
    """Reads the packets of a file's video and writes them as clips. Iterate `clips` once."""

    def __init__(self, url: str, reading: Reading, cuts: Cuts, frames: int | None = None) -> None:
        """Cut `frames` pictures from `cuts.first` on; None: to the end. Raises InputError."""
        self._url, self._reading, self._cuts = url, reading, cuts
        self._name = url_for_messages(url)
        self.losses = Losses()
        """Frames that could not be read; complete after the last clip."""
        self._end: Fraction | float = math.inf if frames is None else self._end_after(frames)

    def clips(self, folder: Path, is_needed: Callable[[int], bool]) -> Generator[Clip, None, None]:
        """Write and yield the clips in order, except those for whose number `is_needed` is false.

        Raises InputError for packets that cannot be cut, OutputError if a clip cannot be written.
        """
        number, follows = 0, None
        with self._open() as container:
            video, packets = self._packets(container)
            assert video.time_base is not None
            window = _Window(video.time_base, self._cuts.begin(0))
            for packet in chain(packets, (None,)):
                if packet is not None:
                    window.add(packet)
                while packet is None or window.is_past(self._cuts.begin(number + 1)):
                    begin, end = self._cuts.begin(number), self._cuts.begin(number + 1)
                    if window.between(begin, min(end, self._end)):
                        if is_needed(number):
                            yield self._written(folder, video, window, number, follows)
                        follows = number
                    later = window.between(end, self._end)
                    if (packet is None and not later) or end > self._end:
                        return
                    times = (self._cuts.number(window.time(each)) for each in later)
                    number = min(times, default=number + 1)
                    window.move_to(self._cuts.lead_begin(number))

    def _written(
        self, folder: Path, video: av.VideoStream, window: _Window, number: int, follows: int | None
    ) -> Clip:
        begin, end = self._cuts.begin(number), min(self._cuts.begin(number + 1), self._end)
        assert isinstance(end, Fraction)
        lead_begin = self._cuts.lead_begin(number)
        inside = window.between(begin, end)
        shown = sum(not packet.is_discard for packet in inside)
        read = window.between(lead_begin, end)
        hidden = tuple(window.time(packet) for packet in read if packet.is_discard)
        path = folder / f"{number:06d}.clip"
        shift = _write(path, video, window.held)
        unknown = video.codec_context.name in _NOT_ALL_PICTURES
        return Clip(
            number=number, follows=follows, path=path, begin=begin, end=end, shift=shift,
            lead_begin=lead_begin, hidden=hidden, pictures=0 if unknown else shown,
        )  # fmt: skip

    def _end_after(self, frames: int) -> Fraction:
        """Return the input time (s) just after `frames` pictures, or after the last one."""
        with self._open() as container:
            video, packets = self._packets(container)
            base = video.time_base
            assert base is not None
            begin, times = self._cuts.begin(0), list[int]()
            for packet in packets:
                assert packet.pts is not None
                if packet.pts * base >= begin and not packet.is_discard:
                    insort(times, packet.pts)
                last = times[frames - 1] if len(times) >= frames else None
                if last is not None and packet.dts is not None and packet.dts > last:
                    break
        end = times[min(frames, len(times)) - 1] if times else 0
        return (end + 1) * base

    def _open(self) -> "av.container.InputContainer":
        return self._reading.opener(self._url, self._name)

    def _packets(
        self, container: "av.container.InputContainer"
    ) -> tuple[av.VideoStream, Iterator[Packet]]:
        video, streams = choose_streams(container, self._url, self._name, self._reading.variant)
        return video, self._of_video(container, video, streams)

    def _of_video(
        self, container: "av.container.InputContainer", video: av.VideoStream, streams: Streams
    ) -> Iterator[Packet]:
        times = TimestampCorrector(lambda *_: None, container.format.name == "mpegts")
        packets = self._reading.demux(container, streams)
        while True:
            try:
                packet = next(packets, None)
            except IndexError:  # PyAV's end of input if a stream appeared mid-stream
                packet = None
            except (av.error.FFmpegError, OSError) as exc:  # `Source` ends there too
                self.losses.add_stop(exc)
                packet = None
            if packet is None:
                return
            times.correct(packet)
            if packet.stream is not video or not packet.size:
                continue
            if packet.pts is None or packet.has_sidedata("new_extradata"):
                what = "has frames without timestamps"
                if packet.pts is not None:
                    what = "changes its codec headers mid-stream"
                raise InputError(f"{self._name} {what}: use --jobs 1")
            yield packet


def _write(path: Path, video: av.VideoStream, packets: Sequence[Packet]) -> Fraction:
    """Write packets into a file whose times begin at 0; return the time (s) that became 0.

    Decoding times, which the input may lack, are made from the sorted presentation times.
    """
    base = video.time_base
    assert base is not None
    shown_at = [packet.pts for packet in packets if packet.pts is not None]
    in_order = sorted(shown_at)
    delay = max(a - b for a, b in zip(in_order, shown_at, strict=True))
    zero = in_order[0] - delay
    try:
        with _open_clip(path, video) as output:
            stream = output.add_stream_from_template(video, opaque=True)
            stream.time_base = base
            last = -1
            for packet, due in zip(packets, in_order, strict=True):
                assert packet.pts is not None
                copy: Packet = av.Packet(bytes(packet))
                last = max(due - delay - zero, last + 1)
                copy.dts, copy.pts = last, max(packet.pts - zero, last)
                copy.time_base, copy.duration = base, packet.duration
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                output.mux_one(copy)
    except (av.error.FFmpegError, OSError) as exc:
        path.unlink(missing_ok=True)
        raise writing_failed("write", path, exc) from exc
    return zero * base


def _open_clip(path: Path, video: av.VideoStream) -> "av.container.OutputContainer":
    """Open a file for packets of the video's codec: NUT, whose times are exact, or MOV."""
    name, base = video.codec_context.name, video.time_base
    assert base is not None
    if name in _IN_MOV:
        options = {"video_track_timescale": str(base.denominator)}
        return av.open(absolute_path(str(path)), "w", format="mov", container_options=options)
    options = {"avoid_negative_ts": "disabled"}
    return av.open(absolute_path(str(path)), "w", format="nut", container_options=options)


def cannot_be_cut(video: av.VideoStream) -> bool:
    """Return whether a video's packets cannot be decoded from another file."""
    base = video.time_base
    rough = base is None or base.numerator != 1
    name = video.codec_context.name
    return name in _BOUND_TO_FILE or (name in _IN_MOV and rough)
