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
_COMMAND_STREAM: Final = 3
"""ID of the chunk stream for commands."""
_MAX_REPLY: Final = 65_536
"""Size limit of a reply, in bytes."""


class CodecNotSupportedError(ValueError):
    """Raised if a server does not declare that it accepts a codec."""


def check_codec_support(url: str, codec: str, protocol: dict[str, str], timeout_s: float) -> None:
    """Raise CodecNotSupportedError unless a server declares that it accepts a codec.

    `protocol` has FFmpeg's connection options, of which `tls_verify` and `ca_file` are used.
    Raises OSError, or ProtocolError if the reply is not RTMP, within about `timeout_s` seconds
    each for connecting and for the reply.
    """
    with closing(_connect(url, protocol, timeout_s)) as peer:
        supported = _announced_codecs(_exchange_connect(peer, url, time.monotonic() + timeout_s))
    if not supported & {FOURCC[codec], "*"}:
        raise CodecNotSupportedError(
            f"the server does not announce support for {codec} (Enhanced RTMP): use -c h264, or "
            "--enhanced-rtmp if it does support it"
        )


def _connect(url: str, protocol: dict[str, str], timeout_s: float) -> socket.socket:
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme.lower() == "rtmps"
    port = parts.port or PORTS[parts.scheme.lower()]
    peer = socket.create_connection((host, port), timeout_s)
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


def _exchange_connect(peer: socket.socket, url: str, deadline: float) -> list[Value]:
    """Send the RTMP handshake and `connect`; return the values of the reply.

    Raises ProtocolError if the server refuses.
    """
    parts = urlsplit(url)
    application = parts.path.strip("/").rpartition("/")[0]
    peer.sendall(b"\3" + bytes(8) + os.urandom(HANDSHAKE_BYTES - 8))
    server_handshake = _receive_exactly(peer, 1 + 2 * HANDSHAKE_BYTES, deadline)
    peer.sendall(server_handshake[1 : 1 + HANDSHAKE_BYTES])
    host = parts.netloc.rpartition("@")[2]
    codecs: list[Value] = list(FOURCC.values())
    properties: dict[str, Value] = {
        "app": application, "type": "nonprivate", "flashVer": "FMLE/3.0 (compatible; vsr)",
        "tcUrl": f"{parts.scheme}://{host}/{application}", "fourCcList": codecs,
    }  # fmt: skip
    body = encode("connect", 1.0, properties)
    peer.sendall(to_chunks(Message(COMMAND, 0, body), _COMMAND_STREAM, DEFAULT_CHUNK_SIZE))
    reader = ChunkReader(_MAX_REPLY)
    while True:
        message = reader.take()
        if message is None:
            reader.feed(_receive(peer, _MAX_REPLY, deadline))
        elif message.kind == COMMAND and (values := decode(message.body)):
            if values[0] == "_result":
                return values
            if values[0] == "_error":
                raise ProtocolError("the server refused the application")


def _announced_codecs(reply: list[Value]) -> set[str]:
    """Return the FourCCs listed in a reply's objects; `*` means all codecs."""
    found: set[str] = set()
    for properties in reply[2:]:
        if isinstance(properties, dict):
            for name in ("fourCcList", "videoFourCcInfoMap"):
                listed: Any = properties.get(name)
                found |= {code for code in listed or () if isinstance(code, str)}
    return found


def _receive_exactly(peer: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        data += _receive(peer, size - len(data), deadline)
    return data


def _receive(peer: socket.socket, max_bytes: int, deadline: float) -> bytes:
    peer.settimeout(max(0.001, deadline - time.monotonic()))
    data = peer.recv(max_bytes)
    if not data:
        raise ConnectionResetError("the server closed the connection")
    return data
