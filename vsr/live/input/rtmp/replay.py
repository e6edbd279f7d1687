"""Keeps the messages that a demuxer needs first if it joins a publisher's stream midway.

Byte layouts: Adobe, "Video File Format Specification" 10.1, E.4.2 and E.4.3; Veovera, "Enhanced
RTMP" v2, for bodies that begin with the extended header.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vsr.live.rtmp.chunks import AUDIO, DATA, VIDEO, Message

_MAX_KEPT_BYTES: Final = 16 << 20
"""Limit of the bytes kept since a key frame: over 20 s at 6 Mbit/s."""
_AAC, _AVC, _HEVC = 10, 7, 12
"""FLV codec numbers whose bodies distinguish headers from frames in the second byte."""
_EX_AUDIO: Final = 9
"""The sound format of extended bodies."""
_EX_VIDEO: Final = 0x80
_KEY_FRAME: Final = 1
_TRACK_POSITION: Final = 6
"""Position of the track number in a multitrack body with one track."""
_MULTITRACK: Final = {AUDIO: 5, VIDEO: 6}
"""Packet types of extended bodies that contain a track other than the first, or several tracks."""
_FRAME_PACKETS: Final = (1, 3)
"""Packet types of extended bodies that contain a frame; 0 is a header."""


class ReplayBuffer:
    """Keeps metadata, headers, and everything since the last key frame. Not thread-safe."""

    def __init__(self) -> None:
        self._headers: dict[int, Message] = {}
        """The newest metadata, video header and audio header, by kind of message."""
        self._messages: list[Message] = []
        self._kept_bytes = 0
        self._audio_codec: int | None = None
        """FLV codec number of the audio."""
        self.audio_codec_changes = 0
        """Number of changes of the audio codec."""
        self._has_key_frame = False
        """Whether the kept messages begin with a key frame."""

    def add(self, message: Message) -> None:
        """Record a message that was passed on."""
        if message.kind == AUDIO and message.body[0] >> 4 != self._audio_codec:
            self.audio_codec_changes += self._audio_codec is not None
            self._audio_codec = message.body[0] >> 4
            self._headers.pop(AUDIO, None)  # a new reader must not wait for the old codec
            self._messages = [kept for kept in self._messages if kept.kind != AUDIO]
        if message.kind == DATA or _is_header(message):
            self._headers[message.kind] = message
            return
        if _is_key_frame(message):
            self._messages, self._kept_bytes, self._has_key_frame = [], 0, True
        self._messages.append(message)
        self._kept_bytes += len(message.body)
        if not self._has_key_frame or self._kept_bytes > _MAX_KEPT_BYTES:
            self._messages, self._kept_bytes, self._has_key_frame = [], 0, False

    def __iter__(self) -> Iterator[Message]:
        """Yield the kept messages, to be read before those that follow.

        If audio has no header, its first message comes first: FFmpeg looks for audio only for 1 s.
        """
        for kind in (DATA, VIDEO, AUDIO):
            if (header := self._headers.get(kind)) is not None:
                yield replace(header, time=self._messages[0].time) if self._messages else header
        first = None
        if AUDIO not in self._headers:
            first = next((message for message in self._messages if message.kind == AUDIO), None)
        if first is not None:
            yield first
        yield from (message for message in self._messages if message is not first)


def is_additional_track(message: Message) -> bool:
    """Return whether an audio or video message contains one track, which is not the first."""
    body = message.body
    extended = body[0] >> 4 == _EX_AUDIO if message.kind == AUDIO else body[0] & _EX_VIDEO
    if not extended or body[0] & 15 != _MULTITRACK[message.kind] or len(body) <= _TRACK_POSITION:
        return False
    return not body[1] >> 4 and body[_TRACK_POSITION] != 0


def _is_header(message: Message) -> bool:
    first, second = message.body[0], message.body[1:2]
    if message.kind == AUDIO:
        form = first >> 4
        return (form == _AAC and second == b"\0") or (form == _EX_AUDIO and not first & 15)
    if first & _EX_VIDEO:
        return not first & 15
    return first & 15 in (_AVC, _HEVC) and second == b"\0"


def _is_key_frame(message: Message) -> bool:
    first = message.body[0]
    if message.kind != VIDEO:
        return False
    if first & _EX_VIDEO:
        return first >> 4 & 7 == _KEY_FRAME and first & 15 in _FRAME_PACKETS
    return first >> 4 == _KEY_FRAME
