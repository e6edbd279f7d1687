"""Prepare aligned (LR, HR) pictures from image folders as a recipe specifies, and cache them."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import PIL
from filelock import FileLock

from train.data.degrade import Stream, streamed
from train.data.download import size_in_words
from train.data.images import Pixels, image_files, images
from train.data.resize import crop_to_multiple, downscale, resize_u8
from train.data.store import MAGIC, DamagedStoreError, open_store, write_store
from train.errors import TrainError
from train.fit.recipe import Recipe

log = logging.getLogger(__name__)

STREAM: Final = Stream()
CLIPS: Final = 2
"""Number of clips per window area of a picture, each with another path and quality."""
_SMALL: Final = 16 << 20
"""Total size of image files, in bytes, up to which pictures are prepared in memory every start."""
_CODE: Final = ("pictures.py", "store.py", "degrade.py", "images.py", "resize.py")
"""Source files that determine the prepared pictures; their digest is part of the cache key."""


@dataclass(frozen=True)
class Pictures:
    """Aligned (LR, HR) pictures of every scale, uint8 RGB, and a record of their source."""

    lr: dict[int, list[Pixels]]
    hr: dict[int, list[Pixels]]
    record: dict[str, Any]
    """Folders, number of images and a digest of names and sizes, for the checkpoint."""
    file: Path | None = None
    """Memory-mapped file of the pictures, or None if they are in memory."""

    def __reduce__(self) -> Any:
        """Pickle the file name instead of the pixels for spawned processes."""
        if self.file is not None:
            return Pictures.mapped, (self.file,)
        return Pictures, (self.lr, self.hr, self.record)

    @classmethod
    def load(cls, folders: Sequence[Path], scales: tuple[int, ...], recipe: Recipe) -> "Pictures":
        """Read every usable image and make its LR pictures for the recipe, all in memory."""
        lr: dict[int, list[Pixels]] = {s: [] for s in scales}
        hr: dict[int, list[Pixels]] = {s: [] for s in scales}
        record: dict[str, Any] = {}
        for scale, low, high in _prepared(folders, scales, recipe, record):
            lr[scale].append(low)
            hr[scale].append(high)
        return cls(lr, hr, record)

    @classmethod
    def cached(
        cls, folders: Sequence[Path], scales: tuple[int, ...], recipe: Recipe, cache: Path
    ) -> "Pictures":
        """Return the pictures that `load` makes, mapped from a file in `cache` that is made once.

        The file name is a digest of all inputs: the folders' files with sizes and times, the
        recipe's degradation, copies and patch size, the scales and the code. A damaged file is
        rebuilt. Raises TrainError if the cache cannot be written.
        """
        path = cache / f"{_key(folders, scales, recipe)}.pictures"
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):  # only one process prepares
                if path.exists():
                    try:
                        return cls.mapped(path)
                    except DamagedStoreError as exc:
                        log.warning("%s is %s: preparing the pictures anew", path, exc)
                for part in cache.glob(f".{path.name}.*.part"):  # left by a killed run
                    part.unlink()
                log.info("preparing the pictures once, as %s", path)
                record: dict[str, Any] = {}
                write_store(path, _prepared(folders, scales, recipe, record), record)
                log.info("prepared: %s", size_in_words(path.stat().st_size))
                return cls.mapped(path)
        except OSError as exc:
            raise TrainError(f"cannot keep {path}: {exc.strerror}: give another --cache") from exc

    @classmethod
    def mapped(cls, path: Path) -> "Pictures":
        """Map the pictures of a store file. Raises DamagedStoreError and OSError."""
        return cls(*open_store(path), file=path)

    def pack(self, path: Path) -> None:
        """Write everything to one file, to copy to another machine or to start training faster."""
        pairs = (
            (scale, low, high)
            for scale, pictures in self.lr.items()
            for low, high in zip(pictures, self.hr[scale], strict=True)
        )
        try:
            write_store(path, pairs, self.record)
        except OSError as exc:
            raise TrainError(f"cannot write {path}: {exc.strerror}") from exc

    def large_enough(self, recipe: Recipe) -> "Pictures":
        """Return the pictures large enough for the recipe's patches; `pack` may include smaller."""
        kept = {
            scale: [i for i, p in enumerate(pictures) if min(p.shape[:2]) >= recipe.lr_patch(scale)]
            for scale, pictures in self.lr.items()
        }
        if all(len(places) == len(self.lr[scale]) for scale, places in kept.items()):
            return self
        lr, hr = (
            {scale: [of[scale][i] for i in places] for scale, places in kept.items()}
            for of in (self.lr, self.hr)
        )
        return Pictures(lr, hr, self.record)

    @classmethod
    def unpack(cls, path: Path) -> "Pictures":
        """Map a file written by `pack`, or load the `.npz` of its earlier versions into memory.

        Raises TrainError for a damaged or foreign file.
        """
        found: dict[str, dict[int, list[Pixels]]] = {"lr": {}, "hr": {}}
        try:
            with path.open("rb") as file:
                if file.read(len(MAGIC)) == MAGIC:
                    return cls.mapped(path)
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                record: dict[str, Any] = json.loads(str(archive["record"]))
                for name in archive.files[1:]:
                    kind, scale, _ = name.split("/")
                    found[kind].setdefault(int(scale), []).append(archive[name])
            _check_aligned(found["lr"], found["hr"])
        except OSError as exc:
            raise TrainError(f"cannot read {path}: {exc.strerror or exc}") from exc
        except Exception as exc:  # for foreign files numpy raises almost any type
            raise TrainError(f"{path} is damaged, or not a file of packed pictures") from exc
        return cls(found["lr"], found["hr"], record)


