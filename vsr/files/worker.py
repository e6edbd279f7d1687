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
from vsr.files.piece import Piece
from vsr.files.pipeline import Slice, run
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
from vsr.media.side_data import wanted
from vsr.media.source import Source
from vsr.media.tone import SdrPictures
from vsr.report.ledger import Ledger, Row
from vsr.report.report import versions

_NOTHING: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The model that a run's workers use, as given in its settings."""

    model: str
    scale: int | None
    precision: str
    backend: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """Parameters common to all segments of a run. Sent to other processes and computers."""

    model: Wanted
    model_sha256: str
    batch: int
    info: VideoInfo
    """Facts of the decoded video, before HDR is converted."""
    filtering: Filtering
    fields: Fields
    sdr: bool
    memory: int | None
    """Memory limit for a worker's pictures, in bytes; None: all free memory."""
    waiting: int
    """Limit for the items waiting between two stages, in bytes."""
    video: VideoFormat
    encoder: EncoderSettings
    in_band: bool

    def reading(self) -> Reading:
        """Return how to read a clip, so that its frames equal those of the whole input."""
        sdr = SdrPictures() if self.sdr else None

        def seen_as(own: VideoInfo) -> VideoInfo:
            info = replace(self.info, time_base=own.time_base)
            return sdr.seen_as(info) if sdr else info

        reading = Reading(
            memory=self.memory, filtering=self.filtering, fields=self.fields, cropped=False,
            seen_as=seen_as, side_data=wanted(self.encoder.options),
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
class Done:
    """A segment whose file is complete."""

    segment: Segment
    ledger: Ledger
    """Ledger of the segment's frames, numbered from 0."""
    stopped: bool
    """Whether a stop of the run ended the segment before its last frame."""


def place_of(wanted: Wanted, info: VideoInfo, device: str | None) -> Place:
    """Return what a worker on this computer would use for such frames. Raises VsrError."""
    return _found(wanted, info, device)[2]


def _found(
    wanted: Wanted, info: VideoInfo, device: str | None
) -> tuple[models.Model, Backend, Place]:
    backend = load_backend(wanted.backend, device)
    model = models.find(wanted.model, wanted.scale, backend, wanted.precision)
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

    def __init__(self, order: Order, device: str | None) -> None:
        """Build the engine. Raises VsrError."""
        self._order = order
        info = order.reading().seen_as(order.info)
        model, backend, self.place = _found(order.model, info, device)
        if model.sha256 != order.model_sha256:
            raise UsageError(f"{self.place.host} has another version of the model {model.name}")
        self._upscaler = Upscaler(
            model, backend, info.colour, (info.width, info.height), order.batch, fall_back=True,
            planes=info.planes, reuse=True,
        )  # fmt: skip

    def work(self, clip: Clip, target: Path, stop: Event, told: Callable[[int], None]) -> Done:
        """Make the segment of a clip in the file `target`.

        `told`: callback that receives the number of its finished frames. Raises VsrError; then
        there is no file.
        """
        ledger = Ledger()

        def on_muxed(frame: Frame) -> None:
            ledger.add(Row.of(frame))
            told(len(ledger))

        try:
            source = Source(str(clip.path), self._order.reading())
        except InputError:  # no frame of it can be decoded
            return self._lost(clip, target)
        with closing(source):
            selected = Slice(self._frames(source, clip), stop=stop)
            sink = _OnePiece(target, self._order)
            with sink:
                run(selected, self._upscaler.process, sink, on_muxed, self._order.waiting)
                if sink.piece is None:
                    return replace(self._lost(clip, target), stopped=selected.interrupted)
                whole = not selected.interrupted
                missing = self._missing(clip, sink.piece.frames) if whole else 0
                segment = sink.piece.finish(clip.number, clip.follows, lambda: missing)
        return Done(segment=segment, ledger=ledger, stopped=selected.interrupted)

    def _frames(self, source: Source, clip: Clip) -> Iterator[Frame]:
        """Yield the frames of the clip that belong to its segment, with the input's times."""
        base, count = self._order.video.time_base, 0
        for item in source:
            if not isinstance(item, Frame):
                continue
            time = item.pts * item.time_base + clip.shift
            if time >= clip.end:
                return
            if time >= clip.begin and time not in clip.hidden:
                yield replace(
                    item, index=count, pts=round(time / base), time_base=base,
                    duration=round(item.duration * item.time_base / base),
                )  # fmt: skip
                count += 1

    def _missing(self, clip: Clip, frames: int) -> int:
        """Return the number of the clip's pictures that did not become frames."""
        return max(0, clip.pictures - math.ceil(frames / self._order.filtering.factor))

    def _lost(self, clip: Clip, target: Path) -> Done:
        """Make a segment without frames, in place of pictures that cannot be decoded."""
        target.touch()
        begin = round(clip.begin / self._order.video.time_base)
        segment = Segment(
            number=clip.number, follows=clip.follows, file=target.name, frames=0, first_pts=begin,
            last_pts=begin, last_duration=0, reorder=0, bytes=0, sha256=_NOTHING, concealed=0,
            lost=clip.pictures, ms=0.0,
        )  # fmt: skip
        return Done(segment=segment, ledger=Ledger(), stopped=False)


class _OnePiece:
    """The output of a segment; see `vsr.files.pipeline.Writer`."""

    def __init__(self, target: Path, order: Order) -> None:
        self.piece: Piece | None = None
        self._target, self._order = target, order

    def __enter__(self) -> "_OnePiece":
        return self

    def __exit__(self, *_: object) -> None:
        if self.piece is not None:
            self.piece.__exit__()

    def write(self, item: Any) -> list[Frame]:
        """Encode a frame; the first one opens the file."""
        if self.piece is None:
            order = self._order
            self.piece = Piece(self._target, item, order.video, order.encoder, order.in_band)
        return self.piece.write(item)

    def drain(self) -> list[Frame]:
        """Flush the encoder."""
        return self.piece.drain() if self.piece is not None else []
