"""Prepare aligned (LR, HR) pictures from image folders and clips for a recipe, and cache them."""

import hashlib
import json
import logging
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import PIL
from filelock import FileLock

from train.data.clips import ClipSettings, check_clip, clip_pairs
from train.data.degrade import encoded_pairs, stream_settings
from train.data.download import format_size
from train.data.images import Pixels, image_files, images
from train.data.resize import crop_to_multiple, downscale, resize_u8
from train.data.store import MAGIC, DamagedStoreError, open_store, write_store
from train.errors import TrainError
from train.fit.recipe import Recipe

log = logging.getLogger(__name__)

CLIP_SETTINGS: Final = ClipSettings()
CLIPS: Final = 2
"""Number of clips per window area of an image, each with another path and quality."""
_MAX_IN_MEMORY_BYTES: Final = 16 << 20
"""Total size of image files, in bytes, up to which pictures are prepared in memory every start."""
_CODE_FILES: Final = (
    "pictures.py", "store.py", "degrade.py", "clips.py", "images.py", "resize.py",
)  # fmt: skip
"""Source files that determine the prepared pictures; the digest of their code is part of the cache
key."""
_LAYOUT: Final = frozenset({tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE, tokenize.ENDMARKER})
"""Types of the tokens that separate statements and blocks."""


@dataclass(frozen=True)
class Pictures:
    """Aligned (LR, HR) pictures of every scale, uint8 RGB, and a record of their source."""

    lr: dict[int, list[Pixels]]
    hr: dict[int, list[Pixels]]
    record: dict[str, Any]
    """Folders, clips, number of images and a digest of names, sizes and pixels, for the
    checkpoint."""
    file: Path | None = None
    """Memory-mapped file of the pictures, or None if they are in memory."""

    def __reduce__(self) -> Any:
        """Pickle the file name instead of the pixels for spawned processes."""
        if self.file is not None:
            return Pictures.mapped, (self.file,)
        return Pictures, (self.lr, self.hr, self.record)

    @classmethod
    def load(
        cls,
        folders: Sequence[Path],
        scales: tuple[int, ...],
        recipe: Recipe,
        clips: Sequence[Path] = (),
    ) -> "Pictures":
        """Read every usable image and all clips, and make their LR pictures, all in memory.

        Raises TrainError for an unusable clip, and for clips with a recipe that encodes no video.
        """
        lr: dict[int, list[Pixels]] = {s: [] for s in scales}
        hr: dict[int, list[Pixels]] = {s: [] for s in scales}
        record: dict[str, Any] = {}
        for scale, low, high in _prepare(folders, clips, scales, recipe, record):
            lr[scale].append(low)
            hr[scale].append(high)
        return cls(lr, hr, record)

    @classmethod
    def cached(
        cls,
        folders: Sequence[Path],
        scales: tuple[int, ...],
        recipe: Recipe,
        cache: Path,
        clips: Sequence[Path] = (),
    ) -> "Pictures":
        """Return the pictures that `load` makes, mapped from a file in `cache` that is made once.

        The file name is a digest of all inputs: images and clips with sizes and times, the
        recipe's degradation, copies and patch size, the scales and the code. A damaged file is
        rebuilt. Raises TrainError if the cache cannot be written.
        """
        path = cache / f"{_key(folders, clips, scales, recipe)}.pictures"
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):  # only one process prepares
                if path.exists():
                    try:
                        return cls.mapped(path)
                    except DamagedStoreError as exc:
                        log.warning("%s is %s: preparing the pictures again", path, exc)
                for part in cache.glob(f".{path.name}.*.part"):  # left by a killed run
                    part.unlink()
                log.info("preparing the pictures, cached as %s", path)
                record: dict[str, Any] = {}
                write_store(path, _prepare(folders, clips, scales, recipe, record), record)
                log.info("prepared: %s", format_size(path.stat().st_size))
                return cls.mapped(path)
        except OSError as exc:
            raise TrainError(
                f"cannot write {path}: {exc.strerror}: choose another folder with --cache"
            ) from exc

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
    return sum(path.stat().st_size for path in image_files(folders)) > _MAX_IN_MEMORY_BYTES


