"""Reads a file or URL: frames in presentation order, and the packets of other streams."""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from typing import Any, Final

import av

from vsr.errors import InputError, reason
from vsr.media.alpha import alpha_decoder, alpha_of
from vsr.media.changes import changes_of
from vsr.media.channel_layout import can_decode
from vsr.media.copying import is_cover
from vsr.media.decoder import flush_decoder, prepare_decoder
from vsr.media.dolby import check_base_layer
from vsr.media.frame import Frame, Stamps, now
from vsr.media.info import VideoInfo, side_data_of
from vsr.media.location import url_for_messages
from vsr.media.missing_frames import Losses, no_frame_error
from vsr.media.opening import READ_ERRORS
from vsr.media.passthrough import Passthrough
from vsr.media.plane_format import PlaneFormat
from vsr.media.reading import Reading
from vsr.media.seeking import seek_before
from vsr.media.side_data import carrier_of
from vsr.media.stream_choice import choose_streams
from vsr.media.timeline import timeline_of
from vsr.media.timestamps import Packet, PictureTimes, TimestampCorrector

_LOOK_AHEAD: Final = 8
"""Maximum number of pictures held back at a file's start until their timestamps are understood."""
_MAX_START_S: Final = 10
"""First timestamp, in seconds, above which it is a broadcast's clock and not a pause."""


