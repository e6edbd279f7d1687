"""RTMP messages and the chunks that carry them: a reader, writers and shared constants.

Adobe, "RTMP specification 1.0" (2012), sections 5.3 and 5.4. It does no input or output. Received
bytes are untrusted: for any input, only ProtocolError is raised, and the memory is bounded.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vsr.live.rtmp.amf import ProtocolError

SET_CHUNK_SIZE, ABORT, ACKNOWLEDGEMENT, USER_CONTROL, WINDOW_SIZE, PEER_BANDWIDTH = range(1, 7)
AUDIO, VIDEO, DATA_AMF3, COMMAND_AMF3, DATA, COMMAND, AGGREGATE = 8, 9, 15, 17, 18, 20, 22

PORTS: Final = {"rtmp": 1935, "rtmps": 443}
"""Default ports by scheme."""
HANDSHAKE_BYTES: Final = 1536
"""Size of each part of the handshake except the version byte, in bytes."""
DEFAULT_CHUNK_SIZE: Final = 128
"""Default chunk size in bytes, until a peer sets another one."""
_EXTENDED_TIME: Final = 0xFF_FFFF
"""Value of the time field if the time follows in four extra bytes."""
_HEADER_SIZES: Final = (11, 7, 3, 0)
"""Size of a chunk's message header in bytes, by its format (0 to 3)."""
_MAX_CHUNK_STREAMS: Final = 64
"""Limit of chunk streams; publishers use three to six."""
_TAG_HEADER_BYTES: Final = 11
"""Size of the header before the body of an FLV tag, in bytes; four more follow the body."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `time` is in ms, modulo 2**32."""

    kind: int
    time: int
    body: bytes
    stream: int = 0


class _Incomplete(Exception):  # noqa: N818 - it never leaves this module
    """More bytes are needed."""


@dataclass(slots=True)
class _Header:
    """Fields of a chunk stream's last message, which later chunks inherit."""

    field: int
    """Time as sent: relative to the previous message, or absolute for format 0."""
    time: int
    length: int
    kind: int
    stream: int
    extended: bytes
    """The four bytes of an extended time, or empty."""


class ChunkReader:
    """Assembles messages from chunks. For one thread."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` limits a message, and the total of all incomplete messages (bytes)."""
        self.max_bytes = max_bytes
        self._buffer = bytearray()
        self._headers: dict[int, _Header] = {}
        self._bodies: dict[int, bytearray] = {}
        """Received bytes of incomplete messages, by chunk stream."""
        self._chunk_size = DEFAULT_CHUNK_SIZE
        self._position = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes; call `take` until it returns None."""
        self._buffer += data

    def take(self) -> Message | None:
        """Return the next complete message; None if more bytes are needed. Raises ProtocolError.

        Messages that control the chunks themselves are applied, and not returned.
        """
        while True:
            try:
                message = self._chunk()
            except _Incomplete:
                return None
            if message is None:
                continue
            if message.kind == SET_CHUNK_SIZE:
                self._chunk_size = _positive(message, "chunk size")
            elif message.kind == ABORT:
                self._bodies.pop(_number(message), None)
            else:
                return message

    def _chunk(self) -> Message | None:
        """Read one whole chunk and return the message that it completes, if any."""
        self._position = 0
        format_, number = self._basic_header()
        before = self._headers.get(number)
        header = self._message_header(format_, before)
        body = self._bodies.get(number)
        if body is None or format_ < 3:  # a new message: an incomplete one is discarded
            body = bytearray()
            header.time = header.field
            if format_ > 0 and before is not None:
                header.time = (before.time + header.field) & 0xFFFF_FFFF
        size = min(self._chunk_size, header.length - len(body))
        if header.length > self.max_bytes:
            raise ProtocolError(f"message of {header.length} bytes is too large")
        if before is None and len(self._headers) == _MAX_CHUNK_STREAMS:
            raise ProtocolError(f"more than {_MAX_CHUNK_STREAMS} chunk streams")
        end = self._position + size
        if len(self._buffer) < end:
            raise _Incomplete
        body += self._buffer[self._position : end]
        del self._buffer[:end]
        self._headers[number] = header
        if len(body) == header.length:
            self._bodies.pop(number, None)
            return Message(header.kind, header.time, bytes(body), header.stream)
        self._bodies[number] = body
        if sum(map(len, self._bodies.values())) > self.max_bytes:
            raise ProtocolError(f"incomplete messages exceed {self.max_bytes} bytes")
        return None

    def _basic_header(self) -> tuple[int, int]:
        """Read a chunk's format and the number of its stream."""
        first = self._number(1)
        format_, number = first >> 6, first & 63
        if number == 0:
            number = 64 + self._number(1)
        elif number == 1:
            number = 64 + int.from_bytes(self._take(2), "little")
        return format_, number

    def _message_header(self, format_: int, before: _Header | None) -> _Header:
        """Read a chunk's header; missing fields are taken from the previous chunk's."""
        fields = self._take(_HEADER_SIZES[format_])
        if before is None:
            if format_ > 1:
                raise ProtocolError("continuation chunk without a previous message")
            before = _Header(0, 0, 0, 0, 0, b"")
        if format_ == 3:
            # all chunks of a message repeat an extended time; some senders send it in the first
            extended = before.extended
            if extended and self._peek(4) == extended:
                self._position += 4
            return _Header(
                before.field, before.time, before.length, before.kind, before.stream, extended
            )
        field, extended = int.from_bytes(fields[:3]), b""
        if field == _EXTENDED_TIME:
            extended = self._take(4)
            field = int.from_bytes(extended)
        length, kind, stream = before.length, before.kind, before.stream
        if format_ < 2:
            length, kind = int.from_bytes(fields[3:6]), fields[6]
        if format_ == 0:
            stream = int.from_bytes(fields[7:], "little")
        return _Header(field, before.time, length, kind, stream, extended)

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size))

    def _take(self, size: int) -> bytes:
        part = self._peek(size)
        self._position += size
        return part

    def _peek(self, size: int) -> bytes:
        part = bytes(self._buffer[self._position : self._position + size])
        if len(part) < size:
            raise _Incomplete
        return part


