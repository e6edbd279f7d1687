"""An RTMP connection: sends and receives bytes and messages, each with a deadline."""

import contextlib
import os
import socket
import ssl
import time
from typing import Final

from vsr.live.rtmp.amf import ProtocolError, Value, encode
from vsr.live.rtmp.chunks import (
    ACKNOWLEDGEMENT,
    COMMAND,
    FIRST_SIZE,
    HANDSHAKE,
    PEER_BANDWIDTH,
    SET_CHUNK_SIZE,
    WINDOW_SIZE,
    ChunkReader,
    Message,
    chunks,
    window_of,
)

VERSION: Final = 3
_READ: Final = 65_536
_OUR_CHUNKS: Final = 65_536
"""Bytes; FFmpeg takes up the size that it is told for its own chunks too."""
_WINDOW: Final = 2_500_000
"""Bytes between acknowledgements, as FFmpeg and nginx have it."""
_CONTROL, _REPLY = 2, 3
"""Chunk streams of what we say."""
_FAREWELL_S: Final = 1.0
"""For a peer that is refused to read why; closing at once would take the words back."""
_FAREWELL_BYTES: Final = 1 << 20
_TLS: Final = 22
"""The first byte of a TLS session, where RTMP's version would be."""
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """Reads and writes one socket. For one thread at a time, except `cut`."""

    def __init__(
        self, connection: socket.socket, most: int, tls: ssl.SSLContext | None = None
    ) -> None:
        """`most` bounds a message that is read (bytes); `tls` is for rtmps://. Raises OSError."""
        self._tls: ssl.SSLSocket | None = None
        if tls is not None:  # now, for wrapping takes the socket's descriptor from it
            connection = self._tls = tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self._socket = connection
        self.reader = ChunkReader(most)
        self._received = self._acknowledged = 0
        self._window = _WINDOW
        self._unsent = b""

    @property
    def progress(self) -> int:
        """Bytes of the handshake's opening that have come; may be read by any thread."""
        return min(self._received, 1 + HANDSHAKE)

    def handshake(self, deadline: float) -> None:
        """Raises ProtocolError, TimeoutError after `deadline`, OSError."""
        if self._tls is not None:
            self._tls.settimeout(max(0.001, deadline - time.monotonic()))
            self._tls.do_handshake()
        version = self._exactly(1, deadline)
        if version[0] == _TLS and self._tls is None:
            raise ProtocolError("it speaks TLS: listen at rtmps:// with --tls-cert for that")
        if version[0] != VERSION:
            raise ProtocolError(f"a first byte of {version[0]} where {VERSION} must be")
        theirs = self._exactly(HANDSHAKE, deadline)
        ours = bytes(8) + os.urandom(HANDSHAKE - 8)  # no version: the handshake has no digests
        self.send(bytes([VERSION]) + ours + theirs, deadline)
        self._exactly(HANDSHAKE, deadline)

    def accept_terms(self, deadline: float) -> None:
        """Send the messages that precede the answer to a publisher's first command."""
        window = _WINDOW.to_bytes(4)
        for kind, body in (
            (WINDOW_SIZE, window),
            (PEER_BANDWIDTH, window + b"\2"),
            (SET_CHUNK_SIZE, _OUR_CHUNKS.to_bytes(4)),
        ):
            self.send(chunks(Message(kind, 0, body), _CONTROL, FIRST_SIZE), deadline)

    def say(self, deadline: float, *values: Value, stream: int = 0) -> None:
        """Send a command."""
        message = Message(COMMAND, 0, encode(*values), stream)
        self.send(chunks(message, _REPLY, _OUR_CHUNKS), deadline)

    def message(self, deadline: float) -> Message | None:
        """Return the next message; None when the peer has closed.

        Raises ProtocolError, TimeoutError after `deadline` (of `time.monotonic`), OSError.
        """
        while True:
            message = self.reader.take()
            if message is None:
                data = self._receive(_READ, deadline)
                if not data:
                    return None
                self.reader.feed(data)
                self._acknowledge()
            elif message.kind == WINDOW_SIZE:
                self._window = max(1, min(window_of(message), _WINDOW))
            else:
                return message

    def send(self, data: bytes, deadline: float) -> None:
        """Send all bytes. Raises TimeoutError after `deadline`, OSError."""
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        self._socket.sendall(data)

    def cut(self) -> None:
        """End all reads and writes, waiting and later ones; from any thread."""
        with contextlib.suppress(OSError):  # it has ended by itself
            # not TLS's own, which would have the reading thread go on without TLS
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close at once."""
        self.cut()
        self._socket.close()

    def part(self) -> None:
        """Close after the peer has read what was sent last; takes at most a second."""
        deadline, left = time.monotonic() + _FAREWELL_S, _FAREWELL_BYTES
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            while left > 0 and (data := self._receive(_READ, deadline)):
                left -= len(data)
        self.close()

    def _exactly(self, size: int, deadline: float) -> bytes:
        data = b""
        while len(data) < size:
            part = self._receive(size - len(data), deadline)
            if not part:
                raise ConnectionResetError("closed within the handshake")
            data += part
        return data

    def _receive(self, size: int, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        data = self._socket.recv(size)
        self._received += len(data)
        return data

    def _acknowledge(self) -> None:
        """Acknowledge received bytes without waiting for a publisher that does not read."""
        if self._received - self._acknowledged >= self._window and not self._unsent:
            count = (self._received & 0xFFFF_FFFF).to_bytes(4)
            self._unsent = chunks(Message(ACKNOWLEDGEMENT, 0, count), _CONTROL, FIRST_SIZE)
            self._acknowledged = self._received
        if self._unsent:
            self._socket.settimeout(0)
            with contextlib.suppress(*_NOT_NOW):
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
