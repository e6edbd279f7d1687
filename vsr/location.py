"""Paths and URLs: opening them with clear errors, and showing them without their secrets."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import av

from vsr.errors import InputError, reason

OPEN_TIMEOUT: Final = 10.0
READ_TIMEOUT: Final = 30.0
"""Seconds of silence after which a URL counts as dead."""


def is_url(text: str) -> bool:
    """Whether `text` names a network stream rather than a file."""
    return "://" in text and not text.startswith("file:")


def shown(url: str) -> str:
    """`url` as it may appear in messages: user, password, query and stream key are masked."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    host = parts.hostname or ""
    folder, _, key = parts.path.rpartition("/")
    path = f"{folder}/***" if key and parts.scheme.startswith("rtmp") else parts.path
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{path}" + ("?***" if parts.query else "")


def open_input(url: str, name: str) -> "av.container.InputContainer":
    if not is_url(url):
        _check_file(Path(url), name)
    try:
        return av.open(url, "r", timeout=(OPEN_TIMEOUT, READ_TIMEOUT), metadata_errors="replace")
    except av.error.InvalidDataError as exc:
        raise InputError(
            f"{name} is not a video, or it is damaged at its start (an MP4 cut off before "
            f"its index cannot be read)"
        ) from exc
    except (av.error.FFmpegError, OSError) as exc:
        raise InputError(f"cannot open {name}: {reason(exc)}") from exc


def _check_file(path: Path, name: str) -> None:
    if path.is_dir():
        raise InputError(f"{name} is a folder, not a video file")
    if not path.exists():
        raise InputError(f"no such file: {name}")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{name} is empty (0 bytes)")
