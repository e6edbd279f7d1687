"""Lists the number formats that a network can be computed in."""

from typing import Final

PRECISIONS: Final = ("fp32", "fp16", "bf16", "int8")
FLOATS: Final = ("fp32", "fp16", "bf16")
"""Precisions in which a float network can be computed without conversion."""
