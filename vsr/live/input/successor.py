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


class Successor:
    """Watches a source for new streams; call `look` and `close` from the thread that plays it."""

    def __init__(
        self, source: LiveSource, opener: Opener, beside: bool, grown: Callable[[], int]
    ) -> None:
        """`opener` opens the source again: while it is open if `beside`, else after it is closed.

        `grown` returns how many streams were added; it is called for every item.
        """
        self._opener, self._beside, self._grown = opener, beside, grown
        self._codecs = source.codecs
        self._seen = grown()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._made: LiveSource | None = None
        self._closed = False

    def look(self) -> Opener | None:
        """Return the opener to call for the next source after closing this one, or None."""
        if self._thread is None:
            if (grown := self._grown()) <= self._seen:
                return None
            self._seen = grown
            if not self._beside:
                return self._opener
            self._thread = threading.Thread(target=self._run, name="successor", daemon=True)
            self._thread.start()
        elif not self._thread.is_alive():
            self._thread = None
            return self._found()
        return None

    def close(self) -> None:
        """Close a source that was opened and not taken, now or as soon as it is open."""
        with self._lock:
            self._closed = True
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def _found(self) -> Opener | None:
        with self._lock:
            made, self._made = self._made, None
        if made is None or made.codecs == self._codecs:  # no new video or audio
            if made is not None:
                made.close()
            return None
        return lambda: made

    def _run(self) -> None:
        try:
            made = self._opener()
        except InputError as exc:
            log.warning("%s; streams that came up in it on the way are left out", exc)
            return
        with self._lock:
            closed = self._closed
            self._made = None if closed else made
        if closed:
            made.close()
