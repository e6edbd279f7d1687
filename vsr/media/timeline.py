"""Assigns timestamps to decoded pictures, and filters them."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import av

from vsr.media.aspect import AspectReader
from vsr.media.fields import Fields
from vsr.media.filters import Filtering, PictureFilters
from vsr.media.info import VideoInfo
from vsr.media.reading import Reading, analyse_beginning, filtering_with_crop

log = logging.getLogger(__name__)


class Timeline:
    """Assigns timestamps to one stream's decoded pictures and filters them. Use from one thread."""

    def __init__(
        self, filtering: Filtering, fields: Fields, describe: Callable[[av.VideoFrame], VideoInfo]
    ) -> None:
        """`describe`: callback that returns the stream's properties from one of its pictures."""
        self.decoded = 0
        """Number of pictures that the decoder returned."""
        self.filtering, self.fields, self._describe = filtering, fields, describe
        self._filters = PictureFilters(filtering, fields)
        self._info: VideoInfo | None = None
        self._frames: VideoInfo | None = None
        self._last_pts: int | None = None
        self._last_frame: int | None = None
        self._decoded_aspects, self._frame_aspects = AspectReader(), AspectReader()
        self._first_aspect: Fraction | None = None
        self._aspect: Fraction | None = None

    def add(self, picture: av.VideoFrame, pts: int | None) -> Iterator[av.VideoFrame]:
        """Yield the filtered pictures of a picture; `pts` is None if the container has none.

        Raises UsageError for filters that cannot be used.
        """
        self.decoded += 1
        if self._info is None:
            self._info = self._describe(picture)
        info = self._info
        self._aspect = self._aspect_of(picture, info.sample_aspect)
        picture.pts, picture.time_base = self._monotonic(pts, info.step), info.time_base
        return self._filters.feed(picture, info.rate, self._aspect)

    def restart(self, decoded: int) -> None:
        """Restart at another position in the stream, after `decoded` pictures."""
        self.decoded = decoded
        self._filters = PictureFilters(replace(self.filtering, quiet=True), self.fields)
        self._last_pts = self._last_frame = None

    @property
    def frame_info(self) -> VideoInfo:
        """Properties of the frames, as `info` has returned them."""
        assert self._frames is not None
        return self._frames

    def flush(self) -> Iterator[av.VideoFrame]:
        """Flush the filters; yield the pictures they held back."""
        return self._filters.flush()

    def info(self, first: av.VideoFrame) -> VideoInfo:
        """Return the properties of the filtered video, from its first picture."""
        decoded, rate = self._info, self._filters.rate
        assert decoded is not None and first.time_base is not None
        self._frames = decoded
        if rate is not None:
            self._frames = replace(
                self._describe(first),
                rate=rate,
                frames=round(decoded.frames * rate / decoded.rate),
                time_base=self.filtering.time_base(decoded.time_base, first.time_base),
                sample_aspect=self.aspect(first),
            )
        return self._frames

    def aspect(self, picture: av.VideoFrame) -> Fraction | None:
        """Return the pixel aspect of the picture that was yielded last; None if undeclared."""
        found = self._frame_aspects.of(picture) if self._filters.active else None
        if found is None or (found == 1 and self._aspect is None):
            return self._aspect
        return found

    def _aspect_of(self, decoded: av.VideoFrame, declared: Fraction | None) -> Fraction | None:
        """Return a decoded picture's pixel aspect; `declared`: the stream's.

        If the container declares another one than the first picture, it is valid for all pictures.
        """
        found = self._decoded_aspects.of(decoded)
        if self._first_aspect is None:
            self._first_aspect = found
        first = self._first_aspect
        return declared if found in (None, first) or first != (declared or 1) else found

    def pts(self, picture: av.VideoFrame) -> int:
        """Return a picture's pts in the frames' time base, later than that of the previous one."""
        assert picture.pts is not None and picture.time_base is not None and self._frames
        pts = round(picture.pts * picture.time_base / self._frames.time_base)
        if self._last_frame is not None:
            pts = max(pts, self._last_frame + 1)
        self._last_frame = pts
        return pts

    def duration(self, picture: av.VideoFrame) -> int:
        """Return a picture's duration in the frames' time base; 0 if unknown."""
        assert picture.time_base is not None and self._frames
        return round((picture.duration or 0) * picture.time_base / self._frames.time_base)

    def _monotonic(self, pts: int | None, step: int) -> int:
        """Return a picture's rising pts, derived from the frame rate if the container has none."""
        last = self._last_pts
        if pts is None:
            pts = 0 if last is None else last + step
        elif last is not None and pts <= last:
            log.debug("picture %d at %d after %d", self.decoded, pts, last)
            pts = last + 1  # muxers refuse equal times
        self._last_pts = pts
        return pts


def timeline_of(
    reading: Reading, url: str, name: str, describe: Callable[[av.VideoFrame], VideoInfo]
) -> Timeline:
    """Make the timeline of an input, with its container's crop and its interlacing analysis."""
    return Timeline(
        filtering_with_crop(reading, url), analyse_beginning(reading, url, name), describe
    )
