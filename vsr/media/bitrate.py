"""Parses and formats bitrates; chooses a live stream's bitrate by its size and frame rate."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from vsr.errors import UsageError

_BITS: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+) ?([kKmMgG]?)(?:bit/?s|bps|b/s|b)?")
_UNITS: Final = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_MIN_WITHOUT_UNIT: Final = 10_000
"""Limit in bit/s below which a number without a unit is refused: it was meant in kbit/s."""
_HIGH_FRAME_RATE: Final = 45
"""Frame rate in fps above which the 60 fps column of a table applies."""
_MIN_SIZE_RATIO: Final = 0.9
"""Minimum ratio of a table row's pixels to the picture's pixels for the row to apply."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """Bitrates for H.264 video that a streaming service publishes."""

    rates: tuple[tuple[int, int, int], ...]
    """Rows of (pixels, bit/s up to 30 fps, bit/s at 60 fps), smallest first."""
    max_bitrate: int
    """Maximum bitrate that the service accepts, in bit/s."""


LIVE_RATES: Final = (
    (320 * 180, 500_000, 750_000),
    (426 * 240, 700_000, 1_050_000),
    (640 * 360, 1_200_000, 1_800_000),
    (854 * 480, 1_900_000, 2_850_000),
    (1280 * 720, 3_000_000, 4_500_000),
    (1920 * 1080, 4_500_000, 6_000_000),
    (2560 * 1440, 15_000_000, 24_000_000),
    (3840 * 2160, 30_000_000, 35_000_000),
)
"""Default bitrates of a relay, in rows as in `Service.rates`; docs/live.md has the sources."""
SERVICES: Final = {
    "twitch": Service(
        rates=(
            (854 * 480, 2_000_000, 3_000_000),
            (1280 * 720, 3_000_000, 4_500_000),
            (1920 * 1080, 4_500_000, 6_000_000),
        ),
        max_bitrate=6_000_000,
    ),
    "youtube": Service(
        rates=(
            (1280 * 720, 4_000_000, 6_000_000),
            (1920 * 1080, 10_000_000, 12_000_000),
            (2560 * 1440, 15_000_000, 24_000_000),
            (3840 * 2160, 30_000_000, 35_000_000),
        ),
        max_bitrate=51_000_000,
    ),
}
"""Value of `--stream-preset` -> service; docs/live.md has the sources."""


def parse_bits(text: str) -> int:
    """Parse bit/s (or bits): `2500k`, `2.5M`, `2.5Mbit/s` or `2500000`. Raises UsageError."""
    found = _BITS.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"'{text}' is not a bitrate: write 2500k or 2.5M")
    bits = round(float(found[1]) * _UNITS[found[2].lower()])
    if bits < _MIN_WITHOUT_UNIT and not found[2]:
        raise UsageError(f"'{text}' is {bits} bit/s: write {text.strip()}k for kbit/s")
    if bits < 1:
        raise UsageError(f"'{text}' is not a bitrate: it must be more than 0")
    return bits


def format_bitrate(bits: float) -> str:
    """Format a bitrate in bit/s, such as `2.5 Mbit/s` or `625 kbit/s`."""
    if bits >= 1_000_000:
        return f"{bits / 1_000_000:.3g} Mbit/s"
    return f"{bits / 1000:.3g} kbit/s"


def live_bitrate(size: tuple[int, int], rate: Fraction, service: Service | None = None) -> int:
    """Return the bitrate (bit/s) for live video of `size` (width, height) at `rate` (fps).

    It is in the first row of the service's table, or of `LIVE_RATES`, that is large enough, or in
    the last row.
    """
    table = LIVE_RATES if service is None else service.rates
    pixels = size[0] * size[1]
    row = next((row for row in table if pixels <= row[0] / _MIN_SIZE_RATIO), table[-1])
    return row[2] if rate > _HIGH_FRAME_RATE else row[1]
