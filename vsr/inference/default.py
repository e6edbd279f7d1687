"""Network and scale that are used if none is configured.

Imports nothing from `vsr`, so that settings load quickly.
"""

from collections.abc import Collection
from typing import Final

DEFAULT: Final = "c-dcscn-stream"
DEFAULT_SCALE: Final = 2


def default_scale(scales: Collection[int]) -> int:
    """Return the scale to use if none is configured: 2 if the model has it, else its lowest."""
    return DEFAULT_SCALE if DEFAULT_SCALE in scales else min(scales)
