"""Defines the default network; imports nothing of vsr, so that settings load quickly."""

from typing import Final

DEFAULT: Final = "c-dcscn-stream"
