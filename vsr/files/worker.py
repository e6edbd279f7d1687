"""Makes segments from clips, one after the other: the task of each worker of a run."""

import hashlib
import math
import platform
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Final

from vsr.errors import InputError, UsageError
from vsr.files.journal_lines import Segment
from vsr.files.pipeline import Slice, run
from vsr.files.segment_filter import with_flicker_filter
from vsr.files.segment_writer import SegmentWriter
from vsr.inference import models
from vsr.inference.backend import Backend, load_backend
from vsr.inference.depth import for_bit_depth
from vsr.inference.tiles import plan_tiles
from vsr.inference.upscaler import Upscaler
from vsr.media.clips import Clip
from vsr.media.encoder import EncoderSettings, VideoFormat
from vsr.media.fields import Fields
from vsr.media.filters import Filtering
from vsr.media.frame import Frame
from vsr.media.info import VideoInfo
from vsr.media.reading import Reading
from vsr.media.side_data import kinds_to_carry
from vsr.media.source import Source
from vsr.media.tone import SdrPictures
from vsr.report.ledger import Ledger, Row
from vsr.report.report import versions

_EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
_LEADING: Final = -1
"""Index of the frames before a segment that prepare its filter."""


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """The model that a run's workers use, as given in its settings."""

    model: str
    scale: int | None
    precision: str
    backend: str


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Parameters common to all segments of a run. Sent to other processes and computers."""

    name: str
    """Name of the input for messages."""
    model: ModelRequest
    model_sha256: str
    batch: int
    flicker_filter: bool
    """Whether a `FlickerFilter` is used; see `vsr.files.segment_filter`."""
    info: VideoInfo
    """Facts of the decoded video, before HDR is converted."""
    filtering: Filtering
    fields: Fields
    sdr: bool
    memory: int | None
    """Memory limit for a worker's pictures, in bytes; None: all free memory."""
    max_waiting_bytes: int
    """Limit for the items waiting between two stages, in bytes."""
    video: VideoFormat
    encoder: EncoderSettings
    in_band: bool

    def reading(self) -> Reading:
        """Return how to read a clip, so that its frames equal those of the whole input."""
        sdr = SdrPictures() if self.sdr else None

        def adapted(own: VideoInfo) -> VideoInfo:
            info = replace(self.info, time_base=own.time_base)
            return sdr.info_after_conversion(info) if sdr else info

        reading = Reading(
            memory=self.memory, filtering=self.filtering, fields=self.fields, apply_crop=False,
            info_after_conversion=adapted, side_data=kinds_to_carry(self.encoder.options),
        )  # fmt: skip
        return replace(reading, planes=sdr.planes) if sdr else reading


@dataclass(frozen=True, kw_only=True)
class Place:
    """Host, device and model of a worker."""

    host: str
    device: str
    """Name of the device, as given by the library."""
    backend: str
    model: str
    model_sha256: str
    precision: str
    scale: int
    out_size: tuple[int, int]
    tiles: int
    """Number of tiles per picture."""
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """A segment whose file is complete."""

    segment: Segment
    ledger: Ledger
    """Ledger of the segment's frames, numbered from 0."""
    stopped: bool
    """Whether a stop of the run ended the segment before its last frame."""


def place_of(request: ModelRequest, info: VideoInfo, device: str | None) -> Place:
    """Return what a worker on this computer would use for such frames. Raises VsrError."""
    return _load_model(request, info, device)[2]


def _load_model(
    request: ModelRequest, info: VideoInfo, device: str | None
) -> tuple[models.Model, Backend, Place]:
    backend = load_backend(request.backend, device)
    model = models.find(request.model, request.scale, backend, request.precision)
    model = for_bit_depth(model, info.planes)
    plan = plan_tiles(model, info.width, info.height)
    place = Place(
        host=platform.node(), device=backend.device, backend=backend.name, model=model.name,
        model_sha256=model.sha256, precision=model.precision, scale=model.scale,
        out_size=info.planes.output(info.width, info.height, model.scale),
        tiles=len(plan.columns) * len(plan.rows), versions=versions(),
    )  # fmt: skip
    return model, backend, place


