"""Joins encoded segments and an input's other streams into one file, without re-encoding."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av

from vsr.errors import OutputError, reason
from vsr.files.input_output import AnySource
from vsr.files.journal import Journal
from vsr.files.journal_lines import Segment
from vsr.files.pipeline import plays
from vsr.files.settings import RunSettings
from vsr.media.encoder import VideoFormat
from vsr.media.location import absolute_path
from vsr.media.sink import Sink
from vsr.media.source import Source
from vsr.media.timestamps import Packet


@dataclass(frozen=True, kw_only=True)
class JoinInput:
    """Input of `assemble`: segments and their files, in order, and the time base of their times."""

    segments: Sequence[tuple[Segment, Path]]
    time_base: Fraction

    @property
    def first_time(self) -> Fraction:
        """Presentation time of the first frame, in seconds of the input."""
        return self.segments[0][0].first_pts * self.time_base

    @property
    def end_time(self) -> Fraction:
        """End of the last frame (pts plus duration), in seconds of the input."""
        last, _ = self.segments[-1]
        return (last.last_pts + last.last_duration) * self.time_base


@dataclass(frozen=True, kw_only=True)
class Output:
    """Arguments for opening the output; see `vsr.media.sink.Sink`."""

    path: Path
    video: VideoFormat
    settings: RunSettings
    offset: Fraction | None
    end: Fraction | None

    def with_start(self, first_time: Fraction) -> "Output":
        """Return the output with `offset` and `end` set from the first frame's time, in seconds.

        It is unchanged if `offset` is known. Otherwise `end` is a duration, and becomes a time.
        """
        if self.offset is not None:
            return self
        end = None if self.end is None else first_time + self.end
        return replace(self, offset=first_time, end=end)

    def open_sink(self, source: AnySource) -> Sink:
        """Open the sink, with a source's other streams. Raises UsageError and OutputError."""
        settings, others = self.settings, source.passthrough()
        return Sink(
            self.path, self.video, settings.encoder, others, self.offset, self.end, settings.audio
        )


def join(
    output: Output, source: AnySource, journal: Journal, segments: Sequence[Segment], stopped: bool
) -> Sink:
    """Join consecutive segments with a source's other streams; return the output's sink.

    Rename the output into place, and delete the journal's folder unless the run was `stopped`.
    Raises OutputError, also if frames are missing from the output.
    """
    joined = JoinInput(
        segments=[(segment, journal.path(segment)) for segment in segments if segment.frames],
        time_base=output.video.time_base,
    )
    settings, output = output.settings, output.with_start(joined.first_time)
    after = float(joined.first_time) if settings.start_frame else -math.inf
    ends = stopped or settings.max_frames is not None
    before = float(joined.end_time) if ends else math.inf
    assert isinstance(source, Source)
    with output.open_sink(source) as sink:
        others = (p for p in source.other_packets() if plays(p, after, before))
        assemble(sink, joined, others, output.offset or Fraction(0))
        frames = sum(segment.frames for segment in segments)
        if sink.frames_out != frames:
            raise OutputError(f"only {sink.frames_out} of {frames} frames were joined")
        sink.close()
    if stopped:
        journal.mark_interrupted()
    else:
        journal.remove()
    return sink


def assemble(sink: Sink, joined: JoinInput, others: Iterable[Packet], offset: Fraction) -> None:
    """Write the segments' packets, interleaved with `others` in the order of the input's file.

    `offset`: the input's time (s) at which the output begins. Raises OutputError, also if a
    segment's number of frames differs from the recorded one.
    """
    video, start_time = _video_packets(joined, offset), float(offset)
    waiting = next(video, None)
    for packet in others:
        time = packet.dts if packet.dts is not None else packet.pts
        while waiting is not None and time is not None and packet.time_base is not None:
            if _seconds(waiting) > time * float(packet.time_base) - start_time:
                break
            sink.write_encoded(waiting)
            waiting = next(video, None)
        sink.write(packet)
    while waiting is not None:
        sink.write_encoded(waiting)
        waiting = next(video, None)
    sink.drain()


def reorder_of(path: Path, time_base: Fraction) -> tuple[int, int]:
    """Return (number of frames, reorder delay in units of `time_base`) of a segment's file.

    Packets in coding order get the sorted presentation times as decoding times. Without the delay,
    a frame that is coded after later frames would then be shown before it is decoded.
    """
    with av.open(absolute_path(str(path))) as container:
        times = _times(container, time_base)
    late = [shown - own for own, shown in zip(times, sorted(times), strict=True)]
    return len(times), max(late, default=0)


def _times(container: "av.container.InputContainer", unit: Fraction) -> list[int]:
    """Return the presentation times of a segment's packets in coding order, in units of `unit`."""
    [stream] = container.streams.video
    step = _step(stream, unit)
    packets = container.demux(stream)
    return [round(p.pts * step) for p in packets if p.size and p.pts is not None]


def _step(stream: "av.VideoStream", unit: Fraction) -> int | Fraction:
    """Return the stream's time base in units of `unit`; an int if it is whole, for speed."""
    assert stream.time_base is not None
    step = stream.time_base / unit
    return step.numerator if step.denominator == 1 else step


def _video_packets(joined: JoinInput, offset: Fraction) -> Iterator[Packet]:
    """Yield the packets of all segments in coding order, with the output's times and durations.

    NUT stores presentation times only. Decoding times are the sorted presentation times, minus the
    greatest reorder delay of all segments.
    """
    unit = joined.time_base
    start_time = round(offset / unit)
    delay = max(segment.reorder for segment, _ in joined.segments)
    following = [segment.first_pts for segment, _ in joined.segments[1:]]
    for k, (segment, path) in enumerate(joined.segments):
        first = segment.first_pts
        try:
            with av.open(absolute_path(str(path))) as container:
                shown = sorted(first + time for time in _times(container, unit))
            end = following[k] if k < len(following) else segment.last_pts + segment.last_duration
            if (len(shown), shown[:1]) != (segment.frames, [first]):
                raise OutputError(
                    f"{path} has changed since it was written: run the same command again"
                )
            lengths = {
                own: after - own for own, after in zip(shown, [*shown[1:], end], strict=True)
            }
            with av.open(absolute_path(str(path))) as container:
                [stream] = container.streams.video
                decoded, step = iter(shown), _step(stream, unit)
                for packet in container.demux(stream):
                    if packet.size:
                        assert packet.pts is not None
                        own = first + round(packet.pts * step)
                        packet.time_base = unit
                        packet.pts, packet.dts = (
                            own - start_time,
                            next(decoded) - delay - start_time,
                        )
                        packet.duration = lengths[own]
                        yield packet
        except (av.error.FFmpegError, OSError) as exc:
            raise OutputError(
                f"cannot read {path}: {reason(exc)}; run the same command again"
            ) from exc


def _seconds(packet: Packet) -> float:
    assert packet.dts is not None and packet.time_base is not None
    return packet.dts * float(packet.time_base)
