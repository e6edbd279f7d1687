"""Configures how a source is opened and decoded."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av

from vsr.errors import InputError
from vsr.media.crop import crop_of
from vsr.media.fields import UNKNOWN_FIELDS, Fields, analyse_fields
from vsr.media.filters import NO_FILTERS, Filtering
from vsr.media.frame import Planes
from vsr.media.info import VideoInfo, native_planes
from vsr.media.location import absolute_path
from vsr.media.missing_frames import read_to_end
from vsr.media.opening import open_input
from vsr.media.side_data import DEFAULT_KINDS
from vsr.media.stream_choice import choose_streams
from vsr.media.timestamps import Packet
from vsr.media.variants import BEST_FIT, VariantChoice

Streams = tuple[av.stream.Stream, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Settings for opening and decoding a source and for its errors; the defaults are for files."""

    opener: Callable[[str, str], "av.container.InputContainer"] = open_input
    """Callback: (url, name for messages) -> the opened input; raises InputError."""
    demux: Callable[["av.container.InputContainer", Streams], Iterator[Packet]] = read_to_end
    """Callback that yields an input's packets in the required order, given the streams in use."""
    threads: str = "AUTO"
    """Decoder's `thread_type` in FFmpeg; decoding several frames at once adds as many of delay."""
    planes: Callable[[av.VideoFrame, VideoInfo], Planes] = native_planes
    """Callback that converts a decoded picture to planes, given the result of the next one."""
    keeps_aspect: bool = False
    """Whether `planes` adds black bars to pictures of another display aspect than the first."""
    info_after_conversion: Callable[[VideoInfo], VideoInfo] = lambda info: info
    """Callback that returns the properties of the stream's pictures once they are planes."""
    first_picture_timeout: float = math.inf
    """Timeout for the first picture, in seconds."""
    map_read_error: Callable[[Exception], InputError | None] = lambda _: None
    """Callback that returns the error to raise if reading fails; None: the input ends there."""
    count_missing_frames: bool = True
    """Whether frames that the container declares but that are not read count as lost."""
    variant: VariantChoice = BEST_FIT
    """Variant of a playlist to read."""
    filtering: Filtering = NO_FILTERS
    """Filters for pictures before they become frames."""
    fields: Fields | None = None
    """Result of the interlacing analysis; None: analyse the beginning of a file."""
    apply_crop: bool = True
    """Whether files are cropped as their container declares."""
    side_data: frozenset[str] = DEFAULT_KINDS
    """Kinds of side data that frames carry; see `vsr.media.side_data`."""
    memory: int | None = None
    """Memory limit for pictures, in bytes; None: all free memory."""
    name: str = ""
    """Name of the input for messages; empty: from its URL."""
    notes: dict[str, str] | None = None
    """Messages on the same input so far, by kind, which are not repeated; new ones are added."""


def analyse_beginning(reading: Reading, url: str, name: str) -> Fields:
    """Analyse the beginning of a file for interlacing, unless known; only files can be reread."""
    if reading.fields is not None:
        return reading.fields
    if not reading.filtering.needs_field_analysis or not Path(absolute_path(url)).is_file():
        return UNKNOWN_FIELDS
    with reading.opener(url, name) as again:
        return analyse_fields(again, choose_streams(again, url, name, reading.variant)[0])


def filtering_with_crop(reading: Reading, url: str) -> Filtering:
    """Return the filters for pictures; files are cropped as their container declares."""
    path = Path(absolute_path(url))
    crop = crop_of(path) if reading.apply_crop and path.is_file() else None
    return replace(reading.filtering, crop=crop) if crop else reading.filtering
