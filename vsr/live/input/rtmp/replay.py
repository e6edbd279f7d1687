"""Keeps the messages that a demuxer needs first if it joins a publisher's stream midway.

Byte layouts: Adobe, "Video File Format Specification" 10.1, E.4.2 and E.4.3; Veovera, "Enhanced
RTMP" v2, for bodies that begin with the extended header.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vsr.live.rtmp.chunks import AUDIO, DATA, VIDEO, Message

_MOST: Final = 16 << 20
"""Limit of the bytes kept since a key frame: over 20 s at 6 Mbit/s."""
_AAC, _AVC, _HEVC = 10, 7, 12
"""FLV codec numbers whose bodies distinguish headers from frames in the second byte."""
_EX_AUDIO: Final = 9
"""The sound format of extended bodies."""
_EX_VIDEO: Final = 0x80
_KEY: Final = 1
_TRACK: Final = 6
"""Position of the track number in a multitrack body with one track."""
_MULTITRACK: Final = {AUDIO: 5, VIDEO: 6}
"""Packet types of extended bodies that contain a track other than the first, or several tracks."""
_FRAMES: Final = (1, 3)
"""Packet types of extended bodies that contain a frame; 0 is a header."""


class Replay:
    """Keeps metadata, headers, and everything since the last key frame. Not thread-safe."""

    def __init__(self) -> None:
        self._heads: dict[int, Message] = {}
        """The newest metadata, video header and audio header, by kind of message."""
        self._since: list[Message] = []
        self._size = 0
        self._sound: int | None = None
        """FLV codec number of the audio."""
        self.changes = 0
        """Number of changes of the audio codec."""
        self._whole = False
        """Whether the kept messages begin with a key frame."""

    def add(self, message: Message) -> None:
        """Record a message that was passed on."""
        if message.kind == AUDIO and message.body[0] >> 4 != self._sound:
            self.changes += self._sound is not None
            self._sound = message.body[0] >> 4
            self._heads.pop(AUDIO, None)  # a new reader must not wait for the old codec
            self._since = [kept for kept in self._since if kept.kind != AUDIO]
        if message.kind == DATA or _is_header(message):
            self._heads[message.kind] = message
            return
        if _is_key(message):
            self._since, self._size, self._whole = [], 0, True
        self._since.append(message)
        self._size += len(message.body)
        if not self._whole or self._size > _MOST:
            self._since, self._size, self._whole = [], 0, False

    def __iter__(self) -> Iterator[Message]:
        """Yield the kept messages, to be read before those that follow.

        If audio has no header, its first message comes first: FFmpeg looks for audio only for 1 s.
        """
        for kind in (DATA, VIDEO, AUDIO):
            if (head := self._heads.get(kind)) is not None:
                yield replace(head, time=self._since[0].time) if self._since else head
        first = None
        if AUDIO not in self._heads:
            first = next((message for message in self._since if message.kind == AUDIO), None)
        if first is not None:
            yield first
        yield from (message for message in self._since if message is not first)


def is_further_track(message: Message) -> bool:
    """Return whether an audio or video message contains one track, which is not the first."""
    body = message.body
    extended = body[0] >> 4 == _EX_AUDIO if message.kind == AUDIO else body[0] & _EX_VIDEO
    if not extended or body[0] & 15 != _MULTITRACK[message.kind] or len(body) <= _TRACK:
        return False
    return not body[1] >> 4 and body[_TRACK] != 0


def _is_header(message: Message) -> bool:
    first, second = message.body[0], message.body[1:2]
    if message.kind == AUDIO:
        form = first >> 4
        return (form == _AAC and second == b"\0") or (form == _EX_AUDIO and not first & 15)
    if first & _EX_VIDEO:
        return not first & 15
    return first & 15 in (_AVC, _HEVC) and second == b"\0"


def _is_key(message: Message) -> bool:
    first = message.body[0]
    if message.kind != VIDEO:
        return False
    if first & _EX_VIDEO:
        return first >> 4 & 7 == _KEY and first & 15 in _FRAMES
    return first >> 4 == _KEY
