"""Negotiates with an RTMP publisher, and reads the stream that it then sends."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from vsr.errors import InputError, reason
from vsr.live.input.rtmp.address import ListenAddress
from vsr.live.input.rtmp.connection import Connection
from vsr.live.input.rtmp.replay import ReplayBuffer, is_additional_track
from vsr.live.rtmp.amf import ProtocolError, Value, decode
from vsr.live.rtmp.chunks import (
    AGGREGATE,
    AUDIO,
    COMMAND,
    COMMAND_AMF3,
    DATA,
    DATA_AMF3,
    VIDEO,
    Message,
    flv_tag,
    split_aggregate,
)
from vsr.media.opening import OPEN_TIMEOUT

_STREAM: Final = 1
"""Stream ID in the answer to `createStream`."""
_MAX_MESSAGE_BYTES: Final = 8 << 20
"""Largest message of a publisher, in bytes: a 4K frame takes a tenth of that."""
_UNPUBLISH_TIMEOUT_S: Final = 1.0
_SET_DATA_FRAME: Final = b"\x02\x00\x0d@setDataFrame"
_METADATA: Final = b"\x02\x00\x0aonMetaData"
"""First bytes of a stream's metadata, which may follow the command `_SET_DATA_FRAME`."""
_HAS_AUDIO, _HAS_VIDEO, _BOTH = 4, 1, 5
_AUDIO_KEYS: Final = frozenset({"audiocodecid", "audiodatarate", "audiosamplerate", "stereo"})
_VIDEO_KEYS: Final = frozenset({"videocodecid", "videodatarate", "width", "framerate"})
_CODECS: Final = ("avc1", "hvc1", "av01", "vp09")
"""Codecs of Enhanced RTMP that are decoded."""
_COMMANDS: Final = frozenset({COMMAND, COMMAND_AMF3})


class RefusedError(Exception):
    """A publisher was refused; the message contains nothing that it sent."""


def negotiate(
    connection: Connection, address: ListenAddress, claim: Callable[[], bool], deadline: float
) -> None:
    """Answer a peer's commands until it publishes.

    `claim` is called if the key is right; it returns False if another peer publishes already.
    Raises RefusedError, ProtocolError, TimeoutError after `deadline`, OSError.
    """
    connection.handshake(deadline)
    application: str | None = None
    while True:
        name, number, values = _command(connection.receive(deadline))
        if name == "connect":
            application = _application(values)
            if not address.may_match(application):
                why = "unknown application"
                connection.send_command(
                    deadline, "_error", number, None, _status("Connect.Rejected", why)
                )
                raise RefusedError(why)
            connection.send_connect_replies(deadline)
            granted = _status("Connect.Success", "welcome") | {"objectEncoding": 0.0}
            if isinstance(values[0], dict) and "fourCcList" in values[0]:
                granted |= {"fourCcList": list(_CODECS)}
            connection.send_command(
                deadline, "_result", number, {"fmsVer": "FMS/3,0,1,123"}, granted
            )
        elif application is None:
            raise ProtocolError("command before connect")
        elif name == "createStream":
            connection.send_command(deadline, "_result", number, None, float(_STREAM))
        elif name in ("releaseStream", "FCPublish"):
            connection.send_command(deadline, "_result", number, None, None)
        elif name in ("play", "play2"):
            _refuse(
                connection, deadline, "Play.Failed", "playback is not supported, only publishing"
            )
        elif name == "publish":
            key = values[1] if len(values) > 1 else None
            if not isinstance(key, str) or not address.matches(application, key):
                _refuse(connection, deadline, "Publish.BadName", "wrong stream key")
            if not claim():
                _refuse(connection, deadline, "Publish.BadName", "another publisher is connected")
            begun = _status("Publish.Start", "publishing")
            connection.send_command(deadline, "onStatus", 0.0, None, begun, stream=_STREAM)
            return


def _refuse(connection: Connection, deadline: float, code: str, why: str) -> None:
    """Send the reason to the peer and raise RefusedError."""
    connection.send_command(deadline, "onStatus", 0.0, None, _status(code, why), stream=_STREAM)
    raise RefusedError(why)


def _status(code: str, why: str) -> dict[str, Value]:
    good = code.endswith(("Success", "Start"))
    kind = "NetConnection" if code.startswith("Connect") else "NetStream"
    level = "status" if good else "error"
    return {"level": level, "code": f"{kind}.{code}", "description": why}


def _command(message: Message | None) -> tuple[str, float, list[Value]]:
    """Return name, number and values of a command; the name is empty for other messages."""
    if message is None:
        raise ConnectionResetError("closed before publishing")
    if message.kind not in _COMMANDS:
        return "", 0.0, []
    values: list[Value] = [*_values(message), None, None]
    name, number = values[:2]
    if not isinstance(name, str):
        raise ProtocolError("command without a name")
    return name, number if isinstance(number, float) else 0.0, values[2:]


def _values(message: Message) -> list[Value]:
    # AMF3 messages begin with a zero byte; the rest is AMF0
    return decode(message.body[message.kind in (COMMAND_AMF3, DATA_AMF3) :])


def _application(values: list[Value]) -> str:
    given = values[0]
    application = given.get("app") if isinstance(given, dict) else None
    return application if isinstance(application, str) else ""


