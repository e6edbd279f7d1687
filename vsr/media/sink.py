"""Encodes frames and copies packets into a file, which is renamed into place when complete."""

import logging
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av

from vsr.errors import OutputError, reason
from vsr.media.copying import stream_label
from vsr.media.encoder import EncoderSettings, VideoFormat
from vsr.media.frame import PIXEL_FORMAT, Frame, encoder_picture, now
from vsr.media.location import absolute_path
from vsr.media.matcher import PacketMatcher
from vsr.media.other_streams import OtherStreams
from vsr.media.passthrough import (
    CODING_TAGS,
    HOLD_ROTATION_AND_CHAPTERS,
    MP4_FAMILY,
    Passthrough,
    close_quietly,
    cut_chapters,
    describe_losses,
    is_chapter_track,
    is_rewritten_timecode,
    keeps_any_tag,
    kept_tags,
    movie_timescale,
)
from vsr.media.stream_tags import describe_lost_marks, stream_tags
from vsr.media.target import container_format, delete_abandoned_parts, part_path
from vsr.media.timecode import advance_timecodes
from vsr.media.timestamps import DtsGenerator, Packet, subtract_ticks
from vsr.media.track import add_video, muxer_options
from vsr.media.whole_file import is_full_disk, real_path, writing_failed
from vsr.media.y4m import AspectWriter, open_output

log = logging.getLogger(__name__)

_COPY_ERRORS: Final = (av.error.InvalidDataError, av.error.PatchWelcomeError)
"""Errors at a video packet that can only come from a copied packet interleaved before it."""


