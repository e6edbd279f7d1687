"""Reads from Matroska and MP4 headers which part of a video's pictures is shown.

FFmpeg's demuxers read it (PixelCrop, the clean aperture), but PyAV does not expose it.
"""

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final

from vsr.media.boxes import VIDEO_ENTRY_BYTES, boxes, video_entries

Crop = tuple[int, int, int, int]
"""Hidden columns at the left and right, and hidden rows at the top and bottom."""

_MATROSKA: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT, _TRACKS, _TRACK_ENTRY, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_CLUSTER: Final = 0x1F43B675
_CROPS: Final = (0x54CC, 0x54DD, 0x54BB, 0x54AA)  # left, right, top, bottom (RFC 9559, 5.1.4.1.28)
_MAX_HEADER_BYTES: Final = 2**20
"""Maximum number of header bytes that are read."""


def crop_of(path: Path) -> Crop | None:
    """Return the hidden borders of a file's first video; None if there are none or unknown."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
            file.seek(0)
            if start.startswith(_MATROSKA):
                found = _matroska(file)
            elif start[4:8] in (b"ftyp", b"moov", b"wide", b"mdat"):
                found = _mp4(file)
            else:
                return None
    except (OSError, ValueError, IndexError, StopIteration, struct.error):
        return None
    return found if found and any(found) and min(found) >= 0 else None


def _number(file: BinaryIO, keep_marker: bool) -> int:
    """Read an EBML number: an id keeps its length marker, a size does not."""
    first = file.read(1)[0]
    length = 9 - first.bit_length()
    if length > 8:
        raise ValueError("no EBML number")
    value = first if keep_marker else first & ((1 << (8 - length)) - 1)
    return value << 8 * (length - 1) | int.from_bytes(file.read(length - 1), "big")


def _elements(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (id, content start, content end) of the Matroska elements between two offsets."""
    while start < end:
        file.seek(start)
        kind, size = _number(file, True), _number(file, False)
        start = file.tell() + size
        yield kind, file.tell(), min(start, end)


def _matroska(file: BinaryIO) -> Crop | None:
    length = file.seek(0, 2)
    segment = next((a, b) for kind, a, b in _elements(file, 0, length) if kind == _SEGMENT)
    for kind, start, end in _elements(file, *segment):
        if kind == _CLUSTER:
            return None
        if kind != _TRACKS:
            continue
        for entry, first, last in _elements(file, start, end):
            for part, low, high in _elements(file, first, last) if entry == _TRACK_ENTRY else ():
                if part == _VIDEO:
                    return _pixel_crop(file, low, high)
    return None


def _pixel_crop(file: BinaryIO, start: int, end: int) -> Crop:
    found = dict.fromkeys(_CROPS, 0)
    for kind, low, high in _elements(file, start, end):
        if kind in found and high - low <= 8:
            file.seek(low)
            found[kind] = int.from_bytes(file.read(high - low), "big")
    left, right, top, bottom = found.values()
    return left, right, top, bottom


def _mp4(file: BinaryIO) -> Crop | None:
    length, at = file.seek(0, 2), 0
    while at + 8 <= length:
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:
            size = struct.unpack(">Q", file.read(8))[0]
        if kind == b"moov":
            return _clean_aperture(file.read(min(size, _MAX_HEADER_BYTES)))
        if size < 8:
            return None
        at += size
    return None


def _clean_aperture(movie: bytes) -> Crop | None:
    """Return the crop of the first track that has a clean aperture."""
    for entry in video_entries(movie):
        held = dict(boxes(entry[VIDEO_ENTRY_BYTES:]))
        if b"clap" in held:
            size = struct.unpack_from(">2H", entry, 24)
            return _around(size, struct.unpack(">8i", held[b"clap"][:32]))
    return None


def _around(size: tuple[int, int], clap: tuple[int, ...]) -> Crop:
    """Return the columns and rows around a clean aperture (ISO/IEC 14496-12, 12.1.4)."""
    sides = []
    for whole, place in ((size[0], 0), (size[1], 2)):
        if not clap[place + 1] or not clap[place + 5]:
            raise ValueError("no fraction")
        kept = Fraction(clap[place], clap[place + 1])
        centre = Fraction(clap[place + 4], clap[place + 5]) + Fraction(whole - 1, 2)
        first = round(centre - (kept - 1) / 2)
        sides += [first, whole - first - round(kept)]
    return sides[0], sides[1], sides[2], sides[3]
