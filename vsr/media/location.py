"""Paths and URLs of inputs and outputs: checks them, and masks secrets of URLs in messages."""

import os
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import av

from vsr.errors import UsageError

STDIN: Final = "-"
_MIN_PIECE_LENGTH: Final = 4
"""Minimum length of a URL part that is masked in a message; shorter ones may be plain words."""
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+(%\w+)?\]|[^:\s\[\]]*)(:\d*)?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_ANY_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://[^\s'\"<>|]+")


def is_stdin(text: str) -> bool:
    """Return whether an input is stdin."""
    return text == STDIN


def is_url(text: str) -> bool:
    """Return whether `text` names a network stream rather than a file."""
    return "://" in text and not text.startswith("file:")


def normal_url(text: str) -> str:
    """Return a URL with a scheme in lower case, as FFmpeg expects it; other text unchanged."""
    scheme, mark, rest = text.partition("://")
    return f"{scheme.lower()}{mark}{rest}" if is_url(text) else text


def url_for_messages(url: str) -> str:
    """Format `url` for messages: scheme, host, port and, for RTMP, the application.

    Anything else may be a secret and becomes `***`: user and password, stream keys and tokens in
    the path, the query, the fragment.
    """
    if not is_url(url):
        return "stdin" if is_stdin(url) else url
    parts = _parts(url)
    if parts is None:  # the end of the host is ambiguous
        return f"{url.partition('://')[0]}://***"
    hidden = "/***" if parts.path.strip("/") else ""
    if "rtmp" in parts.scheme.lower() and parts.application:
        hidden = f"/{parts.application}/***"
    return f"{parts.scheme}://{parts.host}{hidden}" + ("?***" if parts.query else "")


def mask_secrets(text: str, url: str = "") -> str:
    """Mask secrets of `url`, whole or in parts, and of any other URL in a library's message."""
    if is_url(url):
        text = text.replace(url, url_for_messages(url))
    text = _ANY_URL.sub(lambda found: url_for_messages(found[0]), text)
    for secret in _secrets(url) if is_url(url) else ():
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text


@dataclass(frozen=True)
class _Parts:
    """Parts of a URL, unchanged."""

    scheme: str
    user: str
    host: str
    """Host with the port."""
    path: str
    query: str
    """Query with the fragment."""

    @property
    def application(self) -> str:
        """Part of an RTMP path before the stream key; empty if there is none."""
        return self.path.strip("/").rpartition("/")[0]


def _parts(url: str) -> _Parts | None:
    """Split a URL into parts; return None if host and secrets cannot be distinguished."""
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, _, host = authority.rpartition("@")
    path, *query = re.split(r"[?#]", rest[len(authority) :], maxsplit=1)
    # a slash in a password ends the authority before its @
    if not _HOST.fullmatch(host) or "@" in path:
        return None
    return _Parts(scheme, user, host, path, query[0] if query else "")


def _secrets(url: str) -> list[str]:
    """Return what `url_for_messages` hides of a URL, whole and in pieces, longest first."""
    parts = _parts(url)
    if parts is None:
        rest = url.partition("://")[2]
        found = {rest, *_pieces(rest)}
    else:
        path = parts.path.strip("/")
        if "rtmp" in parts.scheme.lower():
            path = path.removeprefix(parts.application).strip("/")
        found = {path, *_pieces(path), *re.split("[:@]", parts.user), parts.query}
        found |= {pair.rpartition("=")[2] for pair in re.split("[&#]", parts.query)}
        found |= _pieces(parts.query)
    known = {text for text in found if text}
    return sorted(known | {unquote(text) for text in known}, key=len, reverse=True)


def _pieces(text: str) -> set[str]:
    """Return the pieces of a path or a query that may be secrets by themselves."""
    pieces = {*re.split(r"[/?#&=:@\s]", text), *re.split(r"[/?#&=:@;,._\s]", text)}
    return {piece for piece in pieces if len(piece) >= _MIN_PIECE_LENGTH}


def check_address(url: str) -> None:
    """Raise UsageError for a URL that no server can have: it would be retried forever."""
    if not is_url(url):
        return
    scheme, _, rest = url.partition("://")
    authority, *others = re.split(r"[/?#]", rest, maxsplit=1)
    host = authority.rpartition("@")[2]
    _, colon, port = host.rpartition(":")
    if colon and "]" not in port and not (_PORT.fullmatch(port) and 0 < int(port) < 2**16):
        raise UsageError(
            f"{url_for_messages(url)}: the port is not a number from 1 to 65535 "
            "(in a user name or password, write / as %2F, : as %3A and @ as %40)"
        )
    if scheme.lower() in ("rtmp", "rtmps") and not (host and others and others[0].strip("/")):
        raise UsageError(
            f"{url_for_messages(url)} has no stream key: write "
            f"{scheme}://HOST/APPLICATION/KEY, with the server and the key that the service shows"
        )


def check_protocol(url: str) -> None:
    """Raise UsageError if FFmpeg was built without the protocol of a URL.

    Otherwise it would be retried forever. FFmpeg looks up the protocol before it checks the
    whitelist, which allows none here, so that nothing is sent over the network.
    """
    if not is_url(url):
        return
    try:
        av.open(normal_url(url), "r", options={"protocol_whitelist": "none"}).close()
    except av.error.ProtocolNotFoundError:
        scheme = url.partition("://")[0]
        raise UsageError(
            f"this FFmpeg does not support {scheme}: use another protocol, or a PyAV built with an "
            f"FFmpeg that does"
        ) from None  # FFmpeg's message contains the whole URL
    except (av.error.FFmpegError, OSError, ValueError):
        return


def absolute_path(path: str) -> str:
    """Make a file's path absolute; otherwise FFmpeg takes `12:30.mp4` for a protocol."""
    return os.path.abspath(path.removeprefix("file:"))  # noqa: PTH100 - must not resolve links
