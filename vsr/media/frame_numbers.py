"""Numbers frames for encoders and containers that count them instead of taking their times."""

import logging
from fractions import Fraction
from typing import Final

from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

CONSTANT_RATE: Final = ("mpeg1video", "mpeg2video")
"""Codecs whose encoders take only 1/rate as time base."""
_MPEG4: Final = "mpeg4"
_MPEG4_MAX_TICKS: Final = 2**16 - 1
"""Maximum number of MPEG-4's ticks per second (ISO 14496-2, vop_time_increment_resolution)."""
_MAX_ERROR: Final = Fraction(3, 4)
"""Maximum error of a frame's time at a constant rate, in frames; rounded times need a half."""


def encoder_time_base(codec: str, time_base: Fraction, rate: Fraction) -> Fraction:
    """Return the unit of an encoder's timestamps, in seconds: `time_base`, or else 1/rate.

    The latter for a codec (by FFmpeg's name) that cannot have `time_base`: its frames are numbered.
    """
    if codec in CONSTANT_RATE:
        return 1 / rate
    if codec == _MPEG4 and time_base.denominator > _MPEG4_MAX_TICKS:
        return (1 / rate).limit_denominator(_MPEG4_MAX_TICKS)
    return time_base


class FrameNumbers:
    """Gives frames numbers as an encoder's timestamps, and its packets the frames' times back.

    Use from one thread, in display order; packets in coding order.
    """

    def __init__(self, unit: Fraction, rate: Fraction, unstored: str | None = None) -> None:
        """`unit`: unit of the frames' pts, in seconds; `rate`: the encoder's, in fps.

        `unstored`: name of a container that does not store times: its packets keep the numbers.
        """
        self._unit, self._rate, self._unstored = unit, rate, unstored
        self._first = self._count = self._oldest = 0
        self._times: dict[int, int] = {}
        self._varies = False

    def add(self, pts: int) -> int:
        """Return the number of the frame at that time, from 0."""
        number, self._count = self._count, self._count + 1
        if not number:
            self._first = pts
        if self._unstored is None:
            self._times[number] = pts
        else:
            self._check(pts, number)
        return number

    def restore(self, packet: Packet, duration: int | None) -> None:
        """Replace the numbers in an encoder's packet by times, if the container stores them.

        `duration`: the frame's; None: that of the rate.
        """
        if self._unstored is not None:
            packet.duration = 1
            return
        if packet.pts is None or packet.dts is None:
            return
        pts, dts = self._time(packet.pts), self._time(packet.dts)
        while self._oldest < packet.dts:  # no later packet needs them
            self._times.pop(self._oldest, None)
            self._oldest += 1
        packet.pts, packet.dts, packet.time_base = pts, dts, self._unit
        packet.duration = round(1 / (self._rate * self._unit)) if duration is None else duration

    def _time(self, number: int) -> int:
        """Return the time of a frame, or one from the rate if there was none, as before the first.

        The dts of packets begin there if frames are coded in another order.
        """
        time = self._times.get(number)
        return self._first + round(number / (self._rate * self._unit)) if time is None else time

    def _check(self, pts: int, number: int) -> None:
        error = (pts - self._first) * self._unit * self._rate - number
        if abs(error) > _MAX_ERROR and not self._varies:
            self._varies = True
            log.warning(
                "%s stores no times, only %.6g fps, and the times of the frames vary: they are lost"
                " (a constant rate, as by --vf fps=25, keeps them in step)",
                self._unstored, float(self._rate),
            )  # fmt: skip
