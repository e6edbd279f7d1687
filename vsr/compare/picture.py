"""Encodes a picture as lossless WebP, or several side by side as PNG."""

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

from vsr.media.colour import Colour
from vsr.media.frame import convert_picture


def to_rgb(picture: av.VideoFrame, colour: Colour) -> npt.NDArray[np.uint8]:
    """Convert the picture to R'G'B' uint8 [height, width, 3] in full range."""
    return np.asarray(convert_picture(picture, "rgb24", colour).to_ndarray(), np.uint8)


def encode_webp(picture: av.VideoFrame, colour: Colour) -> bytes:
    """Encode the picture as a lossless WebP."""
    return _encode("libwebp", convert_picture(picture, "bgra", colour), {"lossless": "1"})


def encode_png(pictures: Sequence[npt.NDArray[np.uint8]]) -> bytes:
    """Encode pictures of one height, uint8 [height, width, 3], side by side as a PNG."""
    side_by_side = np.ascontiguousarray(np.concatenate(pictures, axis=1))
    return _encode("png", av.VideoFrame.from_ndarray(side_by_side, format="rgb24"), {})


def _encode(codec: str, picture: av.VideoFrame, options: dict[str, str]) -> bytes:
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = picture.width, picture.height
    context.pix_fmt, context.time_base = picture.format.name, Fraction(1, 25)
    context.options = options
    picture.pts, picture.time_base = 0, context.time_base
    return b"".join(bytes(packet) for packet in (*context.encode(picture), *context.encode(None)))
