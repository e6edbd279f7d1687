"""Numbers frames for what counts them instead of storing their times, such as Y4M."""

import logging
from fractions import Fraction
from typing import Final

log = logging.getLogger(__name__)

_MAX_ERROR: Final = Fraction(3, 4)
"""Maximum error of a frame's time at a constant rate, in frames; rounded times need a half."""


class FrameNumbers:
    """Gives frames numbers as the encoder's timestamps. Use from one thread, in display order.

    For an output of a constant rate that stores no times.
    """

    def __init__(self, unit: Fraction, rate: Fraction, name: str) -> None:
        """`unit`: unit of the frames' pts, in seconds; `name`: the format's, for messages."""
        self._unit, self._rate, self._name = unit, rate, name
        self._first = self._count = 0
        self._varies = False

    def add(self, pts: int) -> int:
        """Return the number of the frame at that time, from 0; warn once if the rate varies."""
        number, self._count = self._count, self._count + 1
        if not number:
            self._first = pts
        error = (pts - self._first) * self._unit * self._rate - number
        if abs(error) > _MAX_ERROR and not self._varies:
            self._varies = True
            log.warning(
                "%s stores no times, only %.6g fps, and the times of the frames vary: they are lost"
                " (a constant rate, as by --vf fps=25, keeps them in step)",
                self._name, float(self._rate),
            )  # fmt: skip
        return number