def _number(message: Message) -> int:
    if len(message.body) < 4:
        raise ProtocolError("control message is truncated")
    return int.from_bytes(message.body[:4])


def _positive(message: Message, name: str) -> int:
    number = _number(message)
    if not 0 < number < 1 << 31:
        raise ProtocolError(f"{name} of {number} bytes is out of range")
    return number


def window_of(message: Message) -> int:
    """Return the byte count after which a peer expects an acknowledgement. Raises ProtocolError."""
    return _positive(message, "acknowledgement window")


def to_chunks(message: Message, number: int, size: int) -> bytes:
    """Split a message into chunks of at most `size` bytes on chunk stream `number` (2 to 63).

    The message's time must be less than 2**24 - 1 ms.
    """
    head = bytes([number]) + message.time.to_bytes(3) + len(message.body).to_bytes(3)
    head += bytes([message.kind]) + message.stream.to_bytes(4, "little")
    parts = [message.body[k : k + size] for k in range(0, len(message.body), size)]
    return head + bytes([3 << 6 | number]).join(parts)


def flv_tag(message: Message) -> bytes:
    """Convert an audio, video or data message to an FLV tag with its trailing size."""
    low, high = message.time & 0xFF_FFFF, message.time >> 24
    size = len(message.body)
    head = bytes([message.kind]) + size.to_bytes(3) + low.to_bytes(3) + bytes([high, 0, 0, 0])
    return head + message.body + struct.pack(">I", _TAG_HEADER_BYTES + size)


def split_aggregate(aggregate: Message) -> Iterator[Message]:
    """Split an AGGREGATE message into its messages. Raises ProtocolError."""
    data, at, offset = aggregate.body, 0, None
    while at < len(data):
        head = data[at : at + _TAG_HEADER_BYTES]
        end = at + _TAG_HEADER_BYTES + int.from_bytes(head[1:4])
        if len(head) < _TAG_HEADER_BYTES or end > len(data):
            raise ProtocolError("aggregate message is truncated")
        time = int.from_bytes(head[4:7]) | head[7] << 24
        offset = aggregate.time - time if offset is None else offset
        yield Message(head[0], (time + offset) & 0xFFFF_FFFF, data[at + _TAG_HEADER_BYTES : end])
        at = end + 4
