"""Lists the local files of an input: the file itself, and those that a playlist names.

An output must not replace any of them: FFmpeg opens most of them only during the run.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote
from xml.etree import ElementTree

from vsr.media.location import absolute_path, is_stdin, is_url

_MAX_PLAYLIST_BYTES: Final = 16 * 2**20
"""Maximum number of bytes that are read of a playlist."""
_MAX_NESTING: Final = 3
"""Maximum nesting of playlists that is followed; HLS has two levels."""
_HLS_URI: Final = re.compile(r'URI="([^"]*)"')
_CONCAT_FILE: Final = re.compile(r"""^\s*file\s+(?:'((?:[^']|'\\'')*)'|(\S+))""", re.MULTILINE)
_DASH_ATTRIBUTES: Final = ("media", "initialization", "sourceURL", "index")
_DASH_NUMBER: Final = re.compile(r"\$[A-Za-z]+(?:%\d*d)?\$")


def is_part_of(path: Path, url: str) -> bool:
    """Return whether `path` exists and is one of the files that the input `url` is read from.

    Hard links, symbolic links, other spellings, and names that differ in case on a
    case-insensitive file system, are the same file.
    """
    if is_url(url) or is_stdin(url) or not path.exists():
        return False
    return any(file.exists() and path.samefile(file) for file in files_of(Path(absolute_path(url))))


def files_of(path: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the file itself and, for HLS, DASH and concat lists, the local files it names."""
    yield path
    if depth == _MAX_NESTING or not path.is_file():
        return
    text = _playlist(path)
    if text.startswith("#EXTM3U"):
        names = _hls(text)
    elif text.startswith("ffconcat"):
        names = _concat(text)
    elif "<MPD" in text[:4096]:
        names = _dash(text)
    else:
        return
    for name in names:
        if name and not is_url(name):
            found = path.parent / local_name(name)
            if "*" in found.name:
                yield from sorted(found.parent.glob(found.name))
            else:
                yield from files_of(found, depth + 1)


def local_name(reference: str) -> str:
    """Convert a reference to the file name that FFmpeg opens: no query, percent decoded."""
    return unquote(reference.removeprefix("file:").partition("?")[0])


def _playlist(path: Path) -> str:
    """Read a playlist; return "" for any other file."""
    with path.open("rb") as file:
        if (
            not file.read(64)
            .lstrip(b"\xef\xbb\xbf \r\n")
            .startswith((b"#EXTM3U", b"ffconcat", b"<"))
        ):
            return ""
        file.seek(0)
        return file.read(_MAX_PLAYLIST_BYTES).decode("utf-8-sig", "replace").lstrip()


def _hls(text: str) -> Iterator[str]:
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#"):
            yield from _HLS_URI.findall(line)
        else:
            yield line


def _concat(text: str) -> Iterator[str]:
    for quoted, plain in _CONCAT_FILE.findall(text):
        yield quoted.replace("'\\''", "'") or plain


def _dash(text: str) -> Iterator[str]:
    """Yield segments as FFmpeg's dash demuxer finds them: BaseURL elements, and numbered names.

    `$Number$` and similar placeholders become `*`, for globbing.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return
    bases = [""]
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "BaseURL" and element.text:
            bases.append(element.text.strip())
            yield element.text.strip()
    for element in root.iter():
        for key in _DASH_ATTRIBUTES:
            if name := element.get(key):
                pattern = _DASH_NUMBER.sub("*", name)
                yield from (f"{base.rstrip('/')}/{pattern}" if base else pattern for base in bases)
