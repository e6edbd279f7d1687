"""Encodes a run in segments of some seconds, which remain after a kill; joins them at the end."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from vsr.errors import InputError, UsageError, reason
from vsr.files.assemble import Output, join
from vsr.files.fingerprint import fingerprint
from vsr.files.input_output import AnySource, encoder_name_for
from vsr.files.journal import Journal
from vsr.files.journal_lines import Segment
from vsr.files.segment_writer import SegmentWriter, with_threads
from vsr.files.settings import RunSettings
from vsr.inference.upscaler import Outline
from vsr.media.alpha import can_hold_alpha
from vsr.media.clips import Cuts
from vsr.media.encoder import VideoFormat
from vsr.media.frame import Frame
from vsr.media.location import absolute_path, is_stdin, is_url
from vsr.media.passthrough import can_hold_encoder
from vsr.media.pictures.names import find_pictures, is_folder, is_picture
from vsr.media.references import files_of
from vsr.media.source import Source
from vsr.media.target import container_format, pipe_of
from vsr.media.timestamps import Packet
from vsr.version import __version__

_DEFAULT_SEGMENT_S: Final = 20.0
"""Default duration of a segment, in seconds of video."""
_MIN_SECONDS_TO_CUT: Final = 60.0
"""Minimum duration of a run that is cut by default, in seconds of video."""
_WITHOUT_EFFECT: Final = {
    "model", "look", "scale", "precision", "backend", "device", "batch", "overwrite", "container",
    "memory", "segment", "restart", "report", "receipt", "fps", "jobs", "cluster",
}  # fmt: skip
"""Settings that do not affect the video, or whose effect the journal records otherwise."""


def frames_per_segment(
    input_: str,
    output: Path,
    settings: RunSettings,
    source: AnySource,
    video: VideoFormat,
    shared: str = "",
) -> int:
    """Return the number of frames per segment; 0: the output is not cut into segments.

    Only runs whose input can be read again and whose output is one video file are cut. Raises
    UsageError if segments were requested but are impossible; `shared`: the option that requested
    them, if not `--segment`.
    """
    requested_by = shared or ("--segment" if settings.segment is not None else "")
    if settings.segment == 0:
        if shared:
            raise UsageError(f"{shared} requires segments, but --segment 0 disables them")
        return 0
    why = _cannot_be_cut(input_, output, settings, source, video)
    if why is not None:
        if requested_by:
            raise UsageError(f"{requested_by}: {why}")
        return 0
    rate = source.info.rate
    if not requested_by:
        frames = source.info.frames - settings.start_frame
        if min(frames, settings.max_frames or frames) < _MIN_SECONDS_TO_CUT * rate:
            return 0
    return max(1, math.ceil((settings.segment or _DEFAULT_SEGMENT_S) * rate))


def _cannot_be_cut(
    input_: str, output: Path, settings: RunSettings, source: AnySource, video: VideoFormat
) -> str | None:
    """Return the reason why a run cannot be cut into segments; None if it can."""
    if not isinstance(source, Source) or find_pictures(input_, output) is not None:
        return "pictures cannot be divided into segments"
    if is_url(input_) or is_stdin(input_) or not Path(absolute_path(input_)).is_file():
        return "only a file can be read again to resume a run"
    if pipe_of(output) is not None or is_picture(output) or is_folder(output):
        return "only a video file can be joined from segments"
    if settings.encoder.passes > 1:
        return "--passes 2 requires the whole video"
    encoder = encoder_name_for(output, settings, video)
    beside = video.alpha and not can_hold_alpha(encoder, "nut")
    if beside or container_format(output) == "yuv4mpegpipe" or not can_hold_encoder(encoder, "nut"):
        return f"video of {encoder} cannot be divided into segments"
    return None


def facts_of(input_: str, settings: RunSettings, upscaler: Outline, frames: int) -> dict[str, Any]:
    """Return all facts that affect the content of a run's segments. Raises InputError."""
    try:
        found = [fingerprint(path) for path in files_of(Path(absolute_path(input_)))]
    except OSError as exc:
        raise InputError(f"cannot read {input_}: {reason(exc)}") from exc
    chosen = {
        field.name: getattr(settings, field.name)
        for field in fields(settings)
        if field.name not in _WITHOUT_EFFECT
    }
    return {
        "version": __version__,
        "input": found,
        "model": upscaler.name,
        "model_sha256": upscaler.sha256,
        "precision": upscaler.precision,
        "scale": upscaler.scale,
        "frames_per_segment": frames,
        **chosen,
        "encoder": asdict(settings.encoder),
    }


