"""Opens a source again after new streams appeared in it, such as audio that begins late.

PyAV does not show them in the open connection. A thread opens a second connection to a server while
the first one is played. A source that cannot be opened twice is closed first.
"""

import logging
import threading
from collections.abc import Callable

from vsr.errors import InputError
from vsr.live.input.source import LiveSource

log = logging.getLogger(__name__)

Opener = Callable[[], LiveSource]


class Reopener:
    """Watches a source for new streams; call `poll` and `close` from the thread that plays it."""

    def __init__(
        self, source: LiveSource, open_again: Opener, in_parallel: bool,
        count_streams: Callable[[], int],
    ) -> None:  # fmt: skip
        """`open_again` opens the source again: while it is open if `in_parallel`, else afterwards.

        `count_streams` returns how many streams were added; it is called for every item.
        """
        self._open_again, self._in_parallel = open_again, in_parallel
        self._count_streams = count_streams
        self._codecs = source.codecs
        self._known_streams = count_streams()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._opened: LiveSource | None = None
        self._closed = False

    def poll(self) -> Opener | None:
        """Return the opener to call for the next source after closing this one, or None."""
        if self._thread is None:
            if (count := self._count_streams()) <= self._known_streams:
                return None
            self._known_streams = count
            if not self._in_parallel:
                return self._open_again
            self._thread = threading.Thread(target=self._run, name="reopener", daemon=True)
            self._thread.start()
        elif not self._thread.is_alive():
            self._thread = None
            return self._take_opened()
        return None

    def close(self) -> None:
        """Close a source that was opened and not taken, now or as soon as it is open."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _take_opened(self) -> Opener | None:
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is None or opened.codecs == self._codecs:  # no new video or audio
            if opened is not None:
                opened.close()
            return None
        return lambda: opened

    def _run(self) -> None:
        try:
            opened = self._open_again()
        except InputError as exc:
            log.warning("%s; new streams of the source are ignored", exc)
            return
        with self._lock:
            closed = self._closed
            self._opened = None if closed else opened
        if closed:
            opened.close()
