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
_RETRY_STATUSES = {408, 425, 429, 500, 502, 503, 504}
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


class _RetryableError(Exception):
    """The transfer stopped early, and a retry may succeed."""


def download(url: str, file: Path, settings: Settings) -> None:
    """Download `url` to `file`, retrying while attempts bring new data; content is not verified.

    Raises TrainError if the download fails, and OSError for disk errors.
    """
    part, failures = _part_file(file), 0
    most_received = _size(part)
    while True:
        try:
            _receive(url, part, settings)
            break
        except _RetryableError as exc:
            # progress means more bytes than ever before: restarting from zero does not count
            failures = 1 if _size(part) > most_received else failures + 1
            most_received = max(most_received, _size(part))
            if failures >= settings.attempts:
                raise TrainError(
                    f"{url}: {exc}, {failures} attempts without new data: "
                    "run the same command to resume"
                ) from exc
            pause = min(settings.pause * 2 ** (failures - 1), settings.longest_pause)
            log.warning("%s: %s, retrying in %.0f s", file.name, exc, pause)
            time.sleep(pause)
    part.replace(file)
    _version_file(part).unlink(missing_ok=True)
    log.info("%s: downloaded, %s", file.name, format_size(_size(file)))


def received_bytes(file: Path) -> int:
    """Return the number of bytes received so far by an unfinished download of `file`."""
    return _size(_part_file(file))


def format_size(count: float) -> str:
    """Format a number of bytes with about three digits and a unit."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _receive(url: str, part: Path, settings: Settings) -> None:
    """Send one request: resume at the end of `part` if possible, else start from the beginning."""
    have, known = _size(part), _saved_version(part)
    headers = {"User-Agent": "vsr-train"}
    if have and known:  # If-Range: the server sends the whole file if it has changed
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=settings.timeout)
    except HTTPError as exc:
        with exc:
            if exc.code == 416 and exc.headers.get("Content-Range") == f"bytes */{have}":
                return  # already complete
            _raise_http_error(url, part, exc)
    except (OSError, HTTPException) as exc:
        raise _RetryableError(f"no connection ({_reason(exc)})") from exc
    with response:
        done = _resume_offset(response, part)
        total = _total(response.headers, done)
        chunks = _log_progress(_chunks(response), part.stem, done, total, settings.report_every)
        with part.open("ab") as file:
            for chunk in chunks:
                file.write(chunk)
    if total is not None and (here := _size(part)) != total:
        raise _RetryableError(f"connection closed at {format_size(here)} of {format_size(total)}")


def _raise_http_error(url: str, part: Path, error: HTTPError) -> NoReturn:
    if error.code == 416:
        _discard(part)  # longer than the server's file: another version
        raise _RetryableError("the file on the server has changed, restarting") from error
    if error.code in _RETRY_STATUSES:
        raise _RetryableError(f"HTTP {error.code} {error.reason}") from error
    raise TrainError(
        f"{url}: HTTP {error.code} {error.reason}: "
        f"download {part.stem} elsewhere and move it to {part.parent}"
    ) from error


def _resume_offset(response: HTTPResponse, part: Path) -> int:
    """Return the file offset of the response's first byte; delete `part` if that is 0."""
    have, version = _size(part), _version_of(response.headers)
    if response.status == 206:
        fits = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        # some servers ignore If-Range and send the range anyway
        if fits and version in (None, _saved_version(part)):
            log.info("%s: resuming at %s", part.stem, format_size(have))
            return have
        _discard(part)
        raise _RetryableError("the server's data does not continue the partial file, restarting")
    if have:
        log.info("%s: the server sends the whole file, restarting", part.stem)
    _discard(part)
    if version:  # written first: a killed run leaves no data of unknown version
        _version_file(part).write_text(version, encoding="utf-8")
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
        raise _RetryableError(f"connection lost ({_reason(exc)})") from exc


def _log_progress(
    chunks: Iterator[bytes], name: str, done: int, total: int | None, every: float
) -> Iterator[bytes]:
    """Yield the chunks and log progress and remaining time every `every` seconds."""
    start, began = done, time.monotonic()
    last_report = began
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        now = time.monotonic()
        if now - last_report >= every and now > began:
            last_report, rate = now, (done - start) / (now - began)
            line = f"{name}: {format_size(done)}"
            if total:
                left = _duration((total - done) / rate)
                line += f" of {format_size(total)} ({done / total:.0%}), {left} left"
            log.info("%s, %s/s", line, format_size(rate))


def _part_file(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _saved_version(part: Path) -> str | None:
    """Return the recorded version of `part`, or None if there is none."""
    path = _version_file(part)
    return path.read_text(encoding="utf-8") if path.exists() else None


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


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
