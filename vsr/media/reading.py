"""Says how a source is opened and decoded."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av

from vsr.errors import InputError
from vsr.media.choice import choose
from vsr.media.crop import crop_of
from vsr.media.fields import UNKNOWN, Fields, look
from vsr.media.filters import NO_FILTERS, Filtering
from vsr.media.frame import Planes
from vsr.media.info import VideoInfo, native_planes
from vsr.media.location import local, open_input
from vsr.media.side_data import USUAL
from vsr.media.timestamps import Packet
from vsr.media.variants import BEST_FIT, Wanted

Streams = tuple[av.stream.Stream, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a source is opened and decoded, and what errors mean; the defaults are for files."""

    opener: Callable[[str, str], "av.container.InputContainer"] = open_input
    """(url, name for messages) -> the opened input; raises InputError."""
    demuxed: Callable[["av.container.InputContainer", Streams], Iterator[Packet]] = (
        lambda container, _: container.demux()
    )
    """Yields an input's packets in the order in which they are wanted, given the streams in use."""
    threads: str = "AUTO"
    """How the decoder uses threads; several frames at once add as many of delay."""
    planes: Callable[[av.VideoFrame, VideoInfo], Planes] = native_planes
    """Converts a decoded picture to planes, given the facts that `seen_as` returns."""
    seen_as: Callable[[VideoInfo], VideoInfo] = lambda info: info
    """The facts of the stream's pictures once they are planes."""
    patience: float = math.inf
    """Seconds within which there must be a picture."""
    error_of: Callable[[Exception], InputError | None] = lambda _: None
    """The error that ends reading when FFmpeg fails on the way; None: what was read will do."""
    announced: bool = True
    """Whether frames that the container announces and that do not come are lost."""
    variant: Wanted = BEST_FIT
    """Which variant of a playlist is read."""
    filtering: Filtering = NO_FILTERS
    """What is done with pictures before they are frames."""
    fields: Fields | None = None
    """What is known of its fields; None: the beginning of a file is looked at."""
    cropped: bool = True
    """Whether what a file's container says is not to be shown is cut off."""
    side_data: frozenset[str] = USUAL
    """Kinds that frames carry; see `vsr.media.side_data`."""
    memory: int | None = None
    """Bytes that pictures may take; None: all that is free."""


def fields_of(reading: Reading, url: str, name: str) -> Fields:
    """Look at the beginning of a file for fields; what can be read once is not looked at."""
    if reading.fields is not None:
        return reading.fields
    if not reading.filtering.looks_at_fields or not Path(local(url)).is_file():
        return UNKNOWN
    with reading.opener(url, name) as again:
        return look(again, choose(again, url, name, reading.variant)[0])


def filtering_of(reading: Reading, url: str) -> Filtering:
    """What is done with pictures; those of files are cropped as their container says."""
    path = Path(local(url))
    crop = crop_of(path) if reading.cropped and path.is_file() else None
    return replace(reading.filtering, crop=crop) if crop else reading.filtering
