"""Writes frames as images: one file, or one file per frame."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from vsr.errors import OutputError, UsageError
from vsr.media.colour import RGB
from vsr.media.encoder import EncoderSettings, VideoFormat
from vsr.media.frame import Frame, now
from vsr.media.pictures.extras import Extras
from vsr.media.pictures.names import FORMATS, insert_number, is_pattern
from vsr.media.target import output_exists_error
from vsr.media.timestamps import Packet
from vsr.media.whole_file import real_path, temporary_path, write_atomically, writing_failed

_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}
_OPTIONS: Final = {
    "JPEG": ("quality", "subsampling", "progressive", "optimize"),
    "WEBP": ("quality", "lossless", "method", "exact"),
    "PNG": ("compress_level", "optimize"),
    "TIFF": ("compression", "quality"),
}
"""Pillow format -> options that `-e` may set."""
PILLOW: Final = "Pillow"
"""Encoder name that is reported for images."""
_WHITE: Final = 255
_NO_ALPHA: Final = ("JPEG", "BMP")

Rgb = npt.NDArray[np.uint8]


def rgb_of(frame: Frame) -> Rgb:
    """Convert an enlarged frame to R'G'B' uint8 [H, W, 3]."""
    if frame.colour.matrix == RGB:
        green, blue, red = frame.planes
        return np.stack([red, green, blue], axis=-1).astype(np.uint8, copy=False)
    return frame.to_rgb()


def apply_display_matrix(rgb: Rgb, matrix: tuple[int, ...] | None) -> Rgb:
    """Rotate and flip an image by a display matrix, which image files cannot hold.

    The matrix (a b u, c d v, x y w) maps column p and row q to (a p + c q, b p + d q).
    """
    if matrix is None:
        return rgb
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(b) > abs(a):  # columns become rows
        rgb, a, d = rgb.swapaxes(0, 1), c, b
    if a < 0:
        rgb = rgb[:, ::-1]
    if d < 0:
        rgb = rgb[::-1]
    return np.ascontiguousarray(rgb)


class StillSink:
    """Writes frames as image files. Use from one thread, in a `with` block around all writing.

    A new file gets its final name when it is complete; a file that exists is replaced only in
    `close`. Leaving the block without `close`, as after an error, deletes everything written, so
    that all files are as before.
    """

    def __init__(
        self,
        path: Path,
        video: VideoFormat,
        settings: EncoderSettings,
        extras: MutableMapping[int, Extras],
        scale: int,
        overwrite: bool,
        transparent: bool = False,
    ) -> None:
        """`path`: a file, a pattern or a folder, whose files are named like the input's. Entries of
        `extras` are removed as their frames arrive. Raises UsageError for video options."""
        self.path = path
        self.frames_in = self.frames_out = self.packets_refused = 0
        self.left_out: list[str] = []
        self.converted: list[str] = []
        self._matrix, self._extras, self._scale = video.display_matrix, extras, scale
        self._overwrite = overwrite
        self._options = picture_options(path, settings)
        self._new: set[Path] = set()
        self._replacements: dict[Path, Path] = {}
        """File that existed before -> temporary file that will replace it."""
        if transparent and FORMATS.get(path.suffix.lower()) in _NO_ALPHA:
            self.left_out.append("transparency (replaced by white)")
        if video.sample_aspect not in (None, 1):
            self.left_out.append("the pixel aspect")

    def __enter__(self) -> "StillSink":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._new, *self._replacements.values()):
            file.unlink(missing_ok=True)

    @property
    def encoder(self) -> str:
        """Name of the library that writes the images."""
        return PILLOW

    def write(self, item: Frame | Packet) -> list[Frame]:
        """Write a frame's file; return the frame, without its planes. Raises OutputError."""
        if not isinstance(item, Frame):
            return []
        extras = self._extras.pop(item.index, Extras())
        item.stamps.encode_start = now()
        file = self._target(extras)
        self.frames_in += 1
        self._save(file, item, extras)
        self.frames_out += 1
        item.stamps.encoded = item.stamps.muxed = now()
        return [item.without_planes()]

    def drain(self) -> list[Frame]:
        """Return an empty list: nothing is buffered."""
        return []

    def close(self) -> None:
        """Replace the files that existed before; keep all files. Raises OutputError."""
        for file, part in self._replacements.items():
            try:
                part.replace(file)
            except OSError as exc:
                raise writing_failed("write", file, exc) from exc
        self._new.clear()
        self._replacements.clear()

    def _target(self, extras: Extras) -> Path:
        """Return the next frame's file. Raises OutputError."""
        if is_pattern(self.path):
            number = self.frames_in + 1 if extras.number is None else extras.number
            file = insert_number(self.path, number)
        elif self.path.is_dir():
            file = folder_file(self.path, extras.file)
        else:
            file = self.path
            if self.frames_in:
                raise OutputError(
                    f"{self.path.name} holds one picture: use a pattern such as "
                    f"{self.path.stem}_%05d{self.path.suffix}, or --max-frames 1"
                )
        if file.is_dir():
            raise OutputError(f"the output {file} is a folder: remove it or choose another name")
        if file.exists() and not self._overwrite:
            raise output_exists_error(file)
        return file

    def _save(self, file: Path, frame: Frame, extras: Extras) -> None:
        kind = FORMATS[file.suffix.lower()]
        image = make_image(
            apply_display_matrix(rgb_of(frame), self._matrix), extras, kind not in _NO_ALPHA
        )
        own = extras.save_arguments(kind, self._scale)
        given = {**_DEFAULTS.get(kind, {}), **own, **self._options}
        target = real_path(file)
        try:
            if target.exists() and target not in self._new:
                part = self._replacements.setdefault(target, temporary_path(target))
                image.save(part, kind, **given)
            else:
                with write_atomically(target) as part:
                    image.save(part, kind, **given)
                self._new.add(target)
        except (OSError, ValueError, RuntimeError, SystemError) as exc:  # from Pillow's writers
            raise writing_failed("write", file, exc) from exc


def make_image(rgb: Rgb, extras: Extras, with_alpha: bool) -> Image.Image:
    """Make an image from colours and `extras`; without `with_alpha`, on a white background."""
    image = Image.fromarray(rgb)
    if extras.alpha is not None:
        alpha = Image.fromarray(extras.alpha).resize(image.size, Image.Resampling.BICUBIC)
        if with_alpha:
            image.putalpha(alpha)
            return image.convert("LA") if extras.grey else image
        image = Image.composite(image, Image.new("RGB", image.size, (_WHITE,) * 3), alpha)
    return image.convert("L") if extras.grey else image


def folder_file(folder: Path, source: Path | None) -> Path:
    """Return the file in a folder to write an image to, named like its source."""
    assert source is not None
    suffix = source.suffix if source.suffix.lower() in FORMATS else ".png"
    return folder / (source.stem + (".png" if suffix.lower() == ".gif" else suffix))


def picture_options(path: Path, settings: EncoderSettings) -> dict[str, Any]:
    """Return Pillow's arguments from `-e`. Raises UsageError for options that images lack."""
    kind = FORMATS.get(path.suffix.lower(), "PNG")
    known = _OPTIONS.get(kind, ())
    if settings != EncoderSettings(options=settings.options):
        use = "use -e quality=90" if "quality" in known else "leave them out"
        raise UsageError(f"pictures have no codec, crf, preset or bitrate: {use}")
    for name in settings.options:
        if name not in known:
            raise UsageError(f"{kind} has no option '{name}'; it has: {', '.join(known) or 'none'}")
    return {key: _number(value) for key, value in settings.options.items()}


def _number(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text
