"""Reads the alpha plane of pictures, enlarges it bicubically and writes it again."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, cast

import av
import numpy as np
import numpy.typing as npt

from vsr.media.plane_format import planes_for

Alpha = npt.NDArray[np.unsignedinteger[Any]]
"""Alpha plane, [height, width], 0 (transparent) to 2**bits - 1 (opaque): uint8, or uint16 above 8
bits."""

ENCODERS: Final = ("libvpx-vp9", "prores_ks", "ffv1", "png", "qtrle", "utvideo")
"""Encoders whose alpha is decoded again; others accept formats with alpha but drop it."""
_SEPARATE_ALPHA: Final = {"libvpx-vp9": ("matroska", "webm")}
"""Encoder that writes alpha as separate blocks -> containers that hold such blocks."""
_DECODERS: Final = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codec -> FFmpeg decoder that reads those blocks; the default decoder does not."""
_ALPHA_TAG: Final = "alpha_mode"
"""Metadata tag of streams that have such blocks."""


@cache
def has_alpha(pixel_format: str) -> bool:
    """Return whether a pixel format has an alpha plane or component."""
    return any(part.is_alpha for part in av.VideoFormat(pixel_format).components)


def can_hold_alpha(encoder: str, container: str) -> bool:
    """Return whether alpha that this encoder writes into this container can be read back."""
    return encoder in ENCODERS and container in _SEPARATE_ALPHA.get(encoder, (container,))


def alpha_decoder(stream: av.VideoStream) -> av.VideoCodecContext | None:
    """Create a decoder for VP8 or VP9 with alpha; None if the stream's default decoder is used."""
    name = _DECODERS.get(stream.codec_context.codec.canonical_name)
    if name is None or stream.metadata.get(_ALPHA_TAG) != "1":
        return None
    try:
        context = av.CodecContext.create(name, "r")
    except ValueError:  # an FFmpeg without libvpx
        return None
    assert isinstance(context, av.VideoCodecContext)
    return context


def alpha_of(picture: av.VideoFrame, size: tuple[int, int], bits: int) -> Alpha | None:
    """Return a picture's alpha, in `size` (width, height) and `bits`; None without alpha."""
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


def enlarge_alpha(alpha: Alpha | None, shape: tuple[int, ...], have: int, bits: int) -> Alpha:
    """Enlarge alpha to `shape` (height, width) and convert it from `have` to `bits` bits.

    Scaled bicubically, by swscale; fully opaque if `alpha` is None.
    """
    dtype = np.uint8 if bits == 8 else np.uint16
    if alpha is None:
        return np.full(shape, 2**bits - 1, dtype)
    form = "gray" if have == 8 else "gray16le"
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(alpha), format=form)
    # one thread: several corrupt some row widths, see `vsr.media.frame.swscale_threads`
    large = picture.reformat(width=shape[1], height=shape[0], interpolation="BICUBIC", threads=1)
    codes = np.array(np.from_dlpack(large.planes[0]))
    return _in_bits(np.minimum(codes, 2**have - 1), have, bits)


def _in_bits(alpha: Alpha, have: int, bits: int) -> Alpha:
    if have == bits:
        return alpha
    scaled = np.rint(alpha * ((2**bits - 1) / (2**have - 1)))
    return scaled.astype(np.uint8 if bits == 8 else np.uint16)


def opaque_format(pixel_format: str) -> str:
    """Return the planar format without alpha, such as yuv420p for yuva420p."""
    return planes_for(pixel_format).pixel_format(rgb=not pixel_format.startswith("yuv"))


def join_alpha(colours: Sequence[Alpha], alpha: Alpha, pixel_format: str) -> av.VideoFrame:
    """Join planes in `opaque_format` and an alpha plane into a picture of a format with alpha."""
    plain = opaque_format(pixel_format)
    name = plain.replace("yuv", "yuva", 1).replace("gbrp", "gbrap", 1)
    planes = tuple(np.ascontiguousarray(plane) for plane in (*colours, alpha))
    picture = av.VideoFrame.from_dlpack(planes, format=name)
    return picture if name == pixel_format else picture.reformat(format=pixel_format)
