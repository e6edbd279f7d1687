"""Adds elementary streams to an MPEG-TS file, for stream types that no installed muxer writes."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PACKET: Final = 188
_PID: Final = 0x150
_EVERY: Final = 5
"""Number of source packets between two packets of an added stream."""


@dataclass(frozen=True, kw_only=True)
class Extra:
    """An elementary stream: its PMT entry and the payload of its packets."""

    stream_type: int
    descriptors: bytes = b""
    stream_id: int = 0xBD
    payload: bytes = b""
    """Payload of every PES packet; if empty, the PMT lists the stream but it has no packets."""


TELETEXT: Final = Extra(
    stream_type=6, descriptors=b"\x56\x05deu\x11\x50",
    payload=b"\x10" + (b"\x03\x2c\xe7\xe4" + bytes(42)) * 3,
)  # fmt: skip
ARIB: Final = Extra(
    stream_type=6, descriptors=b"\x52\x01\x30\xfd\x03\x00\x08\x3d",
    payload=b"\x80\xff\xf0" + b"\x00\x00\x00\x00\x06\x3f\x00\x00\x00\x00\x00",
)  # fmt: skip
DVB_SUBTITLE: Final = Extra(
    stream_type=6, descriptors=b"\x59\x08deu\x10\0\1\0\1",
    payload=b"\x20\x00\x0f\x10\x00\x01\x00\x02\x05\x08\x0f\x80\x00\x01\x00\x00\xff",
)  # fmt: skip
KLV: Final = Extra(
    stream_type=6, descriptors=b"\x05\x04KLVA", stream_id=0xFC,
    payload=bytes.fromhex("060e2b34020b01010e01030101000000") + b"\x04abcd",
)  # fmt: skip
TIMED_ID3: Final = Extra(
    stream_type=0x15, descriptors=b"\x26\x0d\xff\xffID3 \xffID3 \0\x0f",
    payload=b"ID3\4\0\0\0\0\0\x0aTXXX\0\0\0\0\0\0",
)  # fmt: skip
SCTE_35: Final = Extra(stream_type=0x86)
UNKNOWN: Final = Extra(stream_type=0x9A)


def _crc(data: bytes) -> bytes:
    """Return MPEG-2's CRC-32 (ISO 13818-1, annex A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return struct.pack(">I", crc)


def with_extra(source: Path, target: Path, *extras: Extra, early_s: float = 0.0) -> Path:
    """Write `source` with added streams; each one's 11th packet is `early_s` seconds early."""
    data, out = source.read_bytes(), bytearray()
    table, pts, written = -1, None, 0
    for count, at in enumerate(range(0, len(data) - _PACKET + 1, _PACKET)):
        packet = data[at : at + _PACKET]
        pid = (packet[1] & 0x1F) << 8 | packet[2]
        if pid == 0:
            table = (packet[15] & 0x1F) << 8 | packet[16]
        if pid == table and packet[1] & 0x40:
            packet = _announced(packet, extras)
        out += packet
        if pid not in (0, 0x11, table) and _pts(packet) is not None:
            pts = _pts(packet)
        if pts is not None and count % _EVERY == 0:
            early = round(early_s * 90_000) if written == 10 else 0
            for k, extra in enumerate(extras):
                if extra.payload:
                    out += _pes(extra, _PID + k, (pts - early) % 2**33, written & 15)
            written += 1
    assert written > 11
    target.write_bytes(bytes(out))
    return target


def _announced(packet: bytes, extras: Sequence[Extra]) -> bytes:
    """Return a PMT packet with the extra streams added."""
    length = (packet[6] & 0xF) << 8 | packet[7]
    section = bytearray(packet[5 : 8 + length - 4])
    for k, extra in enumerate(extras):
        entry = (extra.stream_type, 0xE000 | _PID + k, 0xF000 | len(extra.descriptors))
        section += struct.pack(">BHH", *entry) + extra.descriptors
    section[1:3] = struct.pack(">H", 0xB000 | len(section) + 1)
    whole = packet[:5] + bytes(section) + _crc(bytes(section))
    return whole.ljust(_PACKET, b"\xff")


def _pts(packet: bytes) -> int | None:
    """Return the pts of the PES packet that begins here, or None if there is none."""
    begin = 4 + (packet[4] + 1 if packet[3] & 0x20 else 0)
    if not packet[1] & 0x40 or packet[begin : begin + 3] != b"\0\0\1":
        return None
    if not packet[begin + 7] & 0x80:
        return None
    a, b, c, d, e = packet[begin + 9 : begin + 14]
    return (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1


def _pes(extra: Extra, pid: int, pts: int, counter: int) -> bytes:
    """Return one PES packet in one transport packet, with stuffing before it."""
    stamp = bytes([
        0x21 | pts >> 29 & 0xE, pts >> 22 & 255, 1 | pts >> 14 & 0xFE, pts >> 7 & 255,
        1 | pts << 1 & 0xFE,
    ])  # fmt: skip
    header = 0x24 if extra is TELETEXT else 5  # EN 300 472 requires 36 bytes
    body = stamp.ljust(header, b"\xff") + extra.payload
    pes = b"\0\0\1" + struct.pack(">BHBBB", extra.stream_id, 3 + len(body), 0x84, 0x80, header)
    pes += body
    stuffing = _PACKET - 4 - len(pes)
    field = b"" if not stuffing else bytes([stuffing - 1, 0][:stuffing])
    start = bytes([0x47, 0x40 | pid >> 8, pid & 255, (0x30 if stuffing else 0x10) | counter])
    return start + field.ljust(stuffing, b"\xff") + pes
