"""AMF0, the encoding of RTMP's commands and metadata.

Adobe, "Action Message Format -- AMF 0" (2007). Received bytes are untrusted: for any input, only
ProtocolError is raised.
"""

import struct
from collections.abc import Mapping
from typing import Final

Value = float | bool | str | None | list["Value"] | dict[str, "Value"]

_NUMBER, _BOOLEAN, _STRING, _OBJECT, _NULL, _UNDEFINED = 0, 1, 2, 3, 5, 6
_ECMA_ARRAY, _END, _STRICT_ARRAY, _DATE, _LONG_STRING = 8, 9, 10, 11, 12
_MAX_DEPTH: Final = 16
"""Limit of nested objects; metadata has one or two levels."""
MAX_BYTES: Final = 65_536
"""Largest size of decoded data, in bytes; commands and metadata have a few hundred."""


class ProtocolError(ValueError):
    """A peer sent something that is not RTMP, or exceeds a limit."""


def decode(data: bytes) -> list[Value]:
    """Decode all values in `data`. Raises ProtocolError."""
    if len(data) > MAX_BYTES:
        raise ProtocolError(f"command of {len(data)} bytes is too large")
    reader, values = _Reader(data), []
    while reader.at < len(data):
        values.append(reader.value(_MAX_DEPTH))
    return values


def encode(*values: Value | Mapping[str, Value]) -> bytes:
    """Encode the values one after the other. Strings must be shorter than 64 KiB."""
    return b"".join(map(_encode_value, values))


def _encode_value(value: Value | Mapping[str, Value]) -> bytes:
    if value is None:
        return bytes([_NULL])
    if isinstance(value, bool):
        return bytes([_BOOLEAN, value])
    if isinstance(value, str):
        return bytes([_STRING]) + _encode_text(value)
    if isinstance(value, Mapping):
        inner = b"".join(_encode_text(name) + _encode_value(part) for name, part in value.items())
        return bytes([_OBJECT]) + inner + _encode_text("") + bytes([_END])
    if isinstance(value, list):
        return bytes([_STRICT_ARRAY]) + struct.pack(">I", len(value)) + encode(*value)
    return struct.pack(">Bd", _NUMBER, value)


def _encode_text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack(">H", len(data)) + data


class _Reader:
    """Reads values from the start of `data`; `at` is the position."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def value(self, depth: int) -> Value:
        """Read one value of at most `depth` levels."""
        if depth == 0:
            raise ProtocolError("command is nested too deeply")
        kind = self._number(1)
        if kind in (_NULL, _UNDEFINED):
            return None
        if kind == _BOOLEAN:
            return self._number(1) != 0
        if kind in (_STRING, _LONG_STRING):
            return self._string(2 if kind == _STRING else 4)
        if kind in (_NUMBER, _DATE):
            (number,) = struct.unpack(">d", self._take(8))
            self._take(2 if kind == _DATE else 0)  # its time zone, which is not used
            return float(number)
        if kind in (_OBJECT, _ECMA_ARRAY):
            self._take(4 if kind == _ECMA_ARRAY else 0)  # its size, which is not reliable
            return self._members(depth)
        if kind == _STRICT_ARRAY:
            return [self.value(depth - 1) for _ in range(self._count())]
        raise ProtocolError(f"command has a value of unknown type {kind}")

    def _members(self, depth: int) -> dict[str, Value]:
        members: dict[str, Value] = {}
        while True:
            name = self._string(2)
            if self._data[self.at : self.at + 1] == bytes([_END]):
                self.at += 1
                return members
            members[name] = self.value(depth - 1)

    def _count(self) -> int:
        """Read an array's length; each value takes at least a byte."""
        count = self._number(4)
        if count > len(self._data) - self.at:
            raise ProtocolError("command is truncated")
        return count

    def _string(self, size: int) -> str:
        # bytes that are not UTF-8 are preserved, so that a stream key is compared as it was sent
        return self._take(self._number(size)).decode("utf-8", "surrogateescape")

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size))

    def _take(self, size: int) -> bytes:
        part = self._data[self.at : self.at + size]
        if len(part) < size:
            raise ProtocolError("command is truncated")
        self.at += size
        return part
