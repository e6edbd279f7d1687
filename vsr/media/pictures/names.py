"""Identifies image inputs and outputs by their names, and lists the files of a sequence."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vsr.errors import InputError
from vsr.media.location import absolute_path, is_stdin, is_url

FORMATS: Final = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".apng": "PNG",
}
"""Ending of image files -> Pillow's format."""
ANIMATIONS: Final = {".gif": "gif", ".apng": "apng"}
"""Ending of animations -> FFmpeg's container and codec."""
_VIDEOS: Final = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv",
    ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".rm", ".rmvb", ".ts",
    ".vob", ".webm", ".wmv", ".y4m",
})  # fmt: skip
"""Endings of video files, with which a folder is no sequence of pictures."""
_NUMBER: Final = re.compile(r"%(0\d+)?d")
_PART: Final = re.compile(r"\d+|\D+")


@dataclass(frozen=True, kw_only=True)
class PictureFiles:
    """Files of an image input, in order."""

    name: str
    """Name of the input, for messages."""
    files: tuple[Path, ...]
    numbers: tuple[int, ...] = ()
    """Numbers in the files' names if the input is a pattern; else empty."""

    @property
    def single(self) -> bool:
        """Whether the input was named as one file, which may be an animation."""
        return str(self.files[0]) == absolute_path(self.name)


def is_picture(path: Path) -> bool:
    """Return whether the name is that of an image, an animation or a pattern of images."""
    return path.suffix.lower() in FORMATS


def has_videos(files: Iterable[Path]) -> bool:
    """Return whether a file's name is that of a video; images beside it are posters or previews."""
    return any(file.suffix.lower() in _VIDEOS and file.name[0] != "." for file in files)


def is_pattern(path: Path) -> bool:
    """Return whether the name has a placeholder for a number, such as `frame_%05d.png`."""
    return is_picture(path) and len(_NUMBER.findall(path.name)) == 1


def is_animation(path: Path) -> bool:
    """Return whether the name is that of an animation (GIF or APNG)."""
    return path.suffix.lower() in ANIMATIONS and not is_pattern(path)


def insert_number(pattern: Path, number: int) -> Path:
    """Insert a number into a pattern."""
    return pattern.with_name(_NUMBER.sub(lambda m: f"{number:{m[1] or ''}d}", pattern.name))


def find_pictures(input_: str, output: str | os.PathLike[str] = "") -> PictureFiles | None:
    """Return the image files that an input names; None if it names something else.

    A folder without videos stands for its images in natural order (2 before 10), a pattern for all
    files that match it in numeric order, with or without gaps. `output` of the same run may be a
    video in the folder. Raises InputError if no file matches a pattern.
    """
    if is_url(input_) or is_stdin(input_):
        return None
    path = Path(absolute_path(input_))
    try:
        if path.is_dir():
            return _in_folder(input_, path, Path(output))
        if path.exists():
            return PictureFiles(name=input_, files=(path,)) if is_picture(path) else None
    except OSError:  # such as a name too long: opening it raises the error
        return None
    return _matching_pattern(input_, path) if is_pattern(path) else None


def is_folder(path: Path) -> bool:
    """Return whether the path is a folder; False if it cannot be looked up."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _in_folder(name: str, folder: Path, output: Path) -> PictureFiles | None:
    inside = [file for file in folder.iterdir() if file.is_file()]
    if has_videos(file for file in inside if not _is_same(file, output)):
        return None
    found = [file for file in inside if is_picture(file)]
    files = tuple(sorted((f for f in found if not f.name.startswith(".")), key=_natural))
    return PictureFiles(name=name, files=files) if files else None


def _is_same(file: Path, other: Path) -> bool:
    return file.name == other.name and other.exists() and file.samefile(other)


def _matching_pattern(name: str, pattern: Path) -> PictureFiles:
    place = _NUMBER.search(pattern.name)
    assert place is not None
    before, after = pattern.name[: place.start()], pattern.name[place.end() :]
    form = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
    folder = pattern.parent.iterdir() if pattern.parent.is_dir() else ()
    found = sorted((int(match[1]), file) for file in folder if (match := form.fullmatch(file.name)))
    if not found:
        raise InputError(f"no file matches {name}")
    return PictureFiles(
        name=name,
        files=tuple(file for _, file in found),
        numbers=tuple(number for number, _ in found),
    )


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    return [
        (not part.isdigit(), int(part) if part.isdigit() else 0, part.lower())
        for part in _PART.findall(path.name)
    ]
