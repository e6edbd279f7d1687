"""Encodes a run in segments of some seconds, which survive a kill, and joins them at the end."""

import hashlib
import logging
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av

from vsr.errors import InputError, OutputError, UsageError, reason
from vsr.files.assemble import Joined, assemble, reorder_of
from vsr.files.ends import AnySource, encoder_for
from vsr.files.journal import Journal, Segment, fingerprint
from vsr.files.pipeline import plays
from vsr.files.settings import RunSettings
from vsr.inference.upscaler import Upscaler
from vsr.media.encoder import VideoFormat
from vsr.media.frame import Frame, now
from vsr.media.location import is_stdin, is_url, local
from vsr.media.passthrough import can_hold_encoder
from vsr.media.pictures.names import find_pictures, is_folder, is_picture
from vsr.media.references import files_of
from vsr.media.sink import Sink
from vsr.media.source import Source
from vsr.media.target import container_format, pipe_of
from vsr.media.timestamps import Packet
from vsr.version import __version__

log = logging.getLogger(__name__)

_USUAL: Final = 20.0
"""Seconds of video in a segment."""
_WORTH: Final = 60.0
"""Seconds of video from which on a run is cut unless something else is asked for."""
_SAME_VIDEO: Final = {
    "model", "look", "scale", "precision", "backend", "device", "batch", "overwrite", "container",
    "memory", "segment", "restart", "report", "fps",
}  # fmt: skip
"""Settings with which the video is the same, or whose outcome the journal has."""


def frames_per_segment(
    input_: str, output: Path, settings: RunSettings, source: AnySource, video: VideoFormat
) -> int:
    """How many frames a segment has; 0: the output is written in one go.

    Only what can be read again and is one video file is cut. Raises UsageError where cutting was
    asked for and cannot be.
    """
    if settings.segment == 0:
        return 0
    why = _cannot_be_cut(input_, output, settings, source, video)
    if why is not None:
        if settings.segment is not None:
            raise UsageError(f"--segment: {why}")
        return 0
    rate = source.info.rate
    if settings.segment is None:
        frames = source.info.frames - settings.start_frame
        if min(frames, settings.max_frames or frames) < _WORTH * rate:
            return 0
    return max(1, math.ceil((settings.segment or _USUAL) * rate))


def _cannot_be_cut(
    input_: str, output: Path, settings: RunSettings, source: AnySource, video: VideoFormat
) -> str | None:
    """Say why a run cannot be cut into segments; None if it can."""
    if not isinstance(source, Source) or find_pictures(input_) is not None:
        return "pictures are not cut into segments"
    if is_url(input_) or is_stdin(input_) or not Path(local(input_)).is_file():
        return "only a file can be read again from where a run ended"
    if pipe_of(output) is not None or is_picture(output) or is_folder(output):
        return "only a video file is put together from segments"
    if settings.encoder.passes > 1:
        return "two passes look at the whole video"
    encoder = encoder_for(output, settings, video)
    if container_format(output) == "yuv4mpegpipe" or not can_hold_encoder(encoder, "nut"):
        return f"{encoder}'s video is written in one go"
    return None


def facts_of(input_: str, settings: RunSettings, upscaler: Upscaler, frames: int) -> dict[str, Any]:
    """Everything that decides what the segments of a run hold. Raises InputError."""
    model = upscaler.model
    try:
        found = [fingerprint(path) for path in files_of(Path(local(input_)))]
    except OSError as exc:
        raise InputError(f"cannot read {input_}: {reason(exc)}") from exc
    chosen = {
        field.name: getattr(settings, field.name)
        for field in fields(settings)
        if field.name not in _SAME_VIDEO
    }
    return {
        "version": __version__,
        "input": found,
        "model": model.name,
        "model_sha256": model.sha256,
        "precision": model.precision,
        "scale": model.scale,
        "frames_per_segment": frames,
        **chosen,
        "encoder": asdict(settings.encoder),
    }


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is needed to open the output; see `vsr.media.sink.Sink`."""

    path: Path
    video: VideoFormat
    settings: RunSettings
    offset: Fraction | None
    end: Fraction | None

    def starting(self, first_time: Fraction) -> "Output":
        """With the times that follow from the first frame's, in seconds."""
        if self.offset is not None:
            return self
        end = None if self.end is None else first_time + self.end
        return replace(self, offset=first_time, end=end)

    def opened(self, source: AnySource) -> Sink:
        """Open it, for the streams of a source. Raises UsageError and OutputError."""
        settings, others = self.settings, source.passthrough()
        return Sink(
            self.path, self.video, settings.encoder, others, self.offset, self.end, settings.audio
        )


