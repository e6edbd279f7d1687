"""Advances the timecode that an output's tags give to its first frame (SMPTE ST 12-1)."""

import logging
import re
from collections.abc import MutableMapping
from fractions import Fraction
from typing import Final

log = logging.getLogger(__name__)

_KEY: Final = "timecode"
_TIMECODE: Final = re.compile(r"(\d{1,2}):(\d\d):(\d\d)([:;.])(\d{2,3})")
_DROP_FRAME: Final = ";."
"""Separators before the frame number that mark drop-frame timecode."""
_NTSC: Final = Fraction(1000, 1001)
_MAX_RATE_ERROR: Final = 0.002
"""Relative difference below which an average rate counts as a standard one, as times are rounded
to milliseconds in some containers."""


def advance_timecodes(
    tags: MutableMapping[str, str], skipped: Fraction, rate: Fraction | None
) -> None:
    """Advance the timecode among some tags by a time (s); without a usable one, remove the tag.

    `rate`: average rate of the video (fps); None if unknown.
    """
    for key in [key for key in tags if key.lower() == _KEY]:
        advanced = advanced_timecode(tags[key], skipped, rate)
        if advanced is None:
            log.warning(
                "the timecode %s is left out: it cannot be advanced to the first frame%s",
                tags[key], f" at {float(rate):.6g} frames per second" if rate else "",
            )  # fmt: skip
            del tags[key]
        else:
            tags[key] = advanced


def advanced_timecode(timecode: str, skipped: Fraction, rate: Fraction | None) -> str | None:
    """Return the timecode of the frame a time (s) after another; None if it is unknown."""
    found = _TIMECODE.fullmatch(timecode.strip())
    exact = _standard_rate(rate) if rate else None
    if found is None or exact is None:
        return None
    hours, minutes, seconds, frames = (int(found[k]) for k in (1, 2, 3, 5))
    nominal, drops = round(exact), found[4] in _DROP_FRAME
    if frames >= nominal or (drops and nominal % 30):
        return None
    dropped = nominal // 15 if drops else 0
    in_all = 60 * hours + minutes
    count = (60 * in_all + seconds) * nominal + frames - dropped * (in_all - in_all // 10)
    return _written(count + round(skipped * exact), nominal, dropped, found[4])


def _written(count: int, nominal: int, dropped: int, separator: str) -> str:
    """Return the timecode of frame `count` of a day; `dropped`: numbers left out in a minute."""
    per_ten = 600 * nominal - 9 * dropped
    count %= 144 * per_ten
    tens, rest = divmod(count, per_ten)
    count += 9 * dropped * tens
    if rest >= 60 * nominal:  # the first of ten minutes is whole
        count += dropped * (1 + (rest - 60 * nominal) // (60 * nominal - dropped))
    seconds, frames = divmod(count, nominal)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{separator}{frames:02d}"


def _standard_rate(rate: Fraction) -> Fraction | None:
    """Return the whole or NTSC rate next to an average one; None if it is neither."""
    nominal = max(1, round(rate))
    near = min(Fraction(nominal), nominal * _NTSC, key=lambda each: abs(each - rate))
    return near if abs(near / rate - 1) < _MAX_RATE_ERROR else None
