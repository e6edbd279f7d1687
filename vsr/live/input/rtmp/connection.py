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
    DEFAULT_CHUNK_SIZE,
    HANDSHAKE_BYTES,
    PEER_BANDWIDTH,
    SET_CHUNK_SIZE,
    WINDOW_SIZE,
    ChunkReader,
    Message,
    to_chunks,
    window_of,
)

VERSION: Final = 3
_READ_BYTES: Final = 65_536
_CHUNK_SIZE: Final = 65_536
"""Size of sent chunks, in bytes; FFmpeg adopts the announced size for its own chunks too."""
_ACK_WINDOW: Final = 2_500_000
"""Number of bytes between acknowledgements, as in FFmpeg and nginx."""
_CONTROL_STREAM, _COMMAND_STREAM = 2, 3
"""Chunk streams on which control messages and commands are sent."""
_CLOSE_TIMEOUT_S: Final = 1.0
"""Time for a refused peer to read the reason, in seconds; closing at once would discard it."""
_MAX_CLOSE_BYTES: Final = 1 << 20
_TLS_HANDSHAKE: Final = 22
"""First byte of a TLS session, at the position of RTMP's version byte."""
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """Reads and writes one socket.

    Use from one thread at a time, except `abort` and `handshake_bytes`.
    """

    def __init__(
        self, connection: socket.socket, max_bytes: int, tls: ssl.SSLContext | None = None
    ) -> None:
        """`max_bytes` limits a received message (bytes); `tls` is for rtmps://. Raises OSError."""
        self._tls: ssl.SSLSocket | None = None
        if tls is not None:  # here, because wrapping takes over the socket's file descriptor
            connection = self._tls = tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self._socket = connection
        self.reader = ChunkReader(max_bytes)
        self._received = self._acknowledged = 0
        self._window = _ACK_WINDOW
        self._unsent_ack = b""

    @property
    def handshake_bytes(self) -> int:
        """Number of bytes received of the handshake's beginning. Thread-safe."""
        return min(self._received, 1 + HANDSHAKE_BYTES)

    def handshake(self, deadline: float) -> None:
        """Do the handshakes. Raises ProtocolError, TimeoutError after `deadline`, OSError."""
        if self._tls is not None:
            self._tls.settimeout(max(0.001, deadline - time.monotonic()))
            self._tls.do_handshake()
        version = self._receive_exactly(1, deadline)
        if version[0] == _TLS_HANDSHAKE and self._tls is None:
            raise ProtocolError("the client uses TLS: listen at rtmps:// with --tls-cert")
        if version[0] != VERSION:
            raise ProtocolError(f"RTMP version byte is {version[0]}, expected {VERSION}")
        theirs = self._receive_exactly(HANDSHAKE_BYTES, deadline)
        ours = bytes(8) + os.urandom(HANDSHAKE_BYTES - 8)  # version 0: no digests
        self.send(bytes([VERSION]) + ours + theirs, deadline)
        self._receive_exactly(HANDSHAKE_BYTES, deadline)

    def send_connect_replies(self, deadline: float) -> None:
        """Send the messages that precede the answer to a publisher's first command."""
        window = _ACK_WINDOW.to_bytes(4)
        for kind, body in (
            (WINDOW_SIZE, window),
            (PEER_BANDWIDTH, window + b"\2"),
            (SET_CHUNK_SIZE, _CHUNK_SIZE.to_bytes(4)),
        ):
            self.send(
                to_chunks(Message(kind, 0, body), _CONTROL_STREAM, DEFAULT_CHUNK_SIZE), deadline
            )

    def send_command(self, deadline: float, *values: Value, stream: int = 0) -> None:
        """Send a command."""
        message = Message(COMMAND, 0, encode(*values), stream)
        self.send(to_chunks(message, _COMMAND_STREAM, _CHUNK_SIZE), deadline)

    def receive(self, deadline: float) -> Message | None:
        """Return the next message; None when the peer has closed.

        Raises ProtocolError, TimeoutError after `deadline` (of `time.monotonic`), OSError.
        """
        while True:
            message = self.reader.take()
            if message is None:
                data = self._receive_some(_READ_BYTES, deadline)
                if not data:
                    return None
                self.reader.feed(data)
                self._acknowledge()
            elif message.kind == WINDOW_SIZE:
                self._window = max(1, min(window_of(message), _ACK_WINDOW))
            else:
                return message

    def send(self, data: bytes, deadline: float) -> None:
        """Send all bytes. Raises TimeoutError after `deadline`, OSError."""
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        self._socket.sendall(data)

    def abort(self) -> None:
        """Abort all blocked and later reads and writes. Thread-safe."""
        with contextlib.suppress(OSError):  # already disconnected
            # not SSLSocket's, after which the reading thread would continue without TLS
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close at once."""
        self.abort()
        self._socket.close()

    def close_gracefully(self) -> None:
        """Close after the peer has read the last bytes sent; takes at most a second."""
        deadline, left = time.monotonic() + _CLOSE_TIMEOUT_S, _MAX_CLOSE_BYTES
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            while left > 0 and (data := self._receive_some(_READ_BYTES, deadline)):
                left -= len(data)
        self.close()

    def _receive_exactly(self, size: int, deadline: float) -> bytes:
        data = b""
        while len(data) < size:
            part = self._receive_some(size - len(data), deadline)
            if not part:
                raise ConnectionResetError("closed during the handshake")
            data += part
        return data

    def _receive_some(self, size: int, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        data = self._socket.recv(size)
        self._received += len(data)
        return data

    def _acknowledge(self) -> None:
        """Acknowledge received bytes without waiting for a publisher that does not read."""
        if self._received - self._acknowledged >= self._window and not self._unsent_ack:
            count = (self._received & 0xFFFF_FFFF).to_bytes(4)
            self._unsent_ack = to_chunks(
                Message(ACKNOWLEDGEMENT, 0, count), _CONTROL_STREAM, DEFAULT_CHUNK_SIZE
            )
            self._acknowledged = self._received
        if self._unsent_ack:
            self._socket.settimeout(0)
            with contextlib.suppress(*_WOULD_BLOCK):
                self._unsent_ack = self._unsent_ack[self._socket.send(self._unsent_ack) :]