class Sink:
    """Writes an output file. Use from one thread, in a `with` block around all writing.

    Leaving the block without `close`, by an error or an interrupt, deletes the partial output.
    """

    def __init__(
        self,
        path: Path,
        video: VideoFormat,
        settings: EncoderSettings,
        passthrough: Passthrough | None = None,
        offset: Fraction | None = Fraction(0),
        end: Fraction | None = None,
        audio: str = "copy",
        container: str | None = None,
        headers_in_band: bool = False,
    ) -> None:
        """`offset` is the input time in seconds at which the output begins; None: at the first
        frame, which must then be written before anything else. `end`, if known, is the input time
        at which the output ends (counted from the first frame if `offset` is None): chapters are
        shifted and cut to this range. `audio` is one of `AUDIO_MODES` of `vsr.media.other_streams`;
        `container` is FFmpeg's container name, None: from the path. `headers_in_band`: the video's
        headers are written before its key frames, even if the container can store them
        separately."""
        self.path, self._offset, self._end = path, offset, end
        self.frames_in = self.frames_out = self.packets_refused = 0
        self._lost: list[str] = []
        self._format = container or container_format(path)
        self._in_band = headers_in_band
        self._part = part_path(path)
        self._file: AspectWriter | None = None
        self._encoding = PacketMatcher[Frame]()
        self._coding = DtsGenerator()
        self._tags = kept_tags(passthrough.metadata) if passthrough else {}
        self._chapters: list[Any] = []
        first = (passthrough.first_time, passthrough.video.average_rate) if passthrough else None
        self._first_and_rate = first
        try:
            self._container = self._open(passthrough.streams if passthrough else (), video)
            covers = passthrough.covers if passthrough else {}
            self._others = OtherStreams(self._container, audio, covers)
            try:
                if passthrough is None:
                    self._add_video(video, settings)
                else:
                    self._add_streams(video, settings, passthrough)
                    self._container.metadata.update(self._tags)
                    self._lost += describe_losses(self._tags, passthrough.chapters, self._format)
                    if self._format in HOLD_ROTATION_AND_CHAPTERS:
                        self._chapters = passthrough.chapters
                if offset is not None:
                    self._start(offset, end)
            except BaseException:
                self._abort()
                raise
        except (av.error.FFmpegError, OSError) as exc:
            raise self._error("create", exc) from exc

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        if self._part.exists():  # neither closed nor renamed
            self._abort()

    @property
    def encoder(self) -> str:
        """FFmpeg's name of the encoder in use."""
        return self._encoder.name

    @property
    def headers_in_band(self) -> bool:
        """Whether the video's headers are written before its key frames."""
        return not self._encoder.flags & av.codec.context.Flags.global_header

    @property
    def left_out(self) -> list[str]:
        """Streams and properties that the container cannot hold, as text for messages."""
        return self._others.left_out + self._lost + self._others.lost

    @property
    def converted(self) -> list[str]:
        """Streams that get another codec, as text for messages."""
        return self._others.converted

    def write(self, item: Frame | Packet) -> list[Frame]:
        """Encode a frame or copy a packet; return the frames whose packets this call muxed.

        They are in coding order and without planes. Raises OutputError.
        """
        try:
            if isinstance(item, Frame):
                return self._encode(item)
            self._copy(item)
            return []
        except (av.error.FFmpegError, OSError) as exc:
            raise self._error("write", exc) from exc

    def write_encoded(self, packet: Packet) -> None:
        """Write an encoded video packet instead of frames; its encoding matches the settings.

        Its timestamps are output times. Raises OutputError.
        """
        try:
            packet.stream = self._video
            self._mux_packet(packet, _COPY_ERRORS)
            self.frames_out += 1
        except (av.error.FFmpegError, OSError) as exc:
            raise self._error("write", exc) from exc

    def drain(self) -> list[Frame]:
        """Flush the encoder; return its last frames, as `write` does."""
        try:
            if not (self.frames_in or self.frames_out):
                return []
            self._mux_others(self._others.flush())
            return self._mux(self._encoder.encode(None)) if self.frames_in else []
        except (av.error.FFmpegError, OSError) as exc:
            raise self._error("finish", exc) from exc

    def close(self) -> None:
        """Write the trailer and rename the file into place."""
        try:
            self._finish()
            self._part.replace(real_path(self.path))
        except (av.error.FFmpegError, OSError) as exc:
            raise self._error("finish", exc) from exc

    def _abort(self) -> None:
        if self.frames_in:
            self._track.discard_frames()
        close_quietly(self._container, self._file)
        self._part.unlink(missing_ok=True)

    def _open(
        self, copied: Sequence[av.stream.Stream], video: VideoFormat
    ) -> "av.container.OutputContainer":
        options = muxer_options(self._format, video)
        if self._format in MP4_FAMILY:
            flags = "+use_metadata_tags" if keeps_any_tag(self._tags, self._format) else ""
            options["movflags"] = f"+faststart{flags}"
            options["movie_timescale"] = str(movie_timescale(copied))
        elif self._format == "nut" and not copied:  # NUT stores no dts: nothing to shift
            options = {"avoid_negative_ts": "disabled"}
        delete_abandoned_parts(self.path)
        part = absolute_path(str(self._part))
        made, self._file = open_output(part, self._format, options, video.sample_aspect)
        return made

    def _finish(self) -> None:
        """Write the trailer, and all that is buffered."""
        self._container.close()
        if self._file is not None:
            self._file.close()

    def _add_streams(
        self, video: VideoFormat, settings: EncoderSettings, passthrough: Passthrough
    ) -> None:
        """Add output streams in the order of the input streams."""
        for stream in passthrough.streams:
            if stream is passthrough.video:
                added = self._add_video(video, settings)
                added.metadata.update(stream_tags(stream, self._format, CODING_TAGS))
                added.disposition = stream.disposition
                if marks := describe_lost_marks(stream, self._format):
                    self._lost.append(f"{marks} of {stream_label(stream)}")
            elif is_chapter_track(stream, passthrough.chapters):
                continue  # the muxer writes a new one
            elif is_rewritten_timecode(stream, passthrough.video, self._format):
                continue
            else:
                self._others.add(stream)

    def _add_video(self, video: VideoFormat, settings: EncoderSettings) -> av.stream.Stream:
        track = add_video(self._container, self.path.suffix, video, settings, self._in_band)
        self._track, self._video, self._encoder = track, track.stream, track.encoder
        self._lost += track.lost
        return track.stream

    def _start(self, begin: Fraction, end: Fraction | None) -> None:
        """Write the header, with the chapters and the timecode of the part between two input
        times (s)."""
        first, rate = self._first_and_rate or (begin, None)
        if begin > first:  # frames are skipped
            for tagged in (self._container, *self._container.streams):
                advance_timecodes(tagged.metadata, begin - first, rate)
        if chapters := cut_chapters(self._chapters, begin, end):
            self._container.set_chapters(chapters)
        self._container.start_encoding()

    def _encode(self, frame: Frame) -> list[Frame]:
        if self._offset is None:
            self._offset = frame.pts * frame.time_base
            self._start(self._offset, None if self._end is None else self._offset + self._end)
        picture = encoder_picture(frame, self._encoder.pix_fmt or PIXEL_FORMAT, self._track.codec)
        picture.pts = frame.pts - round(self._offset / frame.time_base)
        if self._track.numbers is not None:
            picture.pts = self._track.numbers.add(picture.pts)
            picture.time_base, picture.duration = self._encoder.time_base, 1
        frame.stamps.encode_start = now()
        self._encoding.add(picture.pts, frame.without_planes())
        self._coding.feed(picture.pts)
        self.frames_in += 1
        return self._mux(self._encoder.encode(picture))

    def _mux(self, packets: list[Packet]) -> list[Frame]:
        frames = []
        for packet in packets:
            frame = self._encoding.take(packet)
            if frame is not None:
                packet.duration = frame.duration  # not every encoder passes it on
                frame.stamps.encoded = now()
            self._coding.correct(packet)
            if self._track.numbers is not None:
                self._track.numbers.restore(packet, None if frame is None else frame.duration)
            packet.stream = self._video
            self._mux_packet(packet, _COPY_ERRORS)
            self.frames_out += 1
            if frame is not None:
                frame.stamps.muxed = now()
                frames.append(frame)
        return frames

    def _copy(self, packet: Packet) -> None:
        if self._offset and packet.time_base:
            ticks = round(self._offset / packet.time_base)
            packet.pts = subtract_ticks(packet.pts, ticks)
            packet.dts = subtract_ticks(packet.dts, ticks)
        if packet.stream.type not in ("audio", "video") and packet.pts is not None:
            packet.pts = packet.dts = max(packet.pts, 0)  # else muxers shift all streams
        self._mux_others(self._others.packets(packet))

    def _mux_others(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            self._mux_packet(packet, (av.error.FFmpegError, OSError))

    def _mux_packet(self, packet: Packet, tolerated: tuple[type[Exception], ...]) -> None:
        """Mux a packet; count `tolerated` errors, but raise them if the disk is full.

        The muxer interleaves: its error may come from another stream's packet.
        """
        try:
            self._container.mux_one(packet)
        except tolerated as exc:
            if is_full_disk(exc):
                raise
            self.packets_refused += 1
            if self.packets_refused == 1:
                log.warning("%s: the muxer rejected a packet: %s", self.path.name, reason(exc))

    def _error(self, action: str, exc: "av.error.FFmpegError | OSError") -> OutputError:
        return writing_failed(action, self.path, exc)