class Worker:
    """Keeps an engine loaded and makes segments with it. Use from one thread."""

    def __init__(self, settings: WorkerSettings, device: str | None) -> None:
        """Build the engine. Raises VsrError."""
        self._settings = settings
        self._notes: dict[str, str] = {}
        info = settings.reading().info_after_conversion(settings.info)
        model, backend, self.place = _load_model(settings.model, info, device)
        if model.sha256 != settings.model_sha256:
            raise UsageError(
                f"{self.place.host} has a different version of the model {model.name}: install the "
                "same version of vsr"
            )
        self._upscaler = Upscaler(
            model, backend, info.colour, (info.width, info.height), settings.batch, fall_back=True,
            planes=info.planes, reuse=True,
        )  # fmt: skip

    def work(
        self, clip: Clip, target: Path, stop: Event, on_frames: Callable[[int], None]
    ) -> SegmentResult:
        """Make the segment of a clip in the file `target`.

        `on_frames`: callback that receives the number of its finished frames. Raises VsrError; then
        there is no file.
        """
        ledger = Ledger()

        def on_muxed(frame: Frame) -> None:
            ledger.add(Row.of(frame))
            on_frames(len(ledger))

        try:
            reading = replace(self._settings.reading(), name=self._settings.name, notes=self._notes)
            source = Source(str(clip.path), reading)
        except InputError:  # no frame of it can be decoded
            return self._empty_segment(clip, target)
        with closing(source):
            selected = Slice(self._frames(source, clip), start=_LEADING, stop=stop)
            sink = _OneSegment(target, self._settings)
            with sink:
                run(
                    selected,
                    with_flicker_filter(self._upscaler.process, self._settings.flicker_filter),
                    sink,
                    on_muxed,
                    self._settings.max_waiting_bytes,
                )
                if sink.writer is None:
                    return replace(self._empty_segment(clip, target), stopped=selected.interrupted)
                whole = not selected.interrupted
                missing = self._count_lost(clip, sink.writer.frames) if whole else 0
                segment = sink.writer.finish(clip.number, clip.follows, lambda: missing)
        return SegmentResult(segment=segment, ledger=ledger, stopped=selected.interrupted)

    def _frames(self, source: Source, clip: Clip) -> Iterator[Frame]:
        """Yield the frames of the clip that belong to its segment, with the input's times.

        With a flicker filter, the frames that prepare it come first; their index is `_LEADING`.
        """
        base, count = self._settings.video.time_base, 0
        begin = clip.lead_begin if self._settings.flicker_filter else clip.begin
        for item in source:
            if not isinstance(item, Frame):
                continue
            time = item.pts * item.time_base + clip.shift
            if time >= clip.end:
                return
            if time >= begin and time not in clip.hidden:
                leads = time < clip.begin
                yield replace(
                    item, index=_LEADING if leads else count,
                    pts=round(time / base), time_base=base,
                    duration=round(item.duration * item.time_base / base),
                )  # fmt: skip
                count += not leads

    def _count_lost(self, clip: Clip, frames: int) -> int:
        """Return the number of the clip's pictures that did not become frames."""
        return max(0, clip.pictures - math.ceil(frames / self._settings.filtering.rate_factor))

    def _empty_segment(self, clip: Clip, target: Path) -> SegmentResult:
        """Make a segment without frames, in place of pictures that cannot be decoded."""
        target.touch()
        begin = round(clip.begin / self._settings.video.time_base)
        segment = Segment(
            number=clip.number, follows=clip.follows, file=target.name, frames=0, first_pts=begin,
            last_pts=begin, last_duration=0, reorder=0, bytes=0, sha256=_EMPTY_SHA256, concealed=0,
            lost=clip.pictures, ms=0.0,
        )  # fmt: skip
        return SegmentResult(segment=segment, ledger=Ledger(), stopped=False)


class _OneSegment:
    """The output of a segment; see `vsr.files.pipeline.Writer`."""

    def __init__(self, target: Path, settings: WorkerSettings) -> None:
        self.writer: SegmentWriter | None = None
        self._target, self._settings = target, settings

    def __enter__(self) -> "_OneSegment":
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.__exit__()

    def write(self, item: Any) -> list[Frame]:
        """Encode a frame; the first one opens the file."""
        if self.writer is None:
            settings = self._settings
            self.writer = SegmentWriter(
                self._target, item, settings.video, settings.encoder, settings.in_band
            )
        return self.writer.write(item)

    def drain(self) -> list[Frame]:
        """Flush the encoder."""
        return self.writer.drain() if self.writer is not None else []
