"""Carries an image's data other than colours: alpha, EXIF, ICC profile, name."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.ExifTags import IFD, TAGS
from PIL.PngImagePlugin import PngInfo

from vsr.errors import reason

log = logging.getLogger(__name__)

_ORIENTATION: Final = 0x0112
_WIDTH, _HEIGHT = 0xA002, 0xA003  # PixelXDimension, PixelYDimension
_STRUCTURE: Final = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325}
    | {330, 338, 339, 347, 513, 514, 529, 530, 531, 532, 700, 34675}
)
"""TIFF tags that describe the pixel layout of the old file, or data that is carried separately."""
_FIRST_TAG: Final = 254
"""Lowest tag of TIFF; EXIF adds one below."""
_GREY: Final = ("1", "L", "LA")
_OPAQUE: Final = 255


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Data that bypasses the network, from the image that was read to the one written."""

    alpha: npt.NDArray[np.uint8] | None = None
    """Alpha [H, W] of the image as read; None if opaque."""
    grey: bool = False
    file: Path | None = None
    """File that it was read from."""
    number: int | None = None
    """Number in the file's name; None without a pattern."""
    exif: Image.Exif | None = None
    """EXIF of the image as read, independent of its file; see `_detached`."""
    pillow_arguments: dict[str, Any] = field(default_factory=dict)
    """Pillow's save arguments: icc_profile, dpi, xmp."""
    text: dict[str, str] = field(default_factory=dict)
    """Text entries of a PNG."""

    def save_arguments(self, kind: str, scale: int) -> dict[str, Any]:
        """Return Pillow's arguments to save the image, enlarged by `scale`, in format `kind`."""
        given = dict(self.pillow_arguments)
        if kind in ("BMP", "GIF"):
            given.pop("icc_profile", None)
        if kind not in ("JPEG", "WEBP"):
            given.pop("xmp", None)
        if kind in ("WEBP", "GIF"):
            given.pop("dpi", None)
        if self.exif is not None and kind not in ("BMP", "GIF"):
            exif = _enlarged(self.exif, scale)
            if len(exif):
                given["exif"] = exif.tobytes()
        if kind == "TIFF" and "exif" not in given:
            given["compression"] = "tiff_deflate"  # libtiff fails with EXIF
        if kind == "PNG" and self.text:
            given["pnginfo"] = info = PngInfo()
            for key, value in self.text.items():
                info.add_text(key, value)
        return given


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation to an image and remove the tag."""
    if image.getexif().get(_ORIENTATION, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def rgb_and_extras(
    image: Image.Image, file: Path, number: int | None
) -> tuple[npt.NDArray[np.uint8], Extras]:
    """Convert an open image to upright R'G'B' uint8 [H, W, 3] and its other data."""
    exif, alpha = _exif(image, file), None
    image = upright(image)
    if image.has_transparency_data:
        image_a = image.convert("RGBA")
        alpha = np.asarray(image_a)[..., 3]
        rgb = np.asarray(image_a)[..., :3]
        if (alpha == _OPAQUE).all():
            alpha = None
        else:
            rgb = _filled(image_a)
    else:
        rgb = np.asarray(_plain(image).convert("RGB"))
    info = image.info
    kept = {key: info[key] for key in ("icc_profile", "dpi", "xmp") if info.get(key)}
    if image.mode not in ("RGB", "RGBA", "P", "PA"):
        kept.pop("icc_profile", None)  # a grey or CMYK profile does not fit RGB
        if image.mode in _GREY and info.get("icc_profile"):
            kept["icc_profile"] = info["icc_profile"]
    text = getattr(image, "text", {})
    extras = Extras(
        alpha=alpha, grey=image.mode in _GREY or image.mode.startswith("I"), file=file,
        number=number, exif=exif, pillow_arguments=kept,
        text={str(k): str(v) for k, v in text.items() if k != "XML:com.adobe.xmp"},
    )  # fmt: skip
    return rgb, extras


def _plain(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow would clip it."""
    if not image.mode.startswith("I"):
        return image
    codes = np.asarray(image).astype(np.int64)
    return Image.fromarray(np.clip(np.rint(codes / 257), 0, 255).astype(np.uint8))


def _filled(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return an image's colours, with those of transparent pixels taken from the pixels around.

    Enlarging mixes hidden colours into the edges, and encoders leave arbitrary ones there.
    """
    pixels = np.array(image)
    hidden = pixels[..., 3] == 0
    if hidden.all():
        return pixels[..., :3]
    shown = (~hidden).astype(np.float32)
    layers = [shown, *(pixels[..., k] * shown for k in range(3))]
    size = image.size
    while hidden.any() and max(size) > 1:
        size = (max(1, size[0] // 2), max(1, size[1] // 2))
        share, *colours = (_averaged(layer, size) for layer in layers)
        found = hidden & (share > 0)
        for k, colour in enumerate(colours):
            pixels[found, k] = np.rint(colour[found] / share[found])
        hidden &= ~found
    return pixels[..., :3]


def _averaged(layer: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Average a layer over `size` (width, height) cells; return the means in the layer's size."""
    small = Image.fromarray(layer).resize(size, Image.Resampling.BOX)
    return np.asarray(small.resize(layer.shape[::-1], Image.Resampling.NEAREST))


def _exif(image: Image.Image, file: Path) -> Image.Exif | None:
    """Return an open image's EXIF; None, with a warning, if it is damaged."""
    try:
        return _detached(image.getexif())
    except Exception as exc:  # Pillow's readers may raise anything
        log.warning("%s: its EXIF cannot be read and is left out: %s", file.name, reason(exc))
        return None


def _detached(exif: Image.Exif) -> Image.Exif:
    """Copy EXIF with its nested directories, which Pillow reads from the image's open file.

    Call it before the pixels are read, as Pillow then closes a TIFF. The thumbnail, the orientation
    and the tags of the old file's pixel layout are left out.
    Tags unknown to TIFF come from damaged files, and FFmpeg cannot read a TIFF that has them.
    """
    copy = Image.Exif()
    copy.endian = exif.endian
    for tag in exif:
        if tag in (IFD.Exif, IFD.GPSInfo):
            nested = dict(exif.get_ifd(tag))
            if IFD.Interop in nested:
                nested[IFD.Interop] = dict(exif.get_ifd(IFD.Interop))
            copy[tag] = nested
        elif tag not in (_ORIENTATION, *_STRUCTURE) and (tag >= _FIRST_TAG or tag in TAGS):
            copy[tag] = exif[tag]
    return copy


def _enlarged(exif: Image.Exif, scale: int) -> Image.Exif:
    """Copy the EXIF of `Extras` with the sizes of the enlarged image."""
    copy = Image.Exif()
    copy.endian = exif.endian
    copy.update(exif)
    if IFD.Exif in copy:
        copy[IFD.Exif] = {
            tag: value * scale if tag in (_WIDTH, _HEIGHT) and isinstance(value, int) else value
            for tag, value in copy[IFD.Exif].items()
        }
    return copy
