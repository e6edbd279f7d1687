"""The network that is taken where none is named; imports nothing, so that settings load at once."""

from typing import Final

DEFAULT: Final = "c-dcscn-stream"
