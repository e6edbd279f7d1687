"""A source that is joined as it happens: with little delay, and an error when it breaks off."""

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Final

import av

from vsr.errors import InputError, reason
from vsr.media.frame import Frame, now
from vsr.media.info import VideoInfo
from vsr.media.location import Feed, is_url, open_live
from vsr.media.source import Source
from vsr.media.timestamps import Packet

_SLOWEST: Final = 1
_FASTEST: Final = 240
_USUAL: Final = Fraction(25)
"""Frame rates of a stream: what is measured beyond these bounds is an error, and this is meant."""
_PATIENCE: Final = 30.0
"""Seconds in which a stream that is joined must reach a key frame."""


class LiveSource(Source):
    """A source that comes as it happens: little delay, and a failure ends it with an error.

    `silence` is the time in seconds after which it counts as lost. With `size` (width, height) its
    pictures are scaled to that, so that an output goes on whatever the source comes back with. A
    `feed` is read instead of `url`; it is the caller's to close.
    """

    _threads = "SLICE"

    def __init__(
        self,
        url: str,
        silence: float,
        size: tuple[int, int] | None = None,
        feed: Feed | None = None,
    ) -> None:
        self._silence, self._size, self._feed = silence, size, feed
        self._give_up = math.inf
        self.jumps = 0
        """Leaps of its clock that were closed."""
        super().__init__(url)

    @property
    def audio(self) -> av.AudioStream | None:
        """The first sound that can be decoded, None without any."""
        sounds = self._container.streams.audio
        return next((s for s in sounds if s.codec_context is not None), None)

    @property
    def in_pieces(self) -> bool:
        """Whether it comes as files of several seconds each, not as it happens."""
        return bool({"hls", "dash"} & set(self._container.format.name.split(",")))

    def _open(self) -> "av.container.InputContainer":
        return open_live(self.url, self.name, self._silence, self._feed)

    def _prime(self) -> None:
        self._give_up = now() + max(_PATIENCE, self._silence)
        for item in self._items:
            self._primed.append(item)
            if isinstance(item, Frame):
                self._give_up = math.inf
                return
            self._be_patient()
        raise InputError(f"{self.name} ended before a frame of its video could be decoded")

    def _decoded(self, packet: Packet) -> Iterator[Frame]:
        self._be_patient()
        yield from super()._decoded(packet)

    def _be_patient(self) -> None:
        """What shows no picture must not be waited for, and kept in memory, for ever."""
        if now() > self._give_up:
            raise InputError(f"{self.name} sends data, but no picture that can be decoded")

    def _reading_failed(self, exc: Exception) -> None:
        if isinstance(exc, av.error.ExitError):
            raise InputError(f"{self.name} sent nothing for {self._silence:g} s") from None
        raise InputError(f"{self.name} broke off: {reason(exc)}") from None

    def _describe(self, picture: av.VideoFrame) -> VideoInfo:
        info = super()._describe(picture)
        if not _SLOWEST <= info.rate <= _FASTEST:
            info = replace(info, rate=_USUAL)
        return replace(info, width=self._size[0], height=self._size[1]) if self._size else info

    def _note(self, kind: str, note: str, warn: bool = False) -> None:
        self.jumps += kind == "times"
        super()._note(kind, note, warn)

    def _count_missing(self) -> None:
        """A stream announces nothing that could be missing; a file does."""
        if not is_url(self.url):
            super()._count_missing()
