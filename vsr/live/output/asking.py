"""Asks an RTMP server whether it accepts a codec that requires Enhanced RTMP.

Veovera, "Enhanced RTMP" v2: the client's `connect` command lists codecs by FourCC, and a server
that supports them lists them in its reply, as `fourCcList` or `videoFourCcInfoMap`. Other servers
would accept the stream and corrupt it, or disconnect without an error.
"""

import os
import socket
import ssl
import time
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlsplit

from vsr.live.rtmp.amf import ProtocolError, Value, decode, encode
from vsr.live.rtmp.chunks import (
    COMMAND,
    DEFAULT_CHUNK_SIZE,
    HANDSHAKE_BYTES,
    PORTS,
    ChunkReader,
    Message,
    to_chunks,
)

FOURCC: Final = {"hevc": "hvc1", "av1": "av01", "vp9": "vp09"}
"""FFmpeg's names of codecs that need Enhanced RTMP -> their FourCCs."""
_COMMANDS: Final = 3
"""ID of the chunk stream for commands."""
_MOST: Final = 65_536
"""Size limit of a reply, in bytes."""


class NotTakenError(ValueError):
    """Raised if a server does not declare that it accepts a codec."""


def check_taken(url: str, codec: str, protocol: dict[str, str], patience: float) -> None:
    """Raise NotTakenError unless a server declares that it accepts a codec.

    `protocol` has FFmpeg's connection options, of which `tls_verify` and `ca_file` are used.
    Raises OSError, or ProtocolError if the reply is not RTMP, within about `patience` seconds
    each for connecting and for the reply.
    """
    with closing(_connected(url, protocol, patience)) as peer:
        taken = _codecs(_answer(peer, url, time.monotonic() + patience))
    if not taken & {FOURCC[codec], "*"}:
        raise NotTakenError(
            f"the server does not say that it takes {codec} (Enhanced RTMP): use -c h264, or "
            "--enhanced-rtmp if you know that it does"
        )


def _connected(url: str, protocol: dict[str, str], patience: float) -> socket.socket:
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme.lower() == "rtmps"
    port = parts.port or PORTS[parts.scheme.lower()]
    peer = socket.create_connection((host, port), patience)
    if not secure:
        return peer
    context = ssl.create_default_context(cafile=protocol.get("ca_file"))
    if "tls_verify" not in protocol:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return context.wrap_socket(peer, server_hostname=host)
    except OSError:
        peer.close()
        raise


def _answer(peer: socket.socket, url: str, deadline: float) -> list[Value]:
    """Send the RTMP handshake and `connect`; return the values of the reply.

    Raises ProtocolError if the server refuses.
    """
    parts = urlsplit(url)
    application = parts.path.strip("/").rpartition("/")[0]
    peer.sendall(b"\3" + bytes(8) + os.urandom(HANDSHAKE_BYTES - 8))
    theirs = _exactly(peer, 1 + 2 * HANDSHAKE_BYTES, deadline)
    peer.sendall(theirs[1 : 1 + HANDSHAKE_BYTES])
    host = parts.netloc.rpartition("@")[2]
    codecs: list[Value] = list(FOURCC.values())
    facts: dict[str, Value] = {
        "app": application, "type": "nonprivate", "flashVer": "FMLE/3.0 (compatible; vsr)",
        "tcUrl": f"{parts.scheme}://{host}/{application}", "fourCcList": codecs,
    }  # fmt: skip
    body = encode("connect", 1.0, facts)
    peer.sendall(to_chunks(Message(COMMAND, 0, body), _COMMANDS, DEFAULT_CHUNK_SIZE))
    reader = ChunkReader(_MOST)
    while True:
        message = reader.take()
        if message is None:
            reader.feed(_some(peer, _MOST, deadline))
        elif message.kind == COMMAND and (values := decode(message.body)):
            if values[0] == "_result":
                return values
            if values[0] == "_error":
                raise ProtocolError("the server refused the application")


def _codecs(answer: list[Value]) -> set[str]:
    """Return the FourCCs listed in a reply's objects; `*` means all codecs."""
    found: set[str] = set()
    for facts in answer[2:]:
        if isinstance(facts, dict):
            for name in ("fourCcList", "videoFourCcInfoMap"):
                listed: Any = facts.get(name)
                found |= {code for code in listed or () if isinstance(code, str)}
    return found


def _exactly(peer: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        data += _some(peer, size - len(data), deadline)
    return data


def _some(peer: socket.socket, most: int, deadline: float) -> bytes:
    peer.settimeout(max(0.001, deadline - time.monotonic()))
    data = peer.recv(most)
    if not data:
        raise ConnectionResetError("the server closed the connection")
    return data
