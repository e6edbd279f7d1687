"""Paths and URLs: opening them with clear errors, and showing them without their secrets."""

import errno
import os
import re
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import av

from vsr.errors import InputError, reason

OPEN_TIMEOUT: Final = 10.0
READ_TIMEOUT: Final = 30.0
"""Seconds of silence after which a URL counts as dead."""

_BEGINNING: Final = 1.0
"""Seconds of a feed in which all of its streams begin: of FLV with one, FFmpeg waits for more."""


class Feed(Protocol):
    """An FLV stream that is read here rather than by FFmpeg; `read` ends on silence by itself."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none: it is over. May raise InputError."""


def is_url(text: str) -> bool:
    """Whether `text` names a network stream rather than a file."""
    return "://" in text and not text.startswith("file:")


def shown(url: str) -> str:
    """`url` as it may appear in messages: user, password, query and stream key are masked."""
    if not is_url(url):
        return url
    scheme = url.partition("://")[0]
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:  # no valid URL: what is secret in it cannot be told
        return f"{scheme}://***"
    folder, _, key = parts.path.rstrip("/").rpartition("/")
    path = f"{folder}/***" if key and "rtmp" in scheme.lower() else parts.path
    return f"{scheme}://{host}{port}{path}" + ("?***" if parts.query else "")


def masked(text: str, url: str) -> str:
    """Foreign words about a URL without what `shown` hides of it, quoted whole or in parts."""
    if not is_url(url):
        return text
    text = text.replace(url, shown(url))
    for secret in _secrets(url):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text


def _secrets(url: str) -> list[str]:
    """User, password, stream key and query of a URL, longest first."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return [url.partition("://")[2]]
    found = {parts.username, parts.password, parts.query}
    found |= {pair.partition("=")[2] for pair in parts.query.split("&")}
    if "rtmp" in parts.scheme:
        found.add(parts.path.rstrip("/").rpartition("/")[2])
    known = {text for text in found if text}
    return sorted(known | {unquote(text) for text in known}, key=len, reverse=True)


def local(path: str) -> str:
    """A file's absolute path: FFmpeg would take the colon of `12:30.mp4` for a protocol's."""
    return os.path.abspath(path.removeprefix("file:"))  # noqa: PTH100 - must not resolve links


def open_input(url: str, name: str) -> "av.container.InputContainer":
    """Open a file or URL for reading. Raises InputError."""
    remote = is_url(url)
    try:
        if not remote:
            url = local(url)
            _check_file(Path(url), name)
        return av.open(url, "r", timeout=(OPEN_TIMEOUT, READ_TIMEOUT), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        # FFmpeg's own words hold the whole URL, which even a traceback must not show
        raise InputError(_why(exc, name)) from (None if remote else exc)


def open_live(
    url: str, name: str, silence: float, feed: Feed | None = None
) -> "av.container.InputContainer":
    """Open a stream for reading with little delay; reads fail after `silence` seconds of it.

    With a `feed`, that is what is read; `url` says only where it comes from. Raises InputError.
    """
    if not is_url(url):
        return open_input(url, name)
    # many a server sends a newcomer sound until the next key frame; its video is found no sooner
    wait = max(silence, OPEN_TIMEOUT)
    look = wait if feed is None else _BEGINNING
    options = {
        "fpsprobesize": "0",  # pictures that are looked at for their rate before it begins
        "analyzeduration": str(round(look * 1e6)),
    }
    if url.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    timeout = (wait, silence)
    try:
        return av.open(
            feed or url, "r", format="flv" if feed else None, timeout=timeout, options=options,
            metadata_errors="replace",
        )  # fmt: skip
    except av.error.ExitError:
        raise InputError(f"{name} sends nothing that can be shown") from None
    except av.error.InvalidDataError:
        raise InputError(f"{name} sends something that is no video") from None
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        why = _why(exc, name)
        if getattr(exc, "errno", 0) == errno.EIO:  # FFmpeg's word for an answer it cannot read
            why = f"cannot open {name}: nothing answers there, or it is no stream"
        raise InputError(why) from None  # FFmpeg's words hold the whole URL


def _why(exc: Exception, name: str) -> str:
    if isinstance(exc, av.error.InvalidDataError):
        return (
            f"{name} is not a video, or it is damaged at its start (an MP4 cut off before "
            f"its index cannot be read)"
        )
    return f"cannot open {name}: {reason(exc)}"


def _check_file(path: Path, name: str) -> None:
    if path.is_dir():
        raise InputError(f"{name} is a folder, not a video file")
    if not path.exists():
        raise InputError(f"no such file: {name}")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{name} is empty (0 bytes)")
