"""Opens files and URLs for reading, with clear errors."""

import errno
import os
import re
from pathlib import Path
from typing import Final, Protocol

import av

from vsr.errors import InputError, reason
from vsr.media.location import absolute_path, is_stdin, is_url, normal_url
from vsr.media.tls import ca_file

OPEN_TIMEOUT: Final = 10.0
READ_TIMEOUT: Final = 30.0
"""Timeouts of a URL without data, on opening and on reading, in seconds."""
READ_ERRORS: Final = (av.error.FFmpegError, OSError, RuntimeError)
"""Errors when an input is read; PyAV's timeouts raise RuntimeError if the clock jumps back."""

_PROBE_S: Final = 1.0
"""Probe duration in seconds of stream time; for FLV with one stream, FFmpeg uses all of it."""
_NO_STREAM: Final = "no server answers there, or it is not a stream"
_NO_RTMP: Final = "nobody publishes this stream, or no RTMP server answers there"
_RTMP_CLOSED: Final = (errno.EPERM, errno.EPIPE, errno.ECONNRESET)
"""Errors besides EIO (no answer) where the other side sends no RTMP, or closes the connection."""
_XML_HEAD_BYTES: Final = 4096
"""Number of bytes in which to look for the root element of an XML file."""


class Feed(Protocol):
    """FLV stream that Python reads instead of FFmpeg; `read` has a timeout."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; return b"" at the end. May raise InputError."""


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
        # no timeouts for files and pipes: a slow disk or program is no error
        timeout = (OPEN_TIMEOUT, READ_TIMEOUT) if remote else None
        return av.open(normal_url(url), "r", timeout=timeout, metadata_errors="replace")
    except (*READ_ERRORS, ValueError) as exc:
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
    except (*READ_ERRORS, ValueError) as exc:
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
