"""Download one URL to one file over an unreliable connection: resume, retry, log progress.

Until FILE is complete, FILE.part holds the received bytes and FILE.part.version the ETag or
modification date of the server's file. A later run resumes if the server still has that version.
"""

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NoReturn
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from train.errors import TrainError

log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses of temporary errors, after which the download is retried."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Retry and timeout settings of a download."""

    attempts: int = 6
    """Number of consecutive attempts without new data after which the download fails."""
    pause: float = 1.0
    """Delay before the first retry, in seconds; doubled for each further one (exponential backoff)
    up to `longest_pause`."""
    longest_pause: float = 60.0
    timeout: float = 30.0
    """Socket timeout, in seconds: longest wait for a byte from the server."""
    report_every: float = 10.0


class _DroppedError(Exception):
    """The transfer stopped early, and a retry may succeed."""


def download(url: str, file: Path, settings: Settings) -> None:
    """Download `url` to `file`, retrying while attempts bring new data; content is not verified.

    Raises TrainError if the download fails, and OSError for disk errors.
    """
    part, fruitless = _part(file), 0
    furthest = _size(part)
    while True:
        try:
            _receive(url, part, settings)
            break
        except _DroppedError as exc:
            # progress means more bytes than ever before: restarting from zero does not count
            fruitless = 1 if _size(part) > furthest else fruitless + 1
            furthest = max(furthest, _size(part))
            if fruitless >= settings.attempts:
                raise TrainError(
                    f"{url}: {exc}, {fruitless} times in a row: the same command goes on later"
                ) from exc
            pause = min(settings.pause * 2 ** (fruitless - 1), settings.longest_pause)
            log.warning("%s: %s, next try in %.0f s", file.name, exc, pause)
            time.sleep(pause)
    part.replace(file)
    _version(part).unlink(missing_ok=True)
    log.info("%s: received, %s", file.name, size_in_words(_size(file)))


def received(file: Path) -> int:
    """Return the number of bytes received so far by an unfinished download of `file`."""
    return _size(_part(file))


def size_in_words(count: float) -> str:
    """Format a number of bytes with about three digits and a unit."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _receive(url: str, part: Path, settings: Settings) -> None:
    """Send one request: resume at the end of `part` if possible, else start from the beginning."""
    have, known = _size(part), _known(part)
    headers = {"User-Agent": "vsr-train"}
    if have and known:  # If-Range: the server sends the whole file if it has changed
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=settings.timeout)
    except HTTPError as exc:
        with exc:
            if exc.code == 416 and exc.headers.get("Content-Range") == f"bytes */{have}":
                return  # already complete
            _refused(url, part, exc)
    except (OSError, HTTPException) as exc:
        raise _DroppedError(f"no connection ({_reason(exc)})") from exc
    with response:
        done = _begin(response, part)
        total = _total(response.headers, done)
        chunks = _told(_chunks(response), part.stem, done, total, settings.report_every)
        with part.open("ab") as file:
            for chunk in chunks:
                file.write(chunk)
    if total is not None and (here := _size(part)) != total:
        raise _DroppedError(
            f"the connection ended at {size_in_words(here)} of {size_in_words(total)}"
        )


def _refused(url: str, part: Path, error: HTTPError) -> NoReturn:
    if error.code == 416:
        _discard(part)  # longer than the server's file: another version
        raise _DroppedError("the file has changed, starting over") from error
    if error.code in _PASSING:
        raise _DroppedError(f"HTTP {error.code} {error.reason}") from error
    raise TrainError(
        f"{url}: HTTP {error.code} {error.reason}: "
        f"get {part.stem} elsewhere and put it into {part.parent}"
    ) from error


def _begin(response: HTTPResponse, part: Path) -> int:
    """Return the file offset of the response's first byte; delete `part` if that is 0."""
    have, version = _size(part), _version_of(response.headers)
    if response.status == 206:
        fits = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        # some servers ignore If-Range and send the range anyway
        if fits and version in (None, _known(part)):
            log.info("%s: going on from %s", part.stem, size_in_words(have))
            return have
        _discard(part)
        raise _DroppedError("the rest does not fit what is here, starting over")
    if have:
        log.info("%s: the server sends it from the start", part.stem)
    _discard(part)
    if version:  # written first: a killed run leaves no data of unknown version
        _version(part).write_text(version, encoding="utf-8")
    return 0


def _version_of(headers: Message) -> str | None:
    """Return the version for If-Range: a strong ETag, else Last-Modified, or None without both."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _total(headers: Message, done: int) -> int | None:
    """Return the size of the whole file in bytes, or None if the server does not send it."""
    whole = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
    if whole:
        return int(whole[1])
    length = headers.get("Content-Length", "")
    return done + int(length) if length.isdecimal() else None


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(_CHUNK):  # returns what has arrived: a timeout loses no data
            yield chunk
    except (OSError, HTTPException) as exc:
        raise _DroppedError(f"the connection broke ({_reason(exc)})") from exc


def _told(
    chunks: Iterator[bytes], name: str, done: int, total: int | None, every: float
) -> Iterator[bytes]:
    """Yield the chunks and log progress and remaining time every `every` seconds."""
    start, began = done, time.monotonic()
    told = began
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        now = time.monotonic()
        if now - told >= every and now > began:
            told, rate = now, (done - start) / (now - began)
            line = f"{name}: {size_in_words(done)}"
            if total:
                left = _duration((total - done) / rate)
                line += f" of {size_in_words(total)} ({done / total:.0%}), {left} left"
            log.info("%s, %s/s", line, size_in_words(rate))


def _part(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def _version(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _known(part: Path) -> str | None:
    """Return the recorded version of `part`, or None if there is none."""
    path = _version(part)
    return path.read_text(encoding="utf-8") if path.exists() else None


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Return the file's size in bytes, 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _reason(exc: BaseException) -> str:
    """Return the text of the cause; a URLError wraps it in `reason`."""
    cause = getattr(exc, "reason", exc)
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