class PublishedStream:
    """A publisher's stream as a growing FLV file; call `read` from one thread.

    The stream ends when the publisher leaves, sends no audio and no video for `timeout_s` (s; at
    the beginning at least `OPEN_TIMEOUT`), violates the protocol, or when `abort` is called. `read`
    then raises one InputError with the reason, and returns no bytes after that.
    """

    def __init__(
        self, connection: Connection, name: str, timeout_s: float, on_end: Callable[[], None]
    ) -> None:
        """`on_end` is called when the stream has ended and its connection is closed."""
        self._connection, self._name, self._timeout_s = connection, name, timeout_s
        self._on_end = on_end
        self._buffer = bytearray()
        self._replay = ReplayBuffer()
        self._has_header = self._leaving = self._is_closed = False
        self._deadline = time.monotonic() + max(timeout_s, OPEN_TIMEOUT)
        self._has_new_data = False
        self._read_at = time.monotonic()
        """Time at which the last read ended (s, `time.monotonic`)."""
        connection.reader.max_bytes = _MAX_MESSAGE_BYTES

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes as soon as some are available; none at the end."""
        if not self._buffer and not self._is_closed:
            self._receive()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    @property
    def audio_codec_changes(self) -> int:
        """Number of changes of its audio codec, which FFmpeg does not report."""
        return self._replay.audio_codec_changes

    def rewind(self) -> tuple[int, int]:
        """Restart the FLV file with headers and all since the last key frame; for its reader.

        Returns how many frames and how many audio packets are repeated at most.
        """
        self._buffer.clear()
        self._has_header = False
        messages = list(self._replay)
        for message in messages:
            self._write_tag(message, _BOTH)
        count = Counter(message.kind for message in messages)
        return count[VIDEO], count[AUDIO]

    def abort(self) -> None:
        """End the stream and any blocked read. Thread-safe."""
        self._connection.abort()

    def close(self) -> None:
        """Disconnect the publisher; call from the reading thread. Safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            self._connection.close()
            self._on_end()

    def _receive(self) -> None:
        """Receive messages until there are bytes to read. Raises InputError."""
        at = time.monotonic()
        self._deadline += at - self._read_at  # only time spent in reads counts
        if self._has_new_data:
            self._deadline, self._has_new_data = at + self._timeout_s, False
        try:
            while not self._buffer:
                message = self._connection.receive(self._deadline)
                if message is None or self._ends_publishing(message):
                    self._fail("disconnected")
                else:
                    self._process(message)
        except TimeoutError:
            self._fail(
                "disconnected" if self._leaving else f"sent no data for {self._timeout_s:g} s"
            )
        except ProtocolError as exc:
            self._fail(f"violated the RTMP protocol: {exc}")
        except OSError as exc:
            self._fail(f"disconnected: {reason(exc)}")
        finally:
            self._read_at = time.monotonic()

    def _fail(self, how: str) -> None:
        self.close()
        raise InputError(f"the publisher of {self._name} {how}") from None

    def _ends_publishing(self, message: Message) -> bool:
        """Return whether a message ends the publishing."""
        if message.kind not in _COMMANDS:
            return False
        try:
            name = _command(message)[0]
        except ProtocolError:  # of an unknown kind
            return False
        if name == "FCUnpublish" and not self._leaving:  # another command or a close follows
            self._leaving = True
            self._deadline = min(self._deadline, time.monotonic() + _UNPUBLISH_TIMEOUT_S)
        return name in ("deleteStream", "closeStream")

    def _process(self, message: Message) -> None:
        if message.kind == AGGREGATE:
            for part in split_aggregate(message):
                if part.kind in (AUDIO, VIDEO, DATA):
                    self._process(part)
        elif message.kind in (AUDIO, VIDEO) and message.body:
            self._has_new_data = not self._leaving
            if not is_additional_track(message):  # only the first track of a kind is read
                self._replay.add(message)
                self._write_tag(message, _BOTH)
        elif message.kind in (DATA, DATA_AMF3):
            self._process_data(message)

    def _process_data(self, message: Message) -> None:
        """Pass on the stream's metadata as FLV; FFmpeg would create streams for other data."""
        body = message.body[message.kind == DATA_AMF3 :]
        body = body.removeprefix(_SET_DATA_FRAME)
        if not body.startswith(_METADATA):
            return
        try:
            values = decode(body)
            metadata_values = values[1] if len(values) > 1 else None
        except ProtocolError:  # metadata is optional
            return
        metadata = Message(DATA, message.time, body)
        self._replay.add(metadata)
        self._write_tag(metadata, _kinds(metadata_values))

    def _write_tag(self, message: Message, flags: int) -> None:
        if not self._has_header:  # FFmpeg looks for each kind of stream that the header announces
            self._has_header = True
            self._buffer += b"FLV\x01" + bytes([flags]) + (9).to_bytes(4) + bytes(4)
        self._buffer += flv_tag(message)


def _kinds(metadata_values: Value) -> int:
    """Return FLV's flags for the streams that metadata announces; both if it announces none."""
    if not isinstance(metadata_values, dict):
        return _BOTH
    audio = (
        _HAS_AUDIO if metadata_values.get("hasAudio", _AUDIO_KEYS & metadata_values.keys()) else 0
    )
    video = (
        _HAS_VIDEO if metadata_values.get("hasVideo", _VIDEO_KEYS & metadata_values.keys()) else 0
    )
    return audio | video or _BOTH
