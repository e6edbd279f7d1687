"""Store prepared pictures in one memory-mapped file, so that a set may be larger than memory.

File format: `MAGIC`, the pixels of all pictures in sequence (uint8 RGB, row-major), a JSON index,
then the index's length and the CRC-32 of all bytes before it (8 and 4 bytes, little-endian). The
file is written under a temporary name and renamed, so it is complete unless damaged later;
`open_store` checks length and checksum (about one second per GB).
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
from train.files import atomic_write

MAGIC: Final = b"VSRPICS1"
_TAIL: Final = struct.Struct("<QI")
_CHUNK: Final = 1 << 22

PicturesByScale = dict[int, list[Pixels]]
"""Pictures by scale."""


class DamagedStoreError(Exception):
    """The file is not an intact file of `write_store`; str() gives the reason."""


class _ChecksumWriter:
    """File writer that keeps the length and CRC-32 of the written data."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.length, self.crc = file, 0, 0

    def write(self, data: Any) -> None:
        self.file.write(data)
        self.length, self.crc = self.length + len(data), zlib.crc32(data, self.crc)


def write_store(
    path: Path, pairs: Iterable[tuple[int, Pixels, Pixels]], record: dict[str, Any]
) -> None:
    """Write (scale, LR, HR) pairs while iterating; only one pair at a time is in memory.

    `record` (JSON) is read after the last pair. Raises OSError if writing fails.
    """
    places: list[list[int]] = []
    with atomic_write(path) as opened:
        out = _ChecksumWriter(opened)
        out.write(MAGIC)
        for scale, low, high in pairs:
            places.append([scale, out.length, *low.shape[:2]])
            for picture in (low, high):
                out.write(np.ascontiguousarray(picture).data.cast("B"))
        index = json.dumps({"pairs": places, "record": record}).encode()
        out.write(index)
        opened.write(_TAIL.pack(len(index), out.crc))


def open_store(path: Path) -> tuple[PicturesByScale, PicturesByScale, dict[str, Any]]:
    """Return (LR, HR, record) of a file; the pictures are read-only views of the mapped file.

    After one pass for the checksum, pages are read on access; the system may drop them again.
    Raises DamagedStoreError for a truncated, altered or foreign file, and OSError.
    """
    with path.open("rb") as file:
        _check(file)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):  # patches are at random positions: read-ahead is useless
        mapped.madvise(mmap.MADV_RANDOM)
    length, _ = _TAIL.unpack(mapped[-_TAIL.size :])
    index = json.loads(mapped[-_TAIL.size - length : -_TAIL.size])
    lr: PicturesByScale = {}
    hr: PicturesByScale = {}
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
    """Raise DamagedStoreError unless length and checksum are right."""
    end = file.seek(0, 2) - _TAIL.size
    file.seek(0)
    if end < len(MAGIC) or file.read(len(MAGIC)) != MAGIC:
        raise DamagedStoreError("not a file of prepared pictures")
    crc, left = zlib.crc32(MAGIC), end - len(MAGIC)
    while left:
        data = file.read(min(_CHUNK, left))
        if not data:
            raise DamagedStoreError("truncated while it was read")
        crc, left = zlib.crc32(data, crc), left - len(data)
    length, expected = _TAIL.unpack(file.read(_TAIL.size))
    if crc != expected or length > end:
        raise DamagedStoreError("damaged or truncated")
