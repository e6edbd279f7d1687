"""Chooses a network's precision for the bit depth of the pictures."""

from typing import Final

from vsr.inference.models import Model, in_fp32
from vsr.media.plane_format import PlaneFormat

_EIGHT_BIT_PRECISIONS: Final = ("int8", "bf16")
"""Precisions that round values within a network to 8 bits, so that pictures of higher bit depth are
off by several codes; fp16 holds 10 bits."""


def for_bit_depth(model: Model, planes: PlaneFormat) -> Model:
    """Return the network to use for a plane format: above 8 bits, the one in full precision.

    A precision requested by the user is kept, and so is a file that has no fp32 form.
    """
    if planes.bits <= 8 or not (model.auto_precision and model.precision in _EIGHT_BIT_PRECISIONS):
        return model
    return in_fp32(model) or model
