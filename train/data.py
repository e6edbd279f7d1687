"""Folders of images -> aligned (LR, HR) patches, and the benchmark pairs for evaluation."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from train.resize import crop_to_multiple, downscale

log = logging.getLogger(__name__)
Pixels = npt.NDArray[np.uint8]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
# Rec. 601 luma weights without the 16..235 squeeze: a Y network's 0..1 is black..white
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def read_rgb(path: Path) -> Pixels:
    """An image file as uint8 RGB [H, W, 3]; grey and palette images are expanded."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _images(folders: list[Path]) -> Iterator[tuple[Path, Pixels]]:
    for path in sorted(p for folder in folders for p in folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            try:
                yield path, read_rgb(path)
            except (OSError, SyntaxError, Image.DecompressionBombError) as exc:  # PNG's is syntax
                log.warning("skipped %s: %s", path, exc)


def pairs(folder: Path, scale: int) -> Iterator[tuple[str, Pixels, Pixels]]:
    """(name, LR, HR) of every image in a benchmark folder."""
    for path, image in _images([folder]):
        hr = crop_to_multiple(image, scale)
        yield path.stem, downscale(hr, scale), hr


def to_input(rgb: Pixels, colour: str) -> npt.NDArray[np.float32]:
    """uint8 RGB [..., 3] -> what a network reads: float32 0..1 [..., C], C = 3 or 1 (luma)."""
    x = rgb.astype(np.float32) / np.float32(255)
    if colour == "y":
        x = np.dot(x, _LUMA)[..., None]
    return x.astype(np.float32)


@dataclass(frozen=True)
class PatchSet:
    """All images in memory as (LR, HR) pairs, and random aligned crops of them."""

    lr: list[Pixels]
    hr: list[Pixels]
    scale: int
    colour: str

    @classmethod
    def load(cls, folders: list[Path], scale: int, colour: str, patch: int) -> "PatchSet":
        """Read every image at least `patch` LR pixels wide and high; smaller ones are named."""
        lr, hr = [], []
        for path, whole in _images(folders):
            image = crop_to_multiple(whole, scale)
            if min(image.shape[:2]) < patch * scale:
                log.warning("skipped %s: smaller than a %d-pixel patch", path, patch * scale)
                continue
            hr.append(image)
            lr.append(downscale(image, scale))
        if not hr:
            raise ValueError(f"no usable image in {', '.join(map(str, folders))}")
        return cls(lr, hr, scale, colour)

    def batch(self, rng: np.random.Generator, size: int, patch: int) -> tuple[Tensor, Tensor]:
        """Random crops: LR [size, C, patch, patch] and HR [size, C, s*patch, s*patch], 0..1.

        Images are drawn by area; each crop is one of the eight flips and rotations.
        """
        area = np.array([image.shape[0] * image.shape[1] for image in self.lr], float)
        chosen = rng.choice(len(self.lr), size, p=area / area.sum())
        crops = [self._crop(rng, index, patch) for index in chosen]
        lows, highs = zip(*crops, strict=True)
        return self._stack(lows), self._stack(highs)

    def _crop(self, rng: np.random.Generator, index: int, patch: int) -> tuple[Pixels, Pixels]:
        lr, hr, s = self.lr[index], self.hr[index], self.scale
        y, x = (int(rng.integers(0, n - patch + 1)) for n in lr.shape[:2])
        low = lr[y : y + patch, x : x + patch]
        high = hr[y * s : (y + patch) * s, x * s : (x + patch) * s]
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        low, high = np.rot90(low, turns), np.rot90(high, turns)
        return (low[:, ::-1], high[:, ::-1]) if flip else (low, high)

    def _stack(self, crops: tuple[Pixels, ...]) -> Tensor:
        x = to_input(np.stack(crops), self.colour)  # [N, H, W, C]
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
