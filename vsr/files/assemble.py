"""Joins encoded segments and an input's other streams into one file, without encoding again."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from vsr.errors import OutputError, reason
from vsr.files.journal import Segment
from vsr.media.sink import Sink
from vsr.media.timestamps import Packet


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What `assemble` joins: the segments' files, in order, and the unit of their times."""

    segments: Sequence[tuple[Segment, Path]]
    time_base: Fraction

    @property
    def first_time(self) -> Fraction:
        """Presentation time of the first frame, in seconds of the input."""
        return self.segments[0][0].first_pts * self.time_base

    @property
    def last_time(self) -> Fraction:
        """Presentation time of the last frame, in seconds of the input."""
        return self.segments[-1][0].last_pts * self.time_base


def assemble(sink: Sink, joined: Joined, others: Iterable[Packet], offset: Fraction) -> None:
    """Write the segments' packets and the others, which come in the order of the input's file.

    `offset` is the input's time (s) at which the output begins. Raises OutputError, also where a
    segment holds another number of frames than was recorded.
    """
    video = _video(joined, offset)
    waiting = next(video, None)
    for packet in others:
        time = packet.dts if packet.dts is not None else packet.pts
        while waiting is not None and time is not None and packet.time_base is not None:
            if _seconds(waiting) > time * packet.time_base - offset:
                break
            sink.write_encoded(waiting)
            waiting = next(video, None)
        sink.write(packet)
    while waiting is not None:
        sink.write_encoded(waiting)
        waiting = next(video, None)
    sink.drain()


def reorder_of(path: Path, time_base: Fraction) -> tuple[int, int]:
    """Return (frames, greatest time in units of `time_base` by which a frame comes too late).

    Packets in coding order may be decoded at the rising times of the presentation; a frame that is
    coded after later ones would then be shown before it is decoded, but for that delay.
    """
    with av.open(str(path)) as container:
        times = [round(t / time_base) for t in _times(container)]
    late = [shown - own for own, shown in zip(times, sorted(times), strict=True)]
    return len(times), max(late, default=0)


def _times(container: "av.container.InputContainer") -> list[Fraction]:
    [stream] = container.streams.video
    found = []
    for packet in container.demux(stream):
        if packet.size and packet.pts is not None and packet.time_base is not None:
            found.append(packet.pts * packet.time_base)
    return found


def _video(joined: Joined, offset: Fraction) -> Iterator[Packet]:
    """The packets of all segments, in coding order, with the output's times and durations.

    NUT keeps presentation times only. Decoding times are those of the presentation in order, all
    earlier by the greatest delay of any segment.
    """
    unit = joined.time_base
    begin = round(offset / unit)
    delay = max(segment.reorder for segment, _ in joined.segments)
    following = [segment.first_pts for segment, _ in joined.segments[1:]]
    for k, (segment, path) in enumerate(joined.segments):
        first = segment.first_pts
        try:
            with av.open(str(path)) as container:
                shown = sorted(first + round(time / unit) for time in _times(container))
            end = following[k] if k < len(following) else segment.last_pts + segment.last_duration
            if (len(shown), shown[:1]) != (segment.frames, [first]):
                raise OutputError(f"{path} does not hold what was written into it: run it again")
            lengths = {
                own: after - own for own, after in zip(shown, [*shown[1:], end], strict=True)
            }
            with av.open(str(path)) as container:
                decoded = iter(shown)
                for packet in container.demux(container.streams.video[0]):
                    if packet.size:
                        assert packet.pts is not None and packet.time_base is not None
                        own = first + round(packet.pts * packet.time_base / unit)
                        packet.time_base = unit
                        packet.pts, packet.dts = own - begin, next(decoded) - delay - begin
                        packet.duration = lengths[own]
                        yield packet
        except (av.error.FFmpegError, OSError) as exc:
            raise OutputError(f"cannot read {path}: {reason(exc)}; run it again") from exc


def _seconds(packet: Packet) -> Fraction:
    assert packet.dts is not None and packet.time_base is not None
    return packet.dts * packet.time_base
