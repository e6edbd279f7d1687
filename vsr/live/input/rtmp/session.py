"""Negotiates with an RTMP publisher, and reads the stream that it then sends."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from vsr.errors import InputError, reason
from vsr.live.input.rtmp.address import ListenAddress
from vsr.live.input.rtmp.connection import Connection
from vsr.live.input.rtmp.replay import Replay, is_further_track
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
    parts,
    tag,
)
from vsr.media.location import OPEN_TIMEOUT

_STREAM: Final = 1
"""Stream ID in the answer to `createStream`."""
_LARGEST: Final = 8 << 20
"""Largest message of a publisher, in bytes: a 4K frame takes a tenth of that."""
_GOODBYE_S: Final = 1.0
_SET: Final = b"\x02\x00\x0d@setDataFrame"
_METADATA: Final = b"\x02\x00\x0aonMetaData"
"""First bytes of a stream's metadata, which may follow the command `_SET`."""
_HAS_AUDIO, _HAS_VIDEO, _BOTH = 4, 1, 5
_TELLS_AUDIO: Final = frozenset({"audiocodecid", "audiodatarate", "audiosamplerate", "stereo"})
_TELLS_VIDEO: Final = frozenset({"videocodecid", "videodatarate", "width", "framerate"})
_CODECS: Final = ("avc1", "hvc1", "av01", "vp09")
"""Codecs of Enhanced RTMP that are decoded."""
_COMMANDS: Final = frozenset({COMMAND, COMMAND_AMF3})


class RefusedError(Exception):
    """A publisher was refused; the message contains nothing that it sent."""


def negotiate(
    connection: Connection, place: ListenAddress, claim: Callable[[], bool], deadline: float
) -> None:
    """Answer a peer's commands until it publishes.

    `claim` is called if the key is right; it returns False if another peer publishes already.
    Raises RefusedError, ProtocolError, TimeoutError after `deadline`, OSError.
    """
    connection.handshake(deadline)
    application: str | None = None
    while True:
        name, number, values = _command(connection.message(deadline))
        if name == "connect":
            application = _application(values)
            if not place.holds(application):
                words = "there is no such application"
                connection.say(deadline, "_error", number, None, _status("Connect.Rejected", words))
                raise RefusedError(words)
            connection.accept_terms(deadline)
            granted = _status("Connect.Success", "welcome") | {"objectEncoding": 0.0}
            if isinstance(values[0], dict) and "fourCcList" in values[0]:
                granted |= {"fourCcList": list(_CODECS)}
            connection.say(deadline, "_result", number, {"fmsVer": "FMS/3,0,1,123"}, granted)
        elif application is None:
            raise ProtocolError("a command before it is connected")
        elif name == "createStream":
            connection.say(deadline, "_result", number, None, float(_STREAM))
        elif name in ("releaseStream", "FCPublish"):
            connection.say(deadline, "_result", number, None, None)
        elif name in ("play", "play2"):
            _refuse(
                connection, deadline, "Play.Failed", "this is for a publisher, nobody can watch it"
            )
        elif name == "publish":
            key = values[1] if len(values) > 1 else None
            if not isinstance(key, str) or not place.is_meant(application, key):
                _refuse(connection, deadline, "Publish.BadName", "the stream key is not right")
            if not claim():
                _refuse(connection, deadline, "Publish.BadName", "somebody else is publishing")
            begun = _status("Publish.Start", "publishing")
            connection.say(deadline, "onStatus", 0.0, None, begun, stream=_STREAM)
            return


def _refuse(connection: Connection, deadline: float, code: str, words: str) -> None:
    """Send the reason to the peer and raise RefusedError."""
    connection.say(deadline, "onStatus", 0.0, None, _status(code, words), stream=_STREAM)
    raise RefusedError(words)


def _status(code: str, words: str) -> dict[str, Value]:
    good = code.endswith(("Success", "Start"))
    kind = "NetConnection" if code.startswith("Connect") else "NetStream"
    level = "status" if good else "error"
    return {"level": level, "code": f"{kind}.{code}", "description": words}


