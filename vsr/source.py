"""A file or URL -> Frames in presentation order, with the other streams' packets in between."""

import contextlib
import logging
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, cast

import av
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideType

from vsr.colour import UNSPECIFIED, Colour
from vsr.errors import InputError, reason
from vsr.frame import Frame, Stamps, now, planes_of
from vsr.info import VideoInfo
from vsr.location import open_input, shown

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    Packet = av.Packet[Any]
else:
    Packet = av.Packet  # subscriptable in its stub only
_DECLARES_DURATION: Final = frozenset({"matroska", "webm", "flv"})
_UPRIGHT: Final = struct.pack("=9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_MISSING: Final = 0.5
"""Seconds by which a container may end before its declared duration."""


@dataclass
class Losses:
    """What of the input could not be delivered."""

    lost: int = 0
    """Frames that are missing: cut off, or undecodable."""
    concealed: int = 0
    """Frames the decoder delivered damaged."""
    notes: list[str] = field(default_factory=list)


class Source:
    """An opened input. Iterate once, from one thread; `losses` is complete after the end.

    Raises InputError when it cannot be opened or holds no decodable video frame.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = shown(url)
        self.losses = Losses()
        self._container = open_input(url, self.name)
        try:
            self.video = self._pick_video()
            self._index = 0
            self._last_pts: int | None = None
            self._end = 0.0
            self._primed: deque[Frame | Packet] = deque()
            self._info: VideoInfo | None = None
            self._items = self._demuxed()
            self._prime()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> VideoInfo:
        """Facts of the video stream, from its first decoded frame."""
        assert self._info is not None
        return self._info

    @property
    def container(self) -> "av.container.InputContainer":
        """For the sink: streams to copy, metadata, chapters."""
        return self._container

    @property
    def frames_read(self) -> int:
        """Frames delivered so far."""
        return self._index

    def close(self) -> None:
        """Close the input; safe to call twice."""
        self._container.close()

    def __iter__(self) -> Iterator[Frame | Packet]:
        """Frames with their planes, and other streams' packets, in the order they were read."""
        while self._primed:
            yield self._primed.popleft()
        yield from self._items

    def _pick_video(self) -> av.VideoStream:
        """The first real video stream; cover art is a stream of one picture, not a film."""
        art = av.stream.Disposition.attached_pic
        for stream in self._container.streams.video:
            if not stream.disposition & art and stream.codec_context is not None:
                stream.thread_type = "AUTO"
                stream.codec_context.flags |= av.codec.context.Flags.copy_opaque
                return stream
        kinds = ", ".join(sorted({s.type for s in self._container.streams})) or "no streams"
        raise InputError(f"{self.name} has no video that can be decoded (it holds {kinds})")

    def _prime(self) -> None:
        """Read up to the first frame: its picture tells colour, size and rotation."""
        for item in self._items:
            self._primed.append(item)
            if isinstance(item, Frame):
                return
        raise InputError(f"{self.name} has a video stream but not one frame of it can be decoded")

    def _demuxed(self) -> Iterator[Frame | Packet]:
        read = now()
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as exc:
                self.losses.notes.append(f"reading stopped early: {reason(exc)}")
                self.losses.lost = max(self.losses.lost, 1)
                break
            if packet is None:
                break
            read = now()
            if packet.stream is self.video:
                yield from self._decoded(packet, read)
            elif packet.size:
                self._note_end(packet)
                yield packet
        self._count_missing()

    def _decoded(self, packet: Packet, read: float) -> Iterator[Frame]:
        self._note_end(packet)
        packet.opaque = read
        try:
            pictures = packet.decode()
        except av.error.FFmpegError as exc:
            self.losses.lost += 1
            note = f"packets that cannot be decoded: {reason(exc)}"
            if note not in self.losses.notes:
                self.losses.notes.append(note)
            return
        for picture in pictures:
            yield self._frame(picture, read)

    def _frame(self, picture: av.VideoFrame, read: float) -> Frame:
        if self._info is None:
            self._info = self._describe(picture)
        info = self._info
        stamps = Stamps(read=picture.opaque or read, decoded=now())  # type: ignore[arg-type]
        event = ""
        if picture.is_corrupt:
            self.losses.concealed += 1
            event = "concealed"
        if (picture.width, picture.height) != (info.width, info.height):
            if not event:
                event = "resized"
            self._say_resized(picture)
        frame = Frame(
            planes=planes_of(picture, (info.width, info.height), info.colour),
            index=self._index,
            pts=self._monotonic(picture),
            time_base=info.time_base,
            # a last frame of no length would be cut off by MP4 readers
            duration=picture.duration or info.step,
            stamps=stamps,
            event=event,
        )
        self._index += 1
        return frame

    def _say_resized(self, picture: av.VideoFrame) -> None:
        self._say(
            f"{self.name} changes size to {picture.width}x{picture.height} on the way; "
            f"the output keeps {self.info.width}x{self.info.height} times the scale"
        )

    def _say(self, note: str) -> None:
        """Warn once of each kind of thing."""
        kind = note.split(",", maxsplit=1)[0]
        if not any(said.startswith(kind) for said in self.losses.notes):
            self.losses.notes.append(note)
            log.warning(note)

    def _monotonic(self, picture: av.VideoFrame) -> int:
        """The picture's pts; made from the frame rate where the container has none."""
        last, pts = self._last_pts, picture.pts
        if pts is None:
            pts = 0 if last is None else last + self.info.step
        elif last is not None and pts <= last:
            self._say(f"times run backwards in {self.name}, first at frame {self._index}; mended")
            pts = last + 1  # muxers refuse equal times
        self._last_pts = pts
        return pts

    def _describe(self, picture: av.VideoFrame) -> VideoInfo:
        stream, context = self.video, self.video.codec_context
        # each can be absurd: the average where a container declares none (30000 seen for 25), the
        # guess where frame times vary; never both too low
        rates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
        rate = min(rates, default=Fraction(25))
        assert stream.time_base is not None
        duration = self._duration()
        matrix = next(
            (bytes(data) for data in _side_data(picture) if data.type is SideType.DISPLAYMATRIX),
            None,
        )
        return VideoInfo(
            stream=stream,
            width=picture.width,
            height=picture.height,
            pixel_format=picture.format.name,
            colour=Colour.from_tags(
                matrix=_tag(picture.colorspace, context.colorspace),
                range_=picture.color_range or context.color_range,
                primaries=_tag(picture.color_primaries, context.color_primaries),
                transfer=_tag(picture.color_trc, context.color_trc),
                height=picture.height,
                pix_fmt=picture.format.name,
            ),
            time_base=stream.time_base,
            rate=Fraction(rate),
            sample_aspect=stream.sample_aspect_ratio,
            display_matrix=None if matrix == _UPRIGHT else matrix,
            frames=stream.frames or round((duration or 0) * rate),
            duration=duration,
            interlaced=picture.interlaced_frame,
        )

    def _duration(self) -> float | None:
        stream = self.video
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return self._container.duration / av.time_base if self._container.duration else None

    def _note_end(self, packet: Packet) -> None:
        if packet.pts is not None and packet.time_base:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            self._end = max(self._end, float(end))

    def _count_missing(self) -> None:
        """Compare what came with what the container announced, where it announces exactly."""
        missing = self._cut_off_samples() or self._cut_off_seconds()
        if missing:
            self.losses.lost = max(self.losses.lost, missing)
            self.losses.notes.append(f"the file is cut off: about {missing} frames are missing")

    def _cut_off_samples(self) -> int:
        """MP4 and MOV list every sample's place: count the frames not delivered if any is
        beyond the end of the file."""
        with contextlib.suppress(OSError):
            size = os.path.getsize(self.url)
            entries = self.video.index_entries
            if any(e.pos + e.size > size for e in entries):
                return max(self.video.frames - self._index, 1)
        return 0

    def _cut_off_seconds(self) -> int:
        """Matroska and FLV declare their duration; others' is an estimate and proves nothing."""
        declared = self._container.duration
        if not declared or not _DECLARES_DURATION & set(self._container.format.name.split(",")):
            return 0
        gap = declared / av.time_base - self._end
        return max(1, round(gap * self.info.rate)) if gap > _MISSING and self._info else 0


def _side_data(picture: av.VideoFrame) -> list[SideData]:
    return list(cast(Iterable[SideData], picture.side_data))  # its stub says mapping


def _tag(of_frame: int, of_stream: int) -> int:
    return of_stream if of_frame == UNSPECIFIED else of_frame
