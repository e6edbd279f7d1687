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
"""Size of sent chunks, in bytes; FFmpeg adopts the announced size for its own chunks too."""
_WINDOW: Final = 2_500_000
"""Number of bytes between acknowledgements, as in FFmpeg and nginx."""
_CONTROL, _REPLY = 2, 3
"""Chunk streams on which control messages and commands are sent."""
_FAREWELL_S: Final = 1.0
"""Time for a refused peer to read the reason, in seconds; closing at once would discard it."""
_FAREWELL_BYTES: Final = 1 << 20
_TLS: Final = 22
"""First byte of a TLS session, at the position of RTMP's version byte."""
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """Reads and writes one socket. Use from one thread at a time, except `cut` and `progress`."""

    def __init__(
        self, connection: socket.socket, most: int, tls: ssl.SSLContext | None = None
    ) -> None:
        """`most` limits a received message (bytes); `tls` is for rtmps://. Raises OSError."""
        self._tls: ssl.SSLSocket | None = None
        if tls is not None:  # here, because wrapping takes over the socket's file descriptor
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
        """Number of bytes received of the handshake's beginning. Thread-safe."""
        return min(self._received, 1 + HANDSHAKE)

    def handshake(self, deadline: float) -> None:
        """Do the handshakes. Raises ProtocolError, TimeoutError after `deadline`, OSError."""
        if self._tls is not None:
            self._tls.settimeout(max(0.001, deadline - time.monotonic()))
            self._tls.do_handshake()
        version = self._exactly(1, deadline)
        if version[0] == _TLS and self._tls is None:
            raise ProtocolError("it speaks TLS: listen at rtmps:// with --tls-cert for that")
        if version[0] != VERSION:
            raise ProtocolError(f"a first byte of {version[0]} where {VERSION} must be")
        theirs = self._exactly(HANDSHAKE, deadline)
        ours = bytes(8) + os.urandom(HANDSHAKE - 8)  # version 0: no digests
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
        """Abort all blocked and later reads and writes. Thread-safe."""
        with contextlib.suppress(OSError):  # already disconnected
            # not SSLSocket's, after which the reading thread would continue without TLS
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close at once."""
        self.cut()
        self._socket.close()

    def part(self) -> None:
        """Close after the peer has read the last bytes sent; takes at most a second."""
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
