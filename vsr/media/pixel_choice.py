"""Chooses the pixel format for an encoder."""

from collections.abc import Sequence
from typing import Final

import av

from vsr.errors import UsageError
from vsr.media.alpha import has_alpha
from vsr.media.colour import HDR_TRANSFERS, JPEG, RGB, Colour
from vsr.media.plane_format import PlaneFormat, is_grey, is_rgb, planes_for

_MIN_HDR_BITS: Final = 10
"""Minimum bit depth at which PQ and HLG show no banding."""
_ALPHA: Final = {"libvpx-vp9": ("yuva420p",)}
"""Encoder -> its usable formats with alpha, if it fails with others that it lists."""
_NO_GREY_IN: Final = ("libx264", "libx265")


def pixel_format(
    context: av.VideoCodecContext, planes: PlaneFormat, colour: Colour,
    requested: str | None = None, grey: bool = False, alpha: bool = False,
) -> str:  # fmt: skip
    """Choose an encoder's pixel format for frames of `planes`: `requested`, or else the nearest.

    `grey` frames have constant chroma; they stay grey except in H.264 and HEVC, for which many
    players do not support grey. With `alpha` the format has alpha.

    Raises UsageError for a format that the encoder does not take, and for HDR in 8 bits.
    """
    formats = [f.name for f in context.codec.video_formats or ()]
    bits = max(planes.bits, _MIN_HDR_BITS) if colour.is_hdr else planes.bits
    rgb = colour.matrix == RGB
    if requested is not None:
        check_pixel_format(requested)
        if formats and requested not in formats:
            raise UsageError(
                f"encoder {context.name} does not take {requested}; it takes {', '.join(formats)}"
            )
        found = requested
    elif alpha:
        found = nearest(_ALPHA.get(context.name, formats), planes, bits, rgb, alpha)
    elif grey and _grey_name(bits) in formats and context.name not in _NO_GREY_IN:
        found = _grey_name(bits)
    elif formats:
        full = [name for name in formats if name.startswith("yuvj")]
        jpeg = full if context.codec.canonical_name in JPEG else []  # others are non-standard
        found = nearest(jpeg or formats, planes, bits, rgb)
    else:
        found = planes.pixel_format(rgb)
    if colour.is_hdr and planes_for(found).bits < _MIN_HDR_BITS:
        raise UsageError(
            f"HDR ({HDR_TRANSFERS[colour.transfer]}) needs 10 bits, and {context.name} gets "
            f"{found}: use --codec hevc or av1, or --sdr to convert it to SDR"
        )
    return found


def format_losses(planes: PlaneFormat, pixel_format: str) -> list[str]:
    """Describe, for messages, what a pixel format cannot hold of `planes`."""
    taken = planes_for(pixel_format)
    found = []
    if taken.bits < planes.bits:
        found.append(f"{planes.bits} bits per sample (it has {taken.bits})")
    if taken.chroma_x > planes.chroma_x or taken.chroma_y > planes.chroma_y:
        found.append(f"chroma of {planes.subsampling} (it has {taken.subsampling})")
    return found


def nearest(
    formats: Sequence[str], planes: PlaneFormat, bits: int, rgb: bool, alpha: bool = False
) -> str:
    """Return the format that loses least of `planes` in `bits` bits and, among these, adds least.

    RGB stays RGB and YUV stays YUV if possible; formats with a palette are not used, and formats
    with alpha only if `alpha` is set.
    """

    def cost(name: str) -> tuple[int, ...]:
        other = planes_for(name)
        samples, wanted = other.chroma_x * other.chroma_y, planes.chroma_x * planes.chroma_y
        return (
            is_rgb(name) != rgb,
            max(0, bits - _depth(name)), max(0, samples - wanted),
            max(0, _depth(name) - bits), max(0, wanted - samples),
            name != planes.pixel_format(rgb),
        )  # fmt: skip

    usable = [name for name in formats if _usable(name, alpha)]
    return min(usable or formats, key=cost)


def _grey_name(bits: int) -> str:
    return "gray" if bits == 8 else f"gray{bits}le"


def _depth(name: str) -> int:
    return max((part.bits for part in av.VideoFormat(name).components), default=0)


def _usable(name: str, alpha: bool) -> bool:
    pixels = av.VideoFormat(name)
    odd = ("f16", "f32", "440")  # float formats; chroma halved vertically only
    plain = not (pixels.has_palette or is_grey(name) or any(part in name for part in odd))
    return plain and bool(pixels.components) and has_alpha(name) == alpha


def check_pixel_format(requested: str) -> None:
    """Raise UsageError if FFmpeg has no pixel format of that name."""
    try:
        av.VideoFormat(requested)
    except ValueError as exc:
        raise UsageError(
            f"unknown pixel format '{requested}': use an FFmpeg name such as yuv420p10le"
        ) from exc


def planes_options(context: av.VideoCodecContext, planes: PlaneFormat) -> dict[str, str]:
    """Return the options that follow from the pixel format: the siting tag, and DNxHR's profile."""
    assert context.pix_fmt is not None
    taken, rgb = planes_for(context.pix_fmt), is_rgb(context.pix_fmt)
    options = {}
    if taken.chroma_y > 1:
        options["chroma_sample_location"] = planes.siting
    if context.name == "dnxhd":
        deep = "hqx" if taken.bits > 8 else "hq"
        options["profile"] = "dnxhr_444" if rgb or taken.chroma_x == 1 else f"dnxhr_{deep}"
    return options
