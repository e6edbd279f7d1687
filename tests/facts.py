"""Reads the contents of a video file, so that tests can compare input and output."""

from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
import numpy as np

UNSPECIFIED = 2


@dataclass
class Contents:
    """Contents of a video file as a player decodes them; times are exact, in seconds."""

    frames: int = 0
    size: tuple[int, int] = (0, 0)
    pts: list[Fraction] = field(default_factory=list)
    sar: Fraction = Fraction(1)
    rotation: int = 0
    matrix: int = UNSPECIFIED
    range: int = 0
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    pixel_format: str = ""
    interlaced: bool = False
    kinds: list[str] = field(default_factory=list)
    packets: dict[int, list[str]] = field(default_factory=dict)
    """SHA-256 of every packet of the other streams, by stream index."""
    first_pts: dict[int, Fraction] = field(default_factory=dict)
    languages: dict[int, str | None] = field(default_factory=dict)
    dispositions: dict[int, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    chapters: list[tuple[Fraction, Fraction, str]] = field(default_factory=list)


def contents(
    path: Path | str, keep_payload: bool = True, most_frames: int | None = None
) -> Contents:
    """Decode up to `most_frames` of the first video stream; read all packets of the others."""
    found = Contents()
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        video.thread_type = "AUTO"
        found.kinds = [s.type for s in container.streams]
        found.metadata = dict(container.metadata)
        for s in container.streams:
            found.languages[s.index] = s.language
            found.dispositions[s.index] = int(s.disposition)
        for c in container.chapters():
            base = c["time_base"] or Fraction(1)
            found.chapters.append(
                (c["start"] * base, c["end"] * base, c["metadata"].get("title", ""))
            )
        for packet in container.demux():
            if packet.stream is video:
                if found.frames == most_frames:
                    continue
                try:
                    pictures = packet.decode()
                except av.error.InvalidDataError:
                    continue
                for picture in pictures[: most_frames and most_frames - found.frames]:
                    _look(found, picture, video)
            elif packet.size:
                index = packet.stream.index
                digest = sha256(bytes(packet)).hexdigest() if keep_payload else ""
                found.packets.setdefault(index, []).append(digest)
                if packet.pts is not None:  # cover art has no pts
                    found.first_pts.setdefault(index, packet.pts * packet.time_base)
    return found


def _look(found: Contents, picture: av.VideoFrame, video: Any) -> None:
    if not found.frames:
        context = video.codec_context
        found.size = (picture.width, picture.height)
        found.sar = video.sample_aspect_ratio or Fraction(1)
        found.rotation = picture.rotation % 360
        found.matrix, found.range = context.colorspace, context.color_range
        found.primaries, found.transfer = context.color_primaries, context.color_trc
        found.pixel_format = picture.format.name
        found.interlaced = picture.interlaced_frame
    found.frames += 1
    found.pts.append(picture.pts * video.time_base)


def pictures(path: Path | str, limit: int | None = None) -> list[list[np.ndarray[Any, Any]]]:
    """Return copies of the planes of the first video stream's frames, at most `limit` frames."""
    planes = []
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            planes.append([np.from_dlpack(p).copy() for p in picture.planes])
            if len(planes) == limit:
                break
    return planes
