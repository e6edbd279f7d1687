"""An RTMP client that sends valid or invalid bytes, and FLV files as RTMP messages."""

import io
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from vsr.live.rtmp.amf import Value, decode, encode
from vsr.live.rtmp.chunks import AUDIO, COMMAND, DATA, VIDEO, ChunkReader, Message

PATIENCE_S = 10.0
HANDSHAKE = 1536


def chunked(message: Message, number: int, size: int, extend_all: bool = True) -> bytes:
    """Encode a message as chunks, the first with a full header; based only on the specification.

    `extend_all`: whether every chunk repeats an extended timestamp, or only the first has it.
    """
    extended = struct.pack(">I", message.time) if message.time >= 0xFFFFFF else b""
    field = min(message.time, 0xFFFFFF)
    head = bytes([number]) + struct.pack(">I", field)[1:]
    head += struct.pack(">I", len(message.body))[1:] + bytes([message.kind])
    head += struct.pack("<I", message.stream) + extended
    more = bytes([0xC0 | number]) + (extended if extend_all else b"")
    pieces = [message.body[k : k + size] for k in range(0, len(message.body), size)] or [b""]
    return head + more.join(pieces)


def flv_of(clip: Path) -> bytes:
    """Return a clip remuxed to FLV by FFmpeg."""
    memory = io.BytesIO()
    with av.open(str(clip)) as source, av.open(memory, "w", format="flv") as out:
        streams = {s.index: out.add_stream_from_template(s, opaque=True) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux_one(packet)
    return memory.getvalue()


def messages_of(flv: bytes, later: int = 0) -> Iterator[Message]:
    """Yield the tags of an FLV file as messages, with `later` ms added to each time."""
    at = 13
    while at < len(flv):
        size = int.from_bytes(flv[at + 1 : at + 4])
        stamp = int.from_bytes(flv[at + 4 : at + 7]) | flv[at + 7] << 24
        body = flv[at + 11 : at + 11 + size]
        if flv[at] == DATA:
            body = encode("@setDataFrame") + body
        if flv[at] in (AUDIO, VIDEO, DATA):
            yield Message(flv[at], stamp + later, body, 1)
        at += 15 + size


@dataclass(frozen=True)
class Answer:
    """A command received from the server."""

    name: str
    code: str
    """Status code; empty if the command has no status."""


class Peer:
    """A connection to a port of this computer; socket operations time out after `PATIENCE_S`."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.reader = ChunkReader(1 << 16)
        self.size = 128

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes unchanged."""
        self.socket.sendall(data)

    def handshake(self) -> None:
        """Run the complete handshake and check the echo."""
        mine = os.urandom(HANDSHAKE)
        self.send(b"\x03" + mine)
        theirs = b""
        while len(theirs) < 1 + 2 * HANDSHAKE:
            theirs += self.socket.recv(1 + 2 * HANDSHAKE - len(theirs))
        assert theirs[0] == 3
        assert theirs[1 + HANDSHAKE :] == mine
        self.send(theirs[1 : 1 + HANDSHAKE])

    def put(self, message: Message, number: int = 4) -> None:
        """Send a message."""
        self.send(chunked(message, number, self.size))

    def command(self, *values: Value, kind: int = COMMAND) -> None:
        """Send a command; an AMF3 command begins with a zero byte."""
        self.put(Message(kind, 0, (b"\0" if kind != COMMAND else b"") + encode(*values)), 3)

    def answer(self, *names: str) -> Answer:
        """Return the next command with one of these names; fail if none arrives."""
        while True:
            name, _, *values = decode(self.await_kind(COMMAND).body)
            status: Any = values[1] if len(values) > 1 else None
            code = status["code"] if isinstance(status, dict) else ""
            if name in names:
                return Answer(str(name), str(code))

    def await_kind(self, kind: int) -> Message:
        """Return the next message of a kind."""
        while True:
            message = self.reader.take()
            if message is None:
                data = self.socket.recv(4096)
                assert data, "closed without an answer"
                self.reader.feed(data)
            elif message.kind == kind:
                return message

    def connect(self, application: str = "live", kind: int = COMMAND) -> Answer:
        """Run the handshake and send `connect`; return the answer."""
        self.handshake()
        self.command("connect", 1.0, {"app": application, "flashVer": "test"}, kind=kind)
        return self.answer("_result", "_error")

    def publish(self, key: str, application: str = "live", kind: int = COMMAND) -> Answer:
        """Run the complete publishing sequence; return the answer to `publish`."""
        assert self.connect(application, kind).code == "NetConnection.Connect.Success"
        self.command("releaseStream", 2.0, None, key, kind=kind)
        self.command("FCPublish", 3.0, None, key, kind=kind)
        self.command("createStream", 4.0, None, kind=kind)
        self.command("publish", 5.0, None, key, "live", kind=kind)
        return self.answer("onStatus")

    def is_closed(self) -> bool:
        """Return whether the other side closes the connection before the timeout."""
        try:
            while self.socket.recv(4096):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


def until(deadline_s: float) -> float:
    """Return the `time.monotonic` value that lies `deadline_s` seconds ahead."""
    return time.monotonic() + deadline_s
