"""Reads an input to its end, and counts the frames that are missing."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

import av

from vsr.errors import InputError, reason
from vsr.media.location import is_url
from vsr.media.opening import READ_TIMEOUT
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

_DECLARES_DURATION: Final = frozenset({"matroska", "webm", "flv"})
_TOLERANCE_S: Final = 0.5
"""Maximum time that a container may end before its declared duration, in seconds."""


@dataclass
class Losses:
    """Number of frames of an input that could not be delivered, and the reasons."""

    lost: int = 0
    """Number of missing frames: cut off or undecodable."""
    cut_off: bool = False
    """Whether the file is cut off although no frame is missing."""
    notes: dict[str, str] = field(default_factory=dict)
    """Kind of event -> message; one message per kind."""

    def add_note(self, kind: str, note: str, warn: bool = False) -> None:
        """Keep the first note of each kind; log it immediately if `warn` is set."""
        if kind not in self.notes:
            self.notes[kind] = note
            if warn:
                log.warning(note)

    def add(self, others: "Losses") -> None:
        """Add the losses and notes of another reading of the same input, which may be the same."""
        self.lost = max(self.lost, others.lost)
        self.cut_off |= others.cut_off
        self.notes = others.notes | self.notes

    def add_stop(self, exc: Exception) -> None:
        """Record that reading failed, and that the input is used up to there."""
        no_data = isinstance(exc, av.error.ExitError)  # of PyAV's timeouts
        why = f"no data for {READ_TIMEOUT:g} s" if no_data else reason(exc)
        self.add_note("end", f"reading stopped early: {why}")
        self.lost = max(self.lost, 1)

    def add_missing(
        self, container: "av.container.InputContainer", video: av.VideoStream,
        decoded: int, end: float, rate: Fraction | None,
    ) -> None:  # fmt: skip
        """Add the frames that a file declares but that were not decoded.

        `decoded`: number of decoded pictures; `end`: end time of all packets (s); `rate`: fps.
        """
        cut_off = _is_cut_off(container, container.streams)
        missing = _count_cut_off_samples(video, decoded) if cut_off else 0
        if not missing and rate is not None:
            missing = _count_cut_off_frames(container, end, rate)
        if missing:
            self.lost = max(self.lost, missing)
            self.add_note("cut", f"the file is cut off: about {missing} frames are missing")
        elif cut_off and _is_cut_off(container, container.streams.audio):
            self.cut_off = True
            self.add_note("cut", "the file is cut off: its sound ends before its video")


def no_frame_error(
    container: "av.container.InputContainer", video: av.VideoStream, name: str, any_packet: bool
) -> InputError:
    """Make the error for an input without a decodable frame; `any_packet`: whether it had packets.

    In a pipe, or from a server that cannot send parts of a file, nothing can be read of an MP4
    whose index is behind its data.
    """
    backwards = not (any_packet or Path(container.name).is_file())
    if backwards and "mp4" in container.format.name.split(",") and any(video.index_entries):
        place, other = "a pipe", "give the file's name"
        if is_url(container.name):
            place, other = "a server that sends whole files only", "download the file"
        return InputError(
            f"{name} is an MP4 or MOV with its index at the end, which cannot be read from "
            f"{place}: {other}, or move the index first (ffmpeg -i in.mp4 -c copy -movflags "
            "+faststart out.mp4)"
        )
    return InputError(f"{name} has a video stream, but no frame of it can be decoded")


def read_to_end(container: "av.container.InputContainer", _: object = None) -> Iterator[Packet]:
    """Yield all packets of an input; the last ones are empty and flush the decoders.

    Reading an MP4 that is cut off ends at the first sample that is not whole. If that is sound,
    whole frames may follow, as far as one fragment reaches in a recording of OBS or a camera: then
    the video is read on.
    """
    held: list[Packet] = []
    try:
        for packet in container.demux():
            if packet.size:
                yield from held
                held.clear()
                yield packet
            else:
                held.append(packet)
    except (av.error.FFmpegError, OSError):
        if not _is_cut_off(container, container.streams):
            raise
    if _is_cut_off(container, container.streams):
        held.clear()
        for stream in container.streams:
            if stream.type != "video":
                stream.discard = av.stream.Discard.all
        yield from container.demux()
    yield from held


def _is_cut_off(
    container: "av.container.InputContainer", streams: Iterable[av.stream.Stream]
) -> bool:
    """Return whether a file ends before a sample that a stream's index lists, as in MP4 and MOV."""
    path = Path(container.name)
    if not path.is_file():  # a pipe has no size
        return False
    size = path.stat().st_size
    return any(entry.pos + entry.size > size for each in streams for entry in each.index_entries)


def _count_cut_off_samples(video: av.VideoStream, decoded: int) -> int:
    """Count the missing frames of an MP4 or MOV that ends before its last sample.

    These containers list every sample's position; of a fragmented file, only the fragments that
    were read.
    """
    shown = sum(not entry.is_discard for entry in video.index_entries)
    return max(shown - decoded, 0)


def _count_cut_off_frames(
    container: "av.container.InputContainer", end: float, rate: Fraction
) -> int:
    """Count the frames between `end` (s) and the duration that Matroska or FLV declares.

    Other containers' durations are estimates and are ignored.
    """
    declared = container.duration
    if not declared or not _DECLARES_DURATION & set(container.format.name.split(",")):
        return 0
    gap = declared / av.time_base - end
    return max(1, round(gap * rate)) if gap > _TOLERANCE_S else 0
