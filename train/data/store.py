"""Prepared pictures in one file that is mapped into memory: a set may be larger than memory.

The file: `MAGIC`, the pixels of every picture one after the other (uint8 RGB, rows first), an index
in JSON, the index's length and the CRC-32 of all bytes before (8 and 4 bytes, little-endian). It is
written beside its place and renamed, so a file under its name is whole unless it was damaged later;
`open_store` finds that out by length and checksum (about a second for every GB).
"""

import json
import mmap
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from train.data.images import Pixels
from train.files import written_whole

MAGIC: Final = b"VSRPICS1"
_TAIL: Final = struct.Struct("<QI")
_CHUNK: Final = 1 << 22

Scaled = dict[int, list[Pixels]]
"""scale -> pictures."""


class DamagedStoreError(Exception):
    """The file is not what `write_store` wrote; str() says how."""


class _Sum:
    """Writes to a file and keeps length and CRC-32 of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.length, self.crc = file, 0, 0

    def write(self, data: Any) -> None:
        self.file.write(data)
        self.length, self.crc = self.length + len(data), zlib.crc32(data, self.crc)


def write_store(
    path: Path, pairs: Iterable[tuple[int, Pixels, Pixels]], record: dict[str, Any]
) -> None:
    """Write (scale, LR, HR) pairs as they come; one pair at a time is in memory.

    `record` (JSON) is read after the last pair. Raises OSError where the disk does not take it.
    """
    places: list[list[int]] = []
    with written_whole(path) as opened:
        out = _Sum(opened)
        out.write(MAGIC)
        for scale, low, high in pairs:
            places.append([scale, out.length, *low.shape[:2]])
            for picture in (low, high):
                out.write(np.ascontiguousarray(picture).data.cast("B"))
        index = json.dumps({"pairs": places, "record": record}).encode()
        out.write(index)
        opened.write(_TAIL.pack(len(index), out.crc))


def open_store(path: Path) -> tuple[Scaled, Scaled, dict[str, Any]]:
    """(LR, HR, record) of a file; the pictures are read-only views of the mapped file.

    Only what is touched is read, and the system drops it again when memory is needed elsewhere.
    Raises DamagedStoreError for a file that is truncated, altered or something else, and OSError.
    """
    with path.open("rb") as file:
        _check(file)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):  # patches lie anywhere: reading ahead would be in vain
        mapped.madvise(mmap.MADV_RANDOM)
    length, _ = _TAIL.unpack(mapped[-_TAIL.size :])
    index = json.loads(mapped[-_TAIL.size - length : -_TAIL.size])
    lr: Scaled = {}
    hr: Scaled = {}
    for scale, offset, height, width in index["pairs"]:
        low = _view(mapped, offset, height, width)
        lr.setdefault(scale, []).append(low)
        high = _view(mapped, offset + low.size, height * scale, width * scale)
        hr.setdefault(scale, []).append(high)
    return lr, hr, index["record"]


def _view(mapped: mmap.mmap, offset: int, height: int, width: int) -> Pixels:
    flat = np.frombuffer(mapped, np.uint8, height * width * 3, offset)
    return flat.reshape(height, width, 3)


def _check(file: BinaryIO) -> None:
    """Raises DamagedStoreError unless length and checksum are right."""
    end = file.seek(0, 2) - _TAIL.size
    file.seek(0)
    if end < len(MAGIC) or file.read(len(MAGIC)) != MAGIC:
        raise DamagedStoreError("not a file of prepared pictures")
    crc, left = zlib.crc32(MAGIC), end - len(MAGIC)
    while left:
        data = file.read(min(_CHUNK, left))
        if not data:
            raise DamagedStoreError("shorter than it was")
        crc, left = zlib.crc32(data, crc), left - len(data)
    length, expected = _TAIL.unpack(file.read(_TAIL.size))
    if crc != expected or length > end:
        raise DamagedStoreError("damaged or cut off")
