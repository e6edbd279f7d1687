"""Keeps what an input hides before its start out of containers that cannot hide it.

MP4 hides the packets before its start by an edit list: the part that was cut off without encoding,
and the encoder delay of AAC. Other containers would play them, and their muxers would move all
streams until the first of these packets is at zero.
"""

import logging
from fractions import Fraction
from typing import Final

import av

from vsr.media.passthrough import MP4_FAMILY
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

_MATROSKA: Final = ("matroska", "webm")
_OPUS_RATE: Final = 48_000
_ROUNDING: Final = Fraction(1, 1000)
"""Time unit of Matroska, in seconds."""


class StartCutter:
    """Removes or moves the packets of one output stream that begin before the output's start."""

    def __init__(self, container: str, stream: av.stream.Stream, encoded: bool) -> None:
        """`container`: FFmpeg's name of the output's; `stream`: the input's stream; `encoded`:
        whether it gets another codec."""
        self._stream = stream
        self._video = stream.type == "video"
        self._active = stream.type in ("audio", "video") and container not in MP4_FAMILY
        self._earliest: Fraction | None = Fraction(0)
        """Earliest time that the container can hide (s); None: all that may occur."""
        if stream.type == "audio" and container in _MATROSKA:
            self._earliest = None if encoded else _earliest_in_matroska(stream)
        self._warned = False

    def admit(self, packet: Packet) -> bool:
        """Return whether a packet with its output time is to be written.

        Video packets are, as later ones may need them: hidden ones are moved to the start.
        """
        if not self._active or packet.pts is None or not packet.time_base:
            return True
        if self._video:
            self._move(packet, packet.pts)
            return True
        if packet.is_discard:
            return False
        return self._earliest is None or packet.pts * packet.time_base >= self._earliest

    def _move(self, packet: Packet, pts: int) -> None:
        if pts < 0 and not self._warned:
            self._warned = True
            log.warning(
                "video #%d: the pictures that the input hides before its start are shown at the "
                "start of the output, in no time; .mp4 and .mov can hide them", self._stream.index,
            )  # fmt: skip
        packet.pts = max(pts, 0)
        packet.dts = None if packet.dts is None else max(packet.dts, 0)


def _earliest_in_matroska(stream: av.stream.Stream) -> Fraction | None:
    """Return the earliest time (s) of a copied audio stream that Matroska hides (CodecDelay).

    FFmpeg's muxer takes it from the input's codec parameters: of Opus, and of another Matroska.
    """
    if any(name in stream.container.format.name.split(",") for name in _MATROSKA):
        return None
    context = stream.codec_context
    header = context.extradata if context is not None and context.name.endswith("opus") else None
    if not header or len(header) < 12:
        return Fraction(0)
    return -Fraction(int.from_bytes(header[10:12], "little"), _OPUS_RATE) - _ROUNDING
