"""Read RGB pictures from image folders; log, skip and count unusable files."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from train.data.resize import crop_to_multiple, downscale
from train.errors import TrainError

log = logging.getLogger(__name__)
Pixels = npt.NDArray[np.uint8]

# Rec. 601 luma weights for full range (not 16..235): 0..1 of a Y network is black..white
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# PNG raises SyntaxError, AVIF RuntimeError
_READ_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError)


def read_rgb(path: Path) -> Pixels:
    """Read an image file as uint8 RGB [H, W, 3]; grey, palette, 16-bit and alpha are converted."""
    with Image.open(path) as image:
        if image.mode.startswith("I"):  # Pillow would clip 16-bit grey at 255
            grey = np.asarray(image, dtype=np.float64) / 257
            return np.repeat(np.round(np.clip(grey, 0, 255)).astype(np.uint8)[..., None], 3, 2)
        if "transparency" in image.info:  # Pillow warns if palette transparency is dropped directly
            return np.asarray(image.convert("RGBA").convert("RGB"))
        return np.asarray(image.convert("RGB"))


def images(folders: Sequence[Path], smallest: int = 1) -> Iterator[tuple[Path, Pixels]]:
    """Yield (path, RGB picture) of each image at least `smallest` pixels wide and high, by path.

    Raises TrainError if a folder cannot be read or no image can be used.
    """
    used, skipped = 0, 0
    for path in image_files(folders):
        try:
            image = read_rgb(path)
        except _READ_ERRORS as exc:
            skipped += 1
            log.warning("skipped %s: %s", path, exc)
            continue
        if min(image.shape[:2]) < smallest:
            skipped += 1
            log.warning("skipped %s: smaller than a %d-pixel patch", path, smallest)
            continue
        used += 1
        yield path, image
    where = ", ".join(map(str, folders))
    if not used:
        raise TrainError(f"no usable image in {where} ({skipped} skipped)")
    if skipped:
        log.warning("%d of %d files in %s were skipped", skipped, used + skipped, where)


def image_files(folders: Sequence[Path]) -> list[Path]:
    """Return the folders' files sorted by path, without hidden ones."""
    try:
        found = [p for folder in folders for p in folder.iterdir()]
    except OSError as exc:
        raise TrainError(f"cannot read the folder {exc.filename}: {exc.strerror}") from exc
    return sorted(p for p in found if p.is_file() and not p.name.startswith("."))


def pairs(folder: Path, scale: int) -> Iterator[tuple[str, Pixels, Pixels]]:
    """Yield (name, LR, HR) of every image in a benchmark folder."""
    for path, image in images([folder], smallest=scale):
        hr = crop_to_multiple(image, scale)
        yield path.stem, downscale(hr, scale), hr


def to_input(rgb: Pixels, colour: str) -> npt.NDArray[np.float32]:
    """Convert uint8 RGB [..., 3] to network input: float32 0..1 [..., C], C = 3 or 1 (luma)."""
    x = rgb.astype(np.float32) / np.float32(255)
    if colour == "y":
        x = np.dot(x, LUMA)[..., None]
    return x.astype(np.float32)
