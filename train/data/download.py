"""So that gigabytes arrive over a bad line: one URL to one file, resumed, retried, with progress.

Until FILE is complete there is FILE.part and, in FILE.part.version, what the server calls the bytes
that it is a part of. A later run goes on from there if the server still has the same bytes.
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
"""HTTP statuses that another try may cure."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How patient a download is; times are in seconds."""

    attempts: int = 6
    """Tries in a row that bring nothing new before it gives up."""
    pause: float = 1.0
    """Before the second try; doubled before each further one, up to `longest_pause`."""
    longest_pause: float = 60.0
    timeout: float = 30.0
    """Without a byte from the server."""
    report_every: float = 10.0


class _DroppedError(Exception):
    """The transfer stopped early in a way that another try may cure."""


def download(url: str, file: Path, settings: Settings) -> None:
    """Receive `url` as `file`, in as many tries as bring anything new; what it holds is unchecked.

    Raises TrainError when it gives up, and OSError for whatever is wrong with the disk.
    """
    part, fruitless = _part(file), 0
    furthest = _size(part)
    while True:
        try:
            _receive(url, part, settings)
            break
        except _DroppedError as exc:
            # counted against the furthest ever: a server that can only start over is no progress
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
    """Bytes of an unfinished download of `file` that are here already."""
    return _size(_part(file))


def size_in_words(count: float) -> str:
    """A number of bytes for people: three digits."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _receive(url: str, part: Path, settings: Settings) -> None:
    """One request: on from the end of `part`, or from the start where that cannot be."""
    have, known = _size(part), _known(part)
    headers = {"User-Agent": "vsr-train"}
    if have and known:  # If-Range: should the file be another by now, the server sends it whole
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=settings.timeout)
    except HTTPError as exc:
        with exc:
            if exc.code == 416 and exc.headers.get("Content-Range") == f"bytes */{have}":
                return  # nothing is left to send
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
        _discard(part)  # longer than the server's file: of another one
        raise _DroppedError("the file has changed, starting over") from error
    if error.code in _PASSING:
        raise _DroppedError(f"HTTP {error.code} {error.reason}") from error
    raise TrainError(
        f"{url}: HTTP {error.code} {error.reason}: "
        f"get {part.stem} elsewhere and put it into {part.parent}"
    ) from error


def _begin(response: HTTPResponse, part: Path) -> int:
    """Where the response's first byte belongs in the file; `part` is cut to that length."""
    have, version = _size(part), _version_of(response.headers)
    if response.status == 206:
        fits = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        # some servers send the range whatever If-Range says
        if fits and version in (None, _known(part)):
            log.info("%s: going on from %s", part.stem, size_in_words(have))
            return have
        _discard(part)
        raise _DroppedError("the rest does not fit what is here, starting over")
    if have:
        log.info("%s: the server sends it from the start", part.stem)
    _discard(part)
    if version:  # before the first byte: a killed run leaves no bytes of an unknown version
        _version(part).write_text(version, encoding="utf-8")
    return 0


def _version_of(headers: Message) -> str | None:
    """What names these very bytes in If-Range: a strong ETag, else the date of change."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _total(headers: Message, done: int) -> int | None:
    """The whole file's length, as far as the server tells."""
    whole = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
    if whole:
        return int(whole[1])
    length = headers.get("Content-Length", "")
    return done + int(length) if length.isdecimal() else None


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(_CHUNK):  # what has arrived: a time-out loses nothing
            yield chunk
    except (OSError, HTTPException) as exc:
        raise _DroppedError(f"the connection broke ({_reason(exc)})") from exc


def _told(
    chunks: Iterator[bytes], name: str, done: int, total: int | None, every: float
) -> Iterator[bytes]:
    """The chunks; how far they are and how long the rest takes is logged every so many seconds."""
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
    """The version that `part` is of, if it is known."""
    path = _version(part)
    return path.read_text(encoding="utf-8") if path.exists() else None


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    """In bytes, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _reason(exc: BaseException) -> str:
    """The cause in words: URLError wraps it."""
    cause = getattr(exc, "reason", exc)
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
