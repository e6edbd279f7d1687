"""Lists the number formats that a network can be computed in."""

from typing import Final

PRECISIONS: Final = ("fp32", "fp16", "int8")
