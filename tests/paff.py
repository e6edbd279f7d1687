"""Encodes H.264 whose pictures are coded as two fields or as one frame (PAFF).

No available encoder makes field pictures. All macroblocks are I_PCM, uncompressed samples, so
that only the headers of ITU-T H.264, 7.3, need to be written.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt

Luma = npt.NDArray[np.uint8]
_BLOCK: Final = 16
_CHROMA: Final = bytes([128]) * 128
_START: Final = b"\0\0\0\1"
CLOCK: Final = 90_000
RATE: Final = 25
"""Pictures per second."""


class _Bits:
    def __init__(self) -> None:
        self.data, self._text = bytearray(), ""

    def put(self, value: int, length: int = 1) -> "_Bits":
        self._text += format(value, f"0{length}b")
        return self

    def golomb(self, *values: int) -> "_Bits":
        for value in values:
            word = format(value + 1, "b")
            self._text += "0" * (len(word) - 1) + word
        return self

    def aligned(self, fill: str = "0") -> "_Bits":
        text = self._text + fill * (-len(self._text) % 8)
        self.data += int(text, 2).to_bytes(len(text) // 8, "big") if text else b""
        self._text = ""
        return self

    def ended(self) -> bytes:
        self.put(1).aligned()
        return bytes(self.data)


def _unit(kind: int, payload: bytes, importance: int = 3) -> bytes:
    escaped = re.sub(b"\0\0(?=[\0\1\2\3])", b"\0\0\3", payload)
    return _START + bytes([importance << 5 | kind]) + escaped


def _headers(width: int, height: int, rate: int) -> bytes:
    sequence = _Bits().put(77, 8).put(0, 8).put(30, 8)  # Main, level 3
    sequence.golomb(0, 0, 2, 1)  # id, bits of frame_num, pic_order_cnt_type, reference frames
    sequence.put(0).golomb(width // _BLOCK - 1, height // _BLOCK // 2 - 1)
    sequence.put(0).put(0).put(1).put(0).put(1)  # not frames only, no MBAFF, 8x8, no crop; VUI:
    sequence.put(0, 4).put(1).put(1, 32).put(2 * rate, 32).put(1).put(0, 4)  # field rate
    picture = _Bits().golomb(0, 0).put(0).put(0).golomb(0, 0, 0)
    picture.put(0).put(0, 2).golomb(0, 0, 0).put(0).put(0).put(0)
    return _unit(7, sequence.ended()) + _unit(8, picture.ended())


def _slice(luma: Luma, number: int, field: int | None, key: bool) -> bytes:
    """Encode a picture as one slice; `field`: 0 upper, 1 lower, None for a frame."""
    bits = _Bits().golomb(0, 7, 0).put(number % 16, 4).put(field is not None)
    if field is not None:
        bits.put(field)
    if key:
        bits.golomb(0).put(0).put(0)
    else:
        bits.put(0)
    bits.golomb(0)  # slice_qp_delta
    for y in range(0, luma.shape[0], _BLOCK):
        for x in range(0, luma.shape[1], _BLOCK):
            bits.golomb(25).aligned()
            bits.data += luma[y : y + _BLOCK, x : x + _BLOCK].tobytes() + _CHROMA
    return _unit(5 if key else 1, bits.ended())


def pictures(
    woven: Sequence[Luma], as_fields: Sequence[bool], lower_first: bool = False
) -> Iterator[list[bytes]]:
    """Yield the access units of each picture: one frame, or two fields in display order."""
    for number, (luma, split) in enumerate(zip(woven, as_fields, strict=True)):
        head = b"\0\0\0\1\x09\x10"  # access unit delimiter
        if number == 0:
            head += _headers(luma.shape[1], luma.shape[0], RATE)
        if not split:
            yield [head + _slice(luma, number, None, number == 0)]
            continue
        order = (1, 0) if lower_first else (0, 1)
        first, second = (
            _slice(np.ascontiguousarray(luma[f::2]), number, f, number == 0 and f == order[0])
            for f in order
        )
        yield [head + first, b"\0\0\0\1\x09\x10" + second]


def write(path: Path, units: Sequence[Sequence[bytes]], joined: bool = False) -> Path:
    """Write pictures into a container: a packet per field, or per picture as MP4 requires.

    The second field's timestamps are half a picture later.
    """
    step = CLOCK // RATE
    raw = path.with_suffix(".h264")
    raw.write_bytes(b"".join(b"".join(picture) for picture in units))
    with av.open(str(raw)) as source, av.open(str(path), "w") as out:
        stream: Any = out.add_stream_from_template(source.streams.video[0])
        stream.time_base = Fraction(1, CLOCK)
        for number, picture in enumerate(units):
            parts = [b"".join(picture)] if joined else picture
            for k, data in enumerate(parts):
                packet: Any = av.Packet(data)
                packet.stream, packet.time_base = stream, Fraction(1, CLOCK)
                packet.pts = packet.dts = number * step + k * step // 2
                packet.duration = step // len(parts)
                packet.is_keyframe = number == 0 and k == 0
                out.mux(packet)
    return path
