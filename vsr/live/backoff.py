"""Has whoever was refused come again later and later, and never all at once.

One rule for everything in a relay that is tried again: its source, its outputs, and itself.
"""

import random
from dataclasses import dataclass
from typing import Final

_CHANCE: Final = 0.2
"""Share of a pause that is left to chance, lest a thousand relays knock in step."""
_MOST: Final = 20
"""Failures beyond which no pause grows, lest a power of them overflows."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Pauses in seconds."""

    first: float
    longest: float
    """Never shorter than the first, whatever is given here."""
    growth: float = 2.0
    """Factor from one pause to the next."""

    def pause(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        grown = self.first * self.growth ** min(max(0, failures - 1), _MOST)
        return min(grown, max(self.first, self.longest)) * random.uniform(1 - _CHANCE, 1)
