"""Opens a source again that got further streams, such as sound that begins late.

PyAV does not show them in the connection that runs. A server is connected to a second time, on a
thread, while the first connection is played; what cannot be opened twice is closed first.
"""

import logging
import threading
from collections.abc import Callable

from vsr.errors import InputError
from vsr.live.input.source import LiveSource

log = logging.getLogger(__name__)

Opener = Callable[[], LiveSource]


class Successor:
    """Watches a source; `look` and `close` are for the thread that plays it."""

    def __init__(
        self, source: LiveSource, opener: Opener, beside: bool, grown: Callable[[], int]
    ) -> None:
        """`opener` opens the source again: `beside` it, or else once it is closed.

        `grown` tells how many streams it got; it is asked for every item.
        """
        self._opener, self._beside, self._grown = opener, beside, grown
        self._codecs = source.codecs
        self._seen = grown()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._made: LiveSource | None = None
        self._closed = False

    def look(self) -> Opener | None:
        """Return what gives the source to go on with once the present one is closed, if any."""
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
        """Close what was opened and not taken, now or once it is open."""
        with self._lock:
            self._closed = True
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def _found(self) -> Opener | None:
        with self._lock:
            made, self._made = self._made, None
        if made is None or made.codecs == self._codecs:  # what came up is neither
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