class SegmentedSink:
    """An output that is encoded in segments; used like `Sink`, and resumed by its journal."""

    def __init__(
        self,
        output: Output,
        source: AnySource,
        journal: Journal,
        frames: int,
        reopened: Callable[[], AnySource],
    ) -> None:
        """`frames`: of a segment; `reopened` opens the source anew, to copy its other streams."""
        self.path = output.path
        self.journal = journal
        self._output, self._reopened = output, reopened
        self._per_segment = frames
        self.taken_over = self.frames_in = self.frames_out = journal.frames
        """Frames that an earlier run has done; and those with the ones of this run."""
        self.packets_refused = 0
        self.interrupted: Callable[[], bool] = lambda: False
        """Whether the run ended before the last frame."""
        self.lost: Callable[[], int] = lambda: 0
        """Frames of the input that are lost so far."""
        self._sink: Sink | None = None
        self._shown: list[int] = []
        self._duration, self._began = 0, 0.0
        self._tail: Segment | None = None
        self._concealed = 0
        try:
            with output.opened(source) as trial:  # what cannot be is told before the work
                self.left_out, self.converted = trial.left_out, trial.converted
                self.encoder, self._in_band = trial.encoder, trial.headers_in_band
        except BaseException:
            journal.close()
            raise

    def __enter__(self) -> "SegmentedSink":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._sink is not None:
            self._sink.__exit__()
        if kind is not None and self.journal.segments:
            log.warning(
                "%d frames are done and kept: the same command goes on from there",
                self.journal.frames,
            )
        self.journal.close()

    def write(self, item: Frame | Packet) -> list[Frame]:
        """Encode a frame; return frames as `Sink.write` does. Packets are read again at the end."""
        if not isinstance(item, Frame):
            return []
        if self._sink is None:
            self._sink, self._began, self._shown = self._new_segment(item), now(), []
            self._concealed = 0
        self._shown.append(item.pts)
        self._concealed += item.event == "concealed"
        self._duration = item.duration
        self.frames_in += 1
        written = self._sink.write(item)
        if len(self._shown) == self._per_segment:
            more, segment = self._finished(self._sink)
            self.journal.add(segment)
            written += more
        self.frames_out += len(written)
        return written

    def drain(self) -> list[Frame]:
        """Flush the encoder; return its last frames, as `write` does."""
        if self._sink is None:
            return []
        written, segment = self._finished(self._sink)
        if self.interrupted():
            self._tail = segment  # a run that goes on makes the whole segment
        else:
            self.journal.add(segment)
        self.frames_out += len(written)
        return written

    def close(self) -> None:
        """Join what is done, rename it into place, and delete the segments of a whole output."""
        journal, tail = self.journal, [self._tail] if self._tail else []
        stopped = self.interrupted()
        joined = Joined(
            segments=[(segment, journal.path(segment)) for segment in [*journal.segments, *tail]],
            time_base=self._output.video.time_base,
        )
        settings, output = self._output.settings, self._output.starting(joined.first_time)
        after = float(joined.first_time) if settings.start_frame else -math.inf
        ends = stopped or settings.max_frames is not None
        before = float(joined.last_time) if ends else math.inf
        with closing(self._reopened()) as source, output.opened(source) as sink:
            assert isinstance(source, Source)
            others = (p for p in source.other_packets() if plays(p, after, before))
            assemble(sink, joined, others, output.offset or Fraction(0))
            self.packets_refused = sink.packets_refused
            if sink.frames_out != self.frames_in:
                raise OutputError(f"{sink.frames_out} of {self.frames_in} frames were joined")
            sink.close()
        if stopped:
            journal.keep_for_later()
        else:
            journal.remove()

    def _new_segment(self, first: Frame) -> Sink:
        """Open the file of the next segment, whose times begin at 0 as NUT has it."""
        output, begin = self._output, first.pts * first.time_base
        encoder = replace(output.settings.encoder, codec=self.encoder)  # not NUT's own choice
        return Sink(
            self.journal.new_file(), output.video, encoder,
            offset=begin, headers_in_band=self._in_band,
        )  # fmt: skip

    def _finished(self, sink: Sink) -> tuple[list[Frame], Segment]:
        """End a segment; return its last frames and what the journal says of it."""
        written = sink.drain()
        sink.close()
        self._sink = None
        path = sink.path
        try:
            frames, reorder = reorder_of(path, self._output.video.time_base)
            if frames != len(self._shown):
                raise OutputError(f"{path} has {frames} of {len(self._shown)} frames")
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return written, Segment(
                file=path.name, frames=frames, first_pts=self._shown[0], last_pts=self._shown[-1],
                last_duration=self._duration, reorder=reorder, bytes=path.stat().st_size,
                sha256=digest, concealed=self._concealed, lost=self.lost(),
                ms=round(1000 * (now() - self._began), 1),
            )  # fmt: skip
        except (av.error.FFmpegError, OSError) as exc:
            raise OutputError(f"cannot read {path}: {reason(exc)}") from exc
