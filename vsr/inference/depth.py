"""Chooses a network's form for the bits of the pictures that it is to enlarge."""

from typing import Final

from vsr.inference.models import Model, in_fp32
from vsr.media.plane_format import PlaneFormat

_ROUNDING: Final = ("int8", "bf16")
"""Precisions that round values within a network to 8 bits, so that deeper pictures are codes off;
fp16 holds 10 bits."""


def for_planes(model: Model, planes: PlaneFormat) -> Model:
    """Return the network for pictures of a format: above 8 bits in full precision.

    A precision that was asked for is kept, and so is a file that has no other one.
    """
    if planes.bits <= 8 or not (model.automatic and model.precision in _ROUNDING):
        return model
    return in_fp32(model) or model
