"""Opens paths and URLs with clear errors, and masks secrets of URLs in messages."""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote

import av

from vsr.errors import InputError, UsageError, reason
from vsr.media.tls import ca_file

OPEN_TIMEOUT: Final = 10.0
READ_TIMEOUT: Final = 30.0
"""Timeouts of a URL without data, on opening and on reading, in seconds."""

STDIN: Final = "-"
_PROBE_S: Final = 1.0
"""Probe duration in seconds of stream time; for FLV with one stream, FFmpeg uses all of it."""
_NO_STREAM: Final = "no server answers there, or it is not a stream"
_NO_RTMP: Final = "nobody publishes this stream, or no RTMP server answers there"
_RTMP_CLOSED: Final = (errno.EPERM, errno.EPIPE, errno.ECONNRESET)
"""Errors besides EIO (no answer) where the other side sends no RTMP, or closes the connection."""
_XML_HEAD_BYTES: Final = 4096
"""Number of bytes in which to look for the root element of an XML file."""
_MIN_PIECE_LENGTH: Final = 4
"""Minimum length of a URL part that is masked in a message; shorter ones may be plain words."""
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+(%\w+)?\]|[^:\s\[\]]*)(:\d*)?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_ANY_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://[^\s'\"<>|]+")


class Feed(Protocol):
    """FLV stream that Python reads instead of FFmpeg; `read` has a timeout."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; return b"" at the end. May raise InputError."""


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


def open_input(url: str, name: str) -> "av.container.InputContainer":
    """Open a file or URL for reading. Raises InputError."""
    remote = is_url(url)
    try:
        if is_stdin(url):
            _check_stdin()
            url = "pipe:0"
        elif not remote:
            url = absolute_path(url)
            _check_file(Path(url), name)
        url, timeout = normal_url(url), (OPEN_TIMEOUT, READ_TIMEOUT)
        return av.open(url, "r", timeout=timeout, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        # FFmpeg's message contains the whole URL, which even a traceback must not show
        raise InputError(_error_message(exc, name, url)) from (None if remote else exc)


def open_live(
    url: str, name: str, read_timeout: float, feed: Feed | None = None, verify: bool = True
) -> "av.container.InputContainer":
    """Open a stream for reading with low latency.

    Reads fail after `read_timeout` seconds without data. With a `feed`, data is read from it, and
    `url` only names its origin. `verify`: whether to check the certificate and name of an rtmps://
    server. Raises InputError.
    """
    if not is_url(url):
        return open_input(url, name)
    url, wait = normal_url(url), max(read_timeout, OPEN_TIMEOUT)
    found = _open_probing(url, name, _PROBE_S, (wait, read_timeout), feed, verify)
    if feed is None and not (found.streams.video and all(map(_is_known, found.streams.video))):
        # many servers send a new client only audio until the next key frame: wait for the video
        found.close()
        found = _open_probing(url, name, wait, (wait, read_timeout), feed, verify)
    return found


def _is_known(video: av.VideoStream) -> bool:
    """Return whether a video's size is known, or never will be as FFmpeg cannot decode it."""
    context = video.codec_context
    return context is None or context.width > 0


def _open_probing(
    url: str, name: str, look: float, timeout: tuple[float, float], feed: Feed | None, verify: bool
) -> "av.container.InputContainer":
    """Open a stream and probe it for `look` seconds for its streams. Raises InputError."""
    options = {
        "fpsprobesize": "0",  # pictures probed for the frame rate
        "analyzeduration": str(round(look * 1e6)),
    }
    if url.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    is_rtmp = url.startswith("rtmp")
    if is_rtmp:
        options["tcp_nodelay"] = "1"  # else each handshake step waits 40 ms for the last ACK
    checked = verify and url.startswith("rtmps")
    if checked:
        options |= {"tls_verify": "1", "ca_file": ca_file()}
    try:
        return av.open(
            feed or url, "r", format="flv" if feed else None, timeout=timeout, options=options,
            metadata_errors="replace",
        )  # fmt: skip
    except av.error.ExitError:
        raise InputError(f"{name} sent nothing that can be decoded before the timeout") from None
    except av.error.InvalidDataError:
        why = _unreadable(url, name) or f"{name} sends data that is not a video"
        raise InputError(why) from None
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        why, code = _error_message(exc, name, url), getattr(exc, "errno", 0)
        if code == errno.EIO or (is_rtmp and code in _RTMP_CLOSED):
            why = f"cannot open {name}: {_NO_RTMP if is_rtmp else _NO_STREAM}"
            why += ", or its certificate is invalid (--tls-no-verify accepts any)" * checked
        raise InputError(why) from None  # FFmpeg's message contains the whole URL


def _unreadable(url: str, name: str) -> str:
    """Return the error message for a DASH manifest, which this FFmpeg cannot read; else ""."""
    try:
        if is_url(url):
            dash = re.split(r"[?#]", url, maxsplit=1)[0].lower().endswith(".mpd")
        elif not Path(url).is_file():  # reading a pipe would block or consume data
            return ""
        else:
            with Path(url).open("rb") as file:
                dash = b"<MPD" in file.read(_XML_HEAD_BYTES)
    except OSError:
        return ""
    if not dash:
        return ""
    return (
        f"{name} is a DASH manifest, which this FFmpeg cannot read: use the stream's HLS playlist"
    )


def _error_message(exc: Exception, name: str, url: str) -> str:
    if isinstance(exc, av.error.InvalidDataError):
        return _unreadable(url, name) or (
            f"{name} is not a video, or it is damaged at its start (an MP4 cut off before "
            f"its index cannot be read)"
        )
    return f"cannot open {name}: {reason(exc)}"


def _check_stdin() -> None:
    if os.isatty(0):
        raise InputError("the input is stdin, which is a terminal: pipe a video into it")


def _check_file(path: Path, name: str) -> None:
    if path.is_dir():
        raise InputError(f"{name} is a folder, not a video file")
    if not path.exists():
        raise InputError(f"no such file: {name}")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{name} is empty (0 bytes)")