def _command(message: Message | None) -> tuple[str, float, list[Value]]:
    """Return name, number and values of a command; the name is empty for other messages."""
    if message is None:
        raise ConnectionResetError("closed before it published")
    if message.kind not in _COMMANDS:
        return "", 0.0, []
    values: list[Value] = [*_values(message), None, None]
    name, number = values[:2]
    if not isinstance(name, str):
        raise ProtocolError("a command without a name")
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

    The stream ends when the publisher leaves, sends no audio and no video for `silence` seconds (at
    the beginning at least `OPEN_TIMEOUT`), violates the protocol, or when `cut` is called. `read`
    then raises one InputError with the reason, and returns no bytes after that.
    """

    def __init__(
        self, connection: Connection, name: str, silence: float, ended: Callable[[], None]
    ) -> None:
        """`ended` is called when the stream has ended and its connection is closed."""
        self._connection, self._name, self._silence = connection, name, silence
        self._ended = ended
        self._ready = bytearray()
        self._replay = Replay()
        self._begun = self._leaving = self._over = False
        self._deadline = time.monotonic() + max(silence, OPEN_TIMEOUT)
        self._renewed = False
        self._read_at = time.monotonic()
        """Time at which the last read ended (s, `time.monotonic`)."""
        connection.reader.most = _LARGEST

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes as soon as some are available; none at the end."""
        if not self._ready and not self._over:
            self._fill()
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    @property
    def changes(self) -> int:
        """Number of changes of its audio codec, which FFmpeg does not report."""
        return self._replay.changes

    def rewind(self) -> tuple[int, int]:
        """Restart the FLV file with headers and all since the last key frame; for its reader.

        Returns how many frames and how many audio packets are repeated at most.
        """
        self._ready.clear()
        self._begun = False
        messages = list(self._replay)
        for message in messages:
            self._put(message, _BOTH)
        count = Counter(message.kind for message in messages)
        return count[VIDEO], count[AUDIO]

    def cut(self) -> None:
        """End the stream and any blocked read. Thread-safe."""
        self._connection.cut()

    def close(self) -> None:
        """Disconnect the publisher; call from the reading thread. Safe to call twice."""
        if not self._over:
            self._over = True
            self._connection.close()
            self._ended()

    def _fill(self) -> None:
        """Receive messages until there are bytes to read. Raises InputError."""
        at = time.monotonic()
        self._deadline += at - self._read_at  # only time spent in reads counts
        if self._renewed:
            self._deadline, self._renewed = at + self._silence, False
        try:
            while not self._ready:
                message = self._connection.message(self._deadline)
                if message is None or self._leaves(message):
                    self._fail("left")
                else:
                    self._take(message)
        except TimeoutError:
            self._fail("left" if self._leaving else f"sent nothing for {self._silence:g} s")
        except ProtocolError as exc:
            self._fail(f"broke the protocol: {exc}")
        except OSError as exc:
            self._fail(f"broke off: {reason(exc)}")
        finally:
            self._read_at = time.monotonic()

    def _fail(self, how: str) -> None:
        self.close()
        raise InputError(f"the publisher of {self._name} {how}") from None

    def _leaves(self, message: Message) -> bool:
        """Return whether a message ends the publishing."""
        if message.kind not in _COMMANDS:
            return False
        try:
            name = _command(message)[0]
        except ProtocolError:  # of an unknown kind
            return False
        if name == "FCUnpublish" and not self._leaving:  # another command or a close follows
            self._leaving = True
            self._deadline = min(self._deadline, time.monotonic() + _GOODBYE_S)
        return name in ("deleteStream", "closeStream")

    def _take(self, message: Message) -> None:
        if message.kind == AGGREGATE:
            for part in parts(message):
                if part.kind in (AUDIO, VIDEO, DATA):
                    self._take(part)
        elif message.kind in (AUDIO, VIDEO) and message.body:
            self._renewed = not self._leaving
            if not is_further_track(message):  # one is read; more would change the stream's codecs
                self._replay.add(message)
                self._put(message, _BOTH)
        elif message.kind in (DATA, DATA_AMF3):
            self._take_data(message)

    def _take_data(self, message: Message) -> None:
        """Pass on the stream's metadata as FLV; FFmpeg would create streams for other data."""
        body = message.body[message.kind == DATA_AMF3 :]
        body = body.removeprefix(_SET)
        if not body.startswith(_METADATA):
            return
        try:
            values = decode(body)
            facts = values[1] if len(values) > 1 else None
        except ProtocolError:  # metadata is optional
            return
        metadata = Message(DATA, message.time, body)
        self._replay.add(metadata)
        self._put(metadata, _kinds(facts))

    def _put(self, message: Message, flags: int) -> None:
        if not self._begun:  # FFmpeg looks for each kind of stream that the header announces
            self._begun = True
            self._ready += b"FLV\x01" + bytes([flags]) + (9).to_bytes(4) + bytes(4)
        self._ready += tag(message)


def _kinds(facts: Value) -> int:
    """Return FLV's flags for the streams that metadata announces; both if it announces none."""
    if not isinstance(facts, dict):
        return _BOTH
    audio = _HAS_AUDIO if facts.get("hasAudio", _TELLS_AUDIO & facts.keys()) else 0
    video = _HAS_VIDEO if facts.get("hasVideo", _TELLS_VIDEO & facts.keys()) else 0
    return audio | video or _BOTH