def _key(
    folders: Sequence[Path], clips: Sequence[Path], scales: tuple[int, ...], recipe: Recipe
) -> str:
    """Return a digest of everything that the prepared pictures depend on, for the cache file."""
    files = [
        [path.parent.name, path.name, path.stat().st_size, path.stat().st_mtime_ns]
        for path in [*image_files(folders), *clips]
    ]
    code = "".join(_code_of(Path(__file__).with_name(name)) for name in _CODE_FILES)
    stream = recipe.encodes_video()  # only this one uses random numbers and encoders
    facts = {
        "files": files,
        "scales": scales,
        "windows": [_smallest_side(recipe, scale) for scale in scales],
        "copies": recipe.copies,
        "degradation": recipe.degradation,
        "seed": recipe.seed if stream else None,
        "code": hashlib.sha256(code.encode()).hexdigest(),
        "libraries": [np.__version__, PIL.__version__, av.__version__ if stream else ""],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _code_of(path: Path) -> str:
    """Return the tokens of a source file, without comments, docstrings and line breaks in brackets.

    `ast.parse` is no alternative: in CPython 3.11 it may fail in two threads at a time.
    """
    code: list[str] = []
    line: list[tokenize.TokenInfo] = []
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in (tokenize.COMMENT, tokenize.NL):
                continue
            line.append(token)
            if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
                is_docstring = {t.type for t in line} <= {tokenize.STRING, *_LAYOUT}
                code += [
                    tokenize.tok_name[t.type] if t.type in _LAYOUT else t.string
                    for t in line
                    if not (is_docstring and t.type == tokenize.STRING)
                ]
                line = []
    return "\n".join(code)


def _prepare(
    folders: Sequence[Path],
    clips: Sequence[Path],
    scales: tuple[int, ...],
    recipe: Recipe,
    record: dict[str, Any],
) -> Iterator[tuple[int, Pixels, Pixels]]:
    """Yield (scale, LR, HR) of every usable image, copy and clip; fill `record` at the end."""
    if clips and not recipe.encodes_video():
        raise TrainError(f"recipe '{recipe.name}' does not compress pictures: leave out --clip")
    for clip in clips:
        check_clip(clip)
    smallest = max(_smallest_side(recipe, s) * s for s in scales)
    digest, count = hashlib.sha256(), 0
    for path, image in images(folders, smallest):
        digest.update(json.dumps([path.name, *image.shape]).encode())
        digest.update(np.ascontiguousarray(image).data)
        rng = np.random.default_rng((recipe.seed, count))
        count += 1
        for picture in _with_copies(image, recipe.copies, smallest):
            for scale in scales:
                for low, high in _degrade(picture, scale, recipe, rng):
                    yield scale, low, high
    for clip in clips:
        digest.update(json.dumps([clip.name, clip.stat().st_size]).encode())
        for scale in scales:
            rng = np.random.default_rng((recipe.seed, scale, *clip.name.encode()))
            least = _smallest_side(recipe, scale) * scale
            stream = stream_settings(recipe.degradation, _smallest_side(recipe, scale))
            for low, high in clip_pairs(clip, scale, least, rng, stream, CLIP_SETTINGS):
                yield scale, low, high
    record.update(folders=[f.name for f in folders], images=count, sha256=digest.hexdigest())
    if clips:
        record["clips"] = [clip.name for clip in clips]


def _check_aligned(lr: dict[int, list[Pixels]], hr: dict[int, list[Pixels]]) -> None:
    """Raise ValueError or KeyError if there are no pictures or a pair is incomplete."""
    if not lr:
        raise ValueError("no pictures")
    for scale in lr.keys() | hr.keys():
        for low, high in zip(lr[scale], hr[scale], strict=True):
            if high.shape != (low.shape[0] * scale, low.shape[1] * scale, 3):
                raise ValueError(f"{high.shape} is not x{scale} of {low.shape}")


def _smallest_side(recipe: Recipe, scale: int) -> int:
    """Return the smallest width and height of a picture in LR pixels; even for `stream`."""
    patch = recipe.lr_patch(scale)
    return patch + patch % 2 if recipe.encodes_video() else patch


def _with_copies(image: Pixels, factors: tuple[float, ...], smallest: int) -> Iterator[Pixels]:
    yield image
    for factor in factors:
        height, width = (round(n * factor) for n in image.shape[:2])
        if min(height, width) >= smallest:
            # contiguous, because the last bit of luma depends on the memory layout
            yield np.ascontiguousarray(resize_u8(image, height, width))


def _degrade(
    picture: Pixels, scale: int, recipe: Recipe, rng: np.random.Generator
) -> list[tuple[Pixels, Pixels]]:
    if recipe.encodes_video():
        stream = stream_settings(recipe.degradation, _smallest_side(recipe, scale))
        # CLIPS clips for each window that fits into the picture's area
        windows = round(picture.shape[0] * picture.shape[1] / (stream.largest_window * scale) ** 2)
        clips = [encoded_pairs(picture, scale, rng, stream) for _ in range(max(1, windows) * CLIPS)]
        return [pair for clip in clips for pair in clip]
    hr = crop_to_multiple(picture, scale)
    return [(np.ascontiguousarray(downscale(hr, scale)), hr)]