class SegmentedSink:
    """An output that is encoded in segments; used like `Sink`, and can resume by its journal."""

    def __init__(
        self,
        output: Output,
        source: AnySource,
        journal: Journal,
        frames: int,
        reopen: Callable[[], AnySource],
    ) -> None:
        """`frames`: frames per segment; `reopen` opens the source again to copy other streams."""
        self.path = output.path
        self.journal = journal
        self._output, self._reopen = output, reopen
        self._frames, self._rate = frames, source.info.rate
        self.taken_over = self.frames_in = self.frames_out = journal.frames
        """Number of frames finished by an earlier run; the other two also count this run's."""
        self.packets_refused = 0
        self.interrupted: Callable[[], bool] = lambda: False
        """Callback that returns whether the run ended before the last frame."""
        self.lost: Callable[[], int] = lambda: 0
        """Callback that returns the number of input frames lost so far."""
        self._cuts: Cuts | None = None
        self._writer: SegmentWriter | None = None
        self._number = self._lost_before = 0
        self._tail: Segment | None = None
        try:
            with output.open_sink(source) as sink:  # raises errors before the work starts
                self.left_out, self.converted = sink.left_out, sink.converted
                self.encoder, self._in_band = sink.encoder, sink.headers_in_band
        except BaseException:
            journal.close()
            raise

    def __enter__(self) -> "SegmentedSink":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is not None:
            self._writer.__exit__()
        self.journal.close_after_run(kind is not None)

    def write(self, item: Frame | Packet) -> list[Frame]:
        """Encode a frame; return frames as `Sink.write` does. Ignore packets (see `close`)."""
        if not isinstance(item, Frame):
            return []
        number, written = self.cuts_of(item).number(item.pts * item.time_base), list[Frame]()
        if self._writer is not None and number > self._number:
            written, segment = self._finish_segment(self._writer)
            self.journal.add(segment)
        if self._writer is None:
            self._number = number
            self._writer = self._start_segment(item)
        self.frames_in += 1
        written += self._writer.write(item)
        self.frames_out += len(written)
        return written

    @property
    def lead(self) -> Fraction:
        """Time (s) of the frames before a segment that prepare its flicker filter; 0 without it."""
        if not self._output.settings.flicker_filter:
            return Fraction(0)
        return Cuts.of(Fraction(0), self._frames, self._rate).lead

    def cuts_of(self, frame: Frame) -> Cuts:
        """Return where the run is cut, given its first frame, or in a resumed run any frame.

        Another thread may call it before that frame is passed to `write`.
        """
        if self._cuts is None:
            done = self.journal.segments
            first = (done[0].first_pts if done else frame.pts) * frame.time_base
            self._cuts = Cuts.of(first, self._frames, self._rate)
        return self._cuts

    def drain(self) -> list[Frame]:
        """Flush the encoder; return its last frames, as `write` does."""
        if self._writer is None:
            return []
        written, segment = self._finish_segment(self._writer)
        if self.interrupted():
            self._tail = segment  # a resumed run makes the whole segment
        else:
            self.journal.add(segment)
        self.frames_out += len(written)
        return written

    def close(self) -> None:
        """Join the segments and rename the output into place; delete them if it is complete."""
        segments = [*self.journal.segments, *([self._tail] if self._tail else [])]
        with closing(self._reopen()) as source:
            sink = join(self._output, source, self.journal, segments, self.interrupted())
        self.packets_refused = sink.packets_refused

    def _start_segment(self, first: Frame) -> SegmentWriter:
        settings, journal = self._output.settings.encoder, self.journal
        encoder = with_threads(replace(settings, codec=self.encoder), journal.threads)
        self._lost_before = self.lost()
        path = journal.new_file(self._number)
        return SegmentWriter(path, first, self._output.video, encoder, self._in_band)

    def _finish_segment(self, writer: SegmentWriter) -> tuple[list[Frame], Segment]:
        """End a segment; return its last frames and the segment for the journal."""
        written, self._writer = writer.drain(), None
        before = self.journal.segments[-1].number if self.journal.segments else None
        lost = self.lost() - self._lost_before
        return written, writer.finish(self._number, before, lambda: lost)
