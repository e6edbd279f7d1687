"""Tells by their names what inputs and outputs are pictures, and lists the files of a sequence."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vsr.errors import InputError
from vsr.media.location import is_stdin, is_url, local

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
"""Endings of pictures -> Pillow's format."""
ANIMATIONS: Final = {".gif": "gif", ".apng": "apng"}
"""Endings of pictures that move -> FFmpeg's container and codec."""
_NUMBER: Final = re.compile(r"%(0\d+)?d")
_PART: Final = re.compile(r"\d+|\D+")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The files of an input that is pictures, in order."""

    name: str
    """Of the input, for messages."""
    files: tuple[Path, ...]
    numbers: tuple[int, ...] = ()
    """Those in the files' names, where the input is a pattern."""

    @property
    def single(self) -> bool:
        """Whether it was named as one file, which may still be an animation."""
        return str(self.files[0]) == local(self.name)


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture, an animation or a pattern of pictures."""
    return path.suffix.lower() in FORMATS


def is_pattern(path: Path) -> bool:
    """Whether the name has a place for a number, such as `frame_%05d.png`."""
    return is_picture(path) and len(_NUMBER.findall(path.name)) == 1


def is_animation(path: Path) -> bool:
    """Whether the name is that of a file which holds pictures with their times."""
    return path.suffix.lower() in ANIMATIONS and not is_pattern(path)


def numbered(pattern: Path, number: int) -> Path:
    """Put a number into a pattern."""
    return pattern.with_name(_NUMBER.sub(lambda m: f"{number:{m[1] or ''}d}", pattern.name))


def find_pictures(input_: str) -> Pictures | None:
    """List the pictures that an input names; None where it names something else.

    A folder is its pictures in natural order (2 before 10), a pattern all files that match it in
    the order of their numbers, gaps or not. Raises InputError for a pattern that nothing matches.
    """
    if is_url(input_) or is_stdin(input_):
        return None
    path = Path(local(input_))
    try:
        if path.is_dir():
            return _within(input_, path)
        if path.exists():
            return Pictures(name=input_, files=(path,)) if is_picture(path) else None
    except OSError:  # such as a name too long: whoever opens it says so
        return None
    return _matching(input_, path) if is_pattern(path) else None


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that name; not where the name cannot even be looked up."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _within(name: str, folder: Path) -> Pictures | None:
    found = [file for file in folder.iterdir() if is_picture(file) and file.is_file()]
    files = tuple(sorted((f for f in found if not f.name.startswith(".")), key=_natural))
    return Pictures(name=name, files=files) if files else None


def _matching(name: str, pattern: Path) -> Pictures:
    place = _NUMBER.search(pattern.name)
    assert place is not None
    before, after = pattern.name[: place.start()], pattern.name[place.end() :]
    form = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
    folder = pattern.parent.iterdir() if pattern.parent.is_dir() else ()
    found = sorted((int(match[1]), file) for file in folder if (match := form.fullmatch(file.name)))
    if not found:
        raise InputError(f"no file matches {name}")
    return Pictures(
        name=name,
        files=tuple(file for _, file in found),
        numbers=tuple(number for number, _ in found),
    )


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    return [
        (not part.isdigit(), int(part) if part.isdigit() else 0, part.lower())
        for part in _PART.findall(path.name)
    ]
