"""The transparency of pictures: read beside their colours, enlarged bicubically, written again."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, cast

import av
import numpy as np
import numpy.typing as npt

from vsr.media.plane_format import planes_for

Alpha = npt.NDArray[np.unsignedinteger[Any]]
"""[height, width], 0 clear to 2**bits - 1 opaque: uint8, or uint16 above 8 bits."""

ENCODERS: Final = ("libvpx-vp9", "prores_ks", "ffv1", "png", "qtrle", "utvideo")
"""Those whose formats with alpha are decoded with it; others take such formats and drop it."""
_BESIDE: Final = {"libvpx-vp9": ("matroska", "webm")}
"""Encoder that has its alpha in blocks beside the pictures -> containers of such blocks."""
_DECODERS: Final = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codec -> FFmpeg's decoder that reads those blocks; its own does not."""
_MARK: Final = "alpha_mode"
"""The tag of streams that have such blocks."""


@cache
def has_alpha(pixel_format: str) -> bool:
    """Whether a pixel format has an alpha plane or component."""
    return any(part.is_alpha for part in av.VideoFormat(pixel_format).components)


def can_hold(encoder: str, container: str) -> bool:
    """Whether transparency comes out again of what that encoder writes into that container."""
    return encoder in ENCODERS and container in _BESIDE.get(encoder, (container,))


def decoder_for(stream: av.VideoStream) -> av.VideoCodecContext | None:
    """A decoder of VP8 or VP9 with alpha; None where the stream's own is as good."""
    name = _DECODERS.get(stream.codec_context.codec.canonical_name)
    if name is None or stream.metadata.get(_MARK) != "1":
        return None
    try:
        context = av.CodecContext.create(name, "r")
    except ValueError:  # an FFmpeg without libvpx
        return None
    assert isinstance(context, av.VideoCodecContext)
    return context


def alpha_of(picture: av.VideoFrame, size: tuple[int, int], bits: int) -> Alpha | None:
    """A decoded picture's alpha in a size (width, height) and bits; None for opaque formats."""
    if not has_alpha(picture.format.name):
        return None
    if (picture.width, picture.height) != size:
        picture = picture.reformat(width=size[0], height=size[1], interpolation="BICUBIC")
    planar = picture.format.name.startswith(("yuva", "gbrap"))
    if not planar or picture.format.is_big_endian:
        deep = picture.format.components[0].bits > 8
        picture = picture.reformat(format="gbrap16le" if deep else "gbrap")
    own = picture.format.components[-1].bits
    return _in_bits(cast(Alpha, np.from_dlpack(picture.planes[3])), own, bits)


def enlarged(alpha: Alpha | None, shape: tuple[int, ...], have: int, bits: int) -> Alpha:
    """The alpha of an enlarged picture of that shape (height, width), in other bits.

    Bicubic, by swscale; without alpha everything is opaque.
    """
    dtype = np.uint8 if bits == 8 else np.uint16
    if alpha is None:
        return np.full(shape, 2**bits - 1, dtype)
    form = "gray" if have == 8 else "gray16le"
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(alpha), format=form)
    # with one thread: several write past the ends of uneven rows
    large = picture.reformat(width=shape[1], height=shape[0], interpolation="BICUBIC", threads=1)
    codes = np.array(np.from_dlpack(large.planes[0]))
    return _in_bits(np.minimum(codes, 2**have - 1), have, bits)


def _in_bits(alpha: Alpha, have: int, bits: int) -> Alpha:
    if have == bits:
        return alpha
    scaled = np.rint(alpha * ((2**bits - 1) / (2**have - 1)))
    return scaled.astype(np.uint8 if bits == 8 else np.uint16)


def opaque_format(pixel_format: str) -> str:
    """The planar format of the same colours without alpha, such as yuv420p of yuva420p."""
    return planes_for(pixel_format).pixel_format(rgb=not pixel_format.startswith("yuv"))


def packed(colours: Sequence[Alpha], alpha: Alpha, pixel_format: str) -> av.VideoFrame:
    """Join planes of `opaque_format` and alpha to a picture of a format with alpha."""
    plain = opaque_format(pixel_format)
    name = plain.replace("yuv", "yuva", 1).replace("gbrp", "gbrap", 1)
    planes = tuple(np.ascontiguousarray(plane) for plane in (*colours, alpha))
    picture = av.VideoFrame.from_dlpack(planes, format=name)
    return picture if name == pixel_format else picture.reformat(format=pixel_format)
