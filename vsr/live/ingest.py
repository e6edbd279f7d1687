"""The live source: connected, read, decoded, watched, and connected again when it is lost.

Runs on its own thread and hands frames, sound and what happened over through a `Mailbox`, which
never makes it wait: a relay that is behind loses its oldest pictures, not its connection.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import av

from vsr.errors import InputError
from vsr.frame import Frame, now
from vsr.location import is_url, shown
from vsr.source import LiveSource
from vsr.timeline import Packet

log = logging.getLogger(__name__)

_LONGEST_DELAY: Final = 30.0
_GROWTH: Final = 1.6
"""Factor from one delay before reconnecting to the next."""


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """How the source is read and found again; times in seconds."""

    stream_timeout: float = 5.0
    """Silence after which a connected source counts as lost."""
    retry_delay: float = 0.5
    retry_max: int = 0
    """Failed attempts in a row after which it is given up; 0: never."""
    realtime: bool = False
    """Whether a file is read at its own pace, and again from the start at its end."""
    loop: bool = False


@dataclass(frozen=True)
class Connected:
    """A session began: the source as it presents itself now."""

    source: LiveSource
    attempt: int
    """Connections before this one."""


@dataclass(frozen=True)
class Lost:
    """The session ended, or could not begin; another attempt follows after `delay` seconds."""

    reason: str
    delay: float
    final: bool = False
    """Whether it is given up."""


Item = Frame | Packet | Connected | Lost


class Mailbox:
    """What the ingest thread has for the relay; at most `frames` pictures wait. Thread-safe."""

    def __init__(self, frames: int) -> None:
        self._items: deque[Item] = deque()
        self._most = frames
        self._frames = 0
        self._arrived = threading.Condition()
        self.dropped: deque[Frame] = deque(maxlen=1000)
        """Pictures that had to make room, for the ledger; the caller takes them out."""

    @property
    def waiting(self) -> int:
        """Pictures that wait."""
        return self._frames

    def put(self, item: Item) -> None:
        """Add an item; the oldest picture makes room when there are too many."""
        with self._arrived:
            if isinstance(item, Frame):
                self._frames += 1
                if self._frames > self._most:
                    oldest = next(i for i in self._items if isinstance(i, Frame))
                    self._items.remove(oldest)
                    self.dropped.append(oldest)
                    self._frames -= 1
            self._items.append(item)
            self._arrived.notify()

    def take(self, timeout: float) -> Item | None:
        """The oldest item, None when none comes in time."""
        with self._arrived:
            if not self._items and not self._arrived.wait_for(lambda: bool(self._items), timeout):
                return None
            item = self._items.popleft()
            self._frames -= isinstance(item, Frame)
            return item


class Ingest:
    """Reads a URL or file for ever into a mailbox; see `IngestSettings`."""

    def __init__(self, url: str, settings: IngestSettings, mailbox: Mailbox) -> None:
        self.url, self.name = url, shown(url)
        self.settings, self.mailbox = settings, mailbox
        self._stop = threading.Event()
        self._size: tuple[int, int] | None = None
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def close(self, timeout_s: float = 0.5) -> None:
        """Stop; a read that hangs is left to its timeout on a daemon thread."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failures, attempt = 0, 0
        while not self._stop.is_set():
            read, reason = False, ""
            try:
                read, reason = self._session(attempt), "it ended"
            except (InputError, av.error.FFmpegError, OSError) as exc:
                reason = str(exc) if isinstance(exc, InputError) else f"{type(exc).__name__}"
                read = self._began
            except Exception as exc:  # a defect must not end a relay that runs for days
                log.exception("reading %s failed unexpectedly", self.name)
                reason = f"unexpected {type(exc).__name__}"
            if self._stop.is_set():
                return
            attempt += 1
            failures = 0 if read else failures + 1
            final = bool(self.settings.retry_max) and failures >= self.settings.retry_max
            if not is_url(self.url) and read and not self.settings.loop:
                final = True  # a file's end is its end
            delay = self._delay(failures)
            self.mailbox.put(Lost(reason, delay, final))
            if final or self._stop.wait(delay):
                return

    def _delay(self, failures: int) -> float:
        """Seconds until the next attempt: growing, and not in step with a thousand others."""
        grown = self.settings.retry_delay * _GROWTH ** max(0, failures - 1)
        return min(grown, _LONGEST_DELAY) * random.uniform(0.8, 1.2)

    def _session(self, attempt: int) -> bool:
        """Read one connection to its end; True when at least a picture came."""
        self._began = False
        timeout = self.settings.stream_timeout
        with closing(LiveSource(self.url, timeout, self._size)) as source:
            self._size = self._size or (source.info.width, source.info.height)
            self._began = True
            self.mailbox.put(Connected(source, attempt))
            for item in self._paced(source):
                if self._stop.is_set():
                    break
                self.mailbox.put(item)
        return self._began

    def _paced(self, source: LiveSource) -> Iterator[Frame | Packet]:
        """The items, held back to their own times where a file stands in for a stream."""
        if not self.settings.realtime or is_url(self.url):
            yield from source
            return
        begin, first = now(), None
        for item in source:
            if isinstance(item, Frame):
                first = item.time if first is None else first
                wait = begin + item.time - first - now()
                if wait > 0 and self._stop.wait(wait):
                    return
                item.stamps.read = max(item.stamps.read, now() - 0.001)
            yield item
        time.sleep(0)