def worth_caching(folders: Sequence[Path]) -> bool:
    """Return whether the folders' files are too large to prepare in memory at every start."""
    return sum(path.stat().st_size for path in image_files(folders)) > _SMALL


def _key(folders: Sequence[Path], scales: tuple[int, ...], recipe: Recipe) -> str:
    """Return a digest of everything that the prepared pictures depend on, for the cache file."""
    files = [
        [path.parent.name, path.name, path.stat().st_size, path.stat().st_mtime_ns]
        for path in image_files(folders)
    ]
    code = hashlib.sha256(b"".join(Path(__file__).with_name(n).read_bytes() for n in _CODE))
    stream = recipe.degradation == "stream"  # only this one uses random numbers and encoders
    facts = {
        "files": files,
        "scales": scales,
        "windows": [_window(recipe, scale) for scale in scales],
        "copies": recipe.copies,
        "degradation": recipe.degradation,
        "seed": recipe.seed if stream else None,
        "code": code.hexdigest(),
        "libraries": [np.__version__, PIL.__version__, av.__version__ if stream else ""],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _prepared(
    folders: Sequence[Path], scales: tuple[int, ...], recipe: Recipe, record: dict[str, Any]
) -> Iterator[tuple[int, Pixels, Pixels]]:
    """Yield (scale, LR, HR) of every usable image, copy and clip; fill `record` at the end."""
    digest, count = hashlib.sha256(), 0
    smallest = max(_window(recipe, s) * s for s in scales)
    for path, image in images(folders, smallest):
        digest.update(json.dumps([path.name, *image.shape]).encode())
        rng = np.random.default_rng((recipe.seed, count))
        count += 1
        for picture in _with_copies(image, recipe.copies, smallest):
            for scale in scales:
                for low, high in _degraded(picture, scale, recipe, rng):
                    yield scale, low, high
    names = [folder.name for folder in folders]
    record.update(folders=names, images=count, sha256=digest.hexdigest())


def _check_aligned(lr: dict[int, list[Pixels]], hr: dict[int, list[Pixels]]) -> None:
    """Raise ValueError or KeyError if there are no pictures or a pair is incomplete."""
    if not lr:
        raise ValueError("no pictures")
    for scale in lr.keys() | hr.keys():
        for low, high in zip(lr[scale], hr[scale], strict=True):
            if high.shape != (low.shape[0] * scale, low.shape[1] * scale, 3):
                raise ValueError(f"{high.shape} is not x{scale} of {low.shape}")


def _window(recipe: Recipe, scale: int) -> int:
    """Return the smallest width and height of a picture in LR pixels; even for `stream`."""
    patch = recipe.lr_patch(scale)
    return patch + patch % 2 if recipe.degradation == "stream" else patch


def _with_copies(image: Pixels, factors: tuple[float, ...], smallest: int) -> Iterator[Pixels]:
    yield image
    for factor in factors:
        height, width = (round(n * factor) for n in image.shape[:2])
        if min(height, width) >= smallest:
            # contiguous, because the last bit of luma depends on the memory layout
            yield np.ascontiguousarray(resize_u8(image, height, width))


def _degraded(
    picture: Pixels, scale: int, recipe: Recipe, rng: np.random.Generator
) -> list[tuple[Pixels, Pixels]]:
    if recipe.degradation == "stream":
        least = _window(recipe, scale)
        stream = replace(STREAM, window=max(STREAM.window, least), least=max(STREAM.least, least))
        # CLIPS clips for each window that fits into the picture's area
        windows = round(picture.shape[0] * picture.shape[1] / (stream.window * scale) ** 2)
        clips = [streamed(picture, scale, rng, stream) for _ in range(max(1, windows) * CLIPS)]
        return [pair for clip in clips for pair in clip]
    hr = crop_to_multiple(picture, scale)
    return [(np.ascontiguousarray(downscale(hr, scale)), hr)]