class Source:
    """Reads an input. Iterate once, from one thread; `losses` is complete after the end.

    Raises InputError if it cannot be opened or holds no decodable video frame.
    """

    def __init__(self, url: str, reading: Reading | None = None) -> None:
        self._reading = reading or Reading()
        self.url = url
        self.name = self._reading.name or url_for_messages(url)
        notes = self._reading.notes
        self.losses = Losses() if notes is None else Losses(notes=notes)
        self._first_picture_deadline = now() + self._reading.first_picture_timeout
        self._items: Iterator[Frame | Packet] = iter(())
        self._primed, self._leading = deque[Frame | Packet](), deque[Frame]()
        self._lock = threading.Lock()
        self._close_requested = False
        self._container = self._reading.opener(url, self.name)
        try:
            self.video, self._streams = choose_streams(
                self._container, url, self.name, self._reading.variant
            )
            """Video stream that is read; deleted when the source is closed."""
            look_ahead = _LOOK_AHEAD if self._reading.count_missing_frames else 0
            self.pictures_held = look_ahead + prepare_decoder(
                self.video, self.name, self._reading.threads, self._reading.memory
            )
            """Maximum number of decoded pictures in memory before they become frames."""
            self._decoder = alpha_decoder(self.video) or self.video.codec_context
            self._decoder.flags |= av.codec.context.Flags.copy_opaque
            self._decode = True
            self._index = 0
            self._began = self._wait_s = 0.0
            is_mpegts = self._container.format.name == "mpegts"
            self._timestamps = TimestampCorrector(self.losses.add_note, is_mpegts)
            self._times = PictureTimes(look_ahead)
            self.timeline = timeline_of(self._reading, url, self.name, self._describe)
            self._info: VideoInfo | None = None
            self._covers: dict[int, bytes] = {}
            self._items = self._demuxed()
            self._prime()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> VideoInfo:
        """Properties of the video stream, from its first decoded frame."""
        assert self._info is not None
        return self._info

    @property
    def plane_format(self) -> PlaneFormat:
        """Plane format of the frames."""
        return self.info.planes

    def passthrough(self) -> Passthrough:
        """Describe what an output may copy: other streams, metadata, chapters."""
        extras = self._covers, self.first_time
        return Passthrough.of(self._container, self.video, self._streams, *extras)

    @property
    def jumps(self) -> int:
        """Number of clock jumps corrected so far."""
        return self._timestamps.jumps

    @property
    def audio(self) -> av.AudioStream | None:
        """First audio stream that can be decoded; None if there is none."""
        sounds = (s for s in self._streams if isinstance(s, av.AudioStream))
        return next((s for s in sounds if can_decode(s)), None)

    @property
    def container_format(self) -> str:
        """FFmpeg's names of the input's format, separated by commas."""
        return self._container.format.name

    @property
    def frames_read(self) -> int:
        """Number of frames delivered so far."""
        return self._index

    def offset(self) -> Fraction:
        """Return the input's time (s) at which the output should begin; 0 for most inputs.

        Recordings from a running clock begin hours late, and players would show nothing until
        then; MP4 cannot show what is before zero. All other inputs keep their times.
        """
        begin = Fraction(self._container.start_time or 0, av.time_base)
        return begin if begin > _MAX_START_S else min(self.first_time, Fraction(0))

    def skip_to(self, index: int, pts: int, lead: Fraction = Fraction(0)) -> bool:
        """Resume after frame `index` with that pts, from an earlier reading; call before iterating.

        The frames of the last `lead` seconds up to that frame come first. Returns False if it is
        not found, or frames depend on all earlier ones: reopen the input.
        """
        filtering, time = self._reading.filtering, pts * self.info.time_base
        if not (filtering.can_begin_anywhere and seek_before(self._container, time - lead)):
            return False
        self._primed.clear()
        note = self.losses.add_note
        self._times, self._timestamps = PictureTimes(_LOOK_AHEAD), TimestampCorrector(note)
        decoded = round((index + 1) / filtering.rate_factor)
        self.timeline.restart(decoded)
        self._items = self._demuxed()
        for item in self._items:
            if isinstance(item, Frame) and item.pts * item.time_base > time - lead:
                self._leading.append(item)
            if isinstance(item, Frame) and item.pts >= pts:
                self._index = index + 1
                self.timeline.decoded = decoded
                for number, each in enumerate(reversed(self._leading)):
                    each.index = index - number
                return item.pts == pts
        return False

    def close(self) -> None:
        """Close the input and end its decoder's threads; safe to call twice.

        They end with the decoder's last reference: in the stream, in packets, and in the generator
        that reads them, which forms a reference cycle with this source. If another thread is
        reading, closing would crash FFmpeg; the reader then closes it when the read returns.
        """
        if not self._lock.acquire(blocking=False):
            self._close_requested = True
            return
        self._lock.release()
        self._items, self._primed = iter(()), deque()
        flush_decoder(vars(self).get("_decoder"))
        self._container.close()
        for name in ("video", "_streams", "_decoder"):
            vars(self).pop(name, None)

    def __iter__(self) -> Iterator[Frame | Packet]:
        """Yield frames, and other streams' packets, in reading order."""
        self._began = now()  # items read while probing count as read now
        leading = (self._leading.popleft() for _ in range(len(self._leading)))
        for item in chain(self._primed, leading, self._items):
            if isinstance(item, Frame) and item.stamps.read < self._began:
                item.stamps.read = item.stamps.decoded = self._began
            ready = now()
            yield item
            self._wait_s += now() - ready

    def other_packets(self) -> Iterator[Packet]:
        """Return the packets of all streams but the video, in reading order and without decoding;
        use it instead of iterating."""
        self._decode = False
        return (item for item in chain(self._primed, self._items) if not isinstance(item, Frame))

    def count_missing(self, decoded: int) -> None:
        """Record the frames that the file declares but that were not decoded; call at its end."""
        rate = None if self._info is None else self._info.rate
        ends = (self._timestamps.shown_until, rate)
        self.losses.add_missing(self._container, self.video, decoded, *ends)

    def _reading_failed(self, exc: Exception) -> None:
        """Raise the error of `Reading.map_read_error`, or record it; a file is used up to there."""
        error = self._reading.map_read_error(exc)
        if error is not None:
            raise error from None  # FFmpeg's message may contain the whole URL
        self.losses.add_stop(exc)

    def _prime(self) -> None:
        """Read up to the first frame, whose picture determines colour, size and rotation."""
        for item in self._items:
            self._primed.append(item)
            if isinstance(item, Frame):
                self.first_time = item.pts * item.time_base
                """Presentation time of the first frame, in seconds."""
                return
            if is_cover(item.stream):  # FFmpeg passes on cover art first
                self._covers[item.stream.index] = bytes(item)
        any_packet = self._timestamps.end > 0
        raise no_frame_error(self._container, self.video, self.name, any_packet)

    def _demuxed(self) -> Iterator[Frame | Packet]:
        packets = self._reading.demux(self._container, self._streams)
        while not self._close_requested:
            try:
                with self._lock:
                    packet = next(packets, None)
            except IndexError:  # PyAV's end of input if a stream appeared mid-stream
                break
            except READ_ERRORS as exc:
                self._reading_failed(exc)
                break
            if packet is None or self._close_requested:
                break
            if self._info is None and now() > self._first_picture_deadline:  # else memory fills up
                raise InputError(f"{self.name} sends data, but no frame that can be decoded")
            self._timestamps.correct(packet)
            if packet.stream is self.video:
                yield from self._decoded(packet) if self._decode else ()
            elif packet.size:
                yield packet
        latest = (now(), self._wait_s)
        yield from self._timed(self._times.flush(), latest)
        yield from (self._frame(each, latest) for each in self.timeline.flush())
        if self._close_requested:
            self.close()
        elif self._decode and self._reading.count_missing_frames:
            self.count_missing(self.timeline.decoded)

    def _decoded(self, packet: Packet) -> Iterator[Frame]:
        latest = packet.opaque = (now(), self._wait_s)  # returned with its decoded picture
        try:
            pictures = self._decoder.decode(packet)
        except av.error.FFmpegError as exc:
            self.losses.lost += 1
            self.losses.add_note("undecodable", f"some packets cannot be decoded: {reason(exc)}")
            return
        reorders = bool(self.video.codec_context.has_b_frames)
        yield from self._timed(self._times.add(pictures, reorders), latest)

    def _timed(
        self, pictures: Iterator[tuple[av.VideoFrame, int | None]], latest: object
    ) -> Iterator[Frame]:
        for picture, pts in pictures:
            for each in self.timeline.add(picture, pts):
                yield self._frame(each, latest)

    def _describe(self, picture: av.VideoFrame) -> VideoInfo:
        check_base_layer(self.video, side_data_of(picture), self.name)
        return VideoInfo.of(self.video, picture, self._container)

    def _frame(self, picture: av.VideoFrame, latest: object) -> Frame:
        if self._info is None:
            self._info = self._reading.info_after_conversion(self.timeline.info(picture))
        info = self._info
        event, aspect = "concealed" if picture.is_corrupt else "", self.timeline.aspect(picture)
        fits, first = self._reading.keeps_aspect, self.timeline.frame_info.colour
        for kind, note in changes_of(picture, aspect, info, first, fits):
            if kind == "size" or (kind == "aspect" and fits):
                event = event or "resized"
            self.losses.add_note(kind, f"{self.name} {note}", warn=True)
        frame = Frame(
            planes=self._reading.planes(picture, replace(info, sample_aspect=aspect)),
            index=self._index,
            pts=self.timeline.pts(picture),
            time_base=info.time_base,
            format=info.planes,
            colour=info.colour,
            # MP4 readers would drop a last frame of zero duration
            duration=self.timeline.duration(picture) or info.step,
            stamps=self._stamps(picture.opaque or latest, latest),
            event=event,
            side_data=carrier_of(picture, self._reading.side_data),
            alpha=alpha_of(picture, (info.width, info.height), info.planes.bits),
        )
        self._index += 1
        return frame

    def _stamps(self, own: Any, latest: Any) -> Stamps:
        """Make stamps from (time read, waiting time until then) of its packet and the latest."""
        (read, waited), (ready, until) = max(own, (self._began, 0.0)), latest
        # one thread has only waited for later packets (B-frames); several decode meanwhile
        held = 0.0 if self._reading.threads == "AUTO" else max(0.0, ready - read - until + waited)
        return Stamps(read=read, decoded=now(), wait_s=self._wait_s - waited + held)
