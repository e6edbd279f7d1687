"""Opens an input so that a stop can interrupt it: a silent server may take seconds to fail."""

import threading
from concurrent.futures import Future
from typing import Final

from vsr.errors import InterruptedRunError
from vsr.media.location import url_for_messages
from vsr.media.reading import Reading
from vsr.media.source import Source

_POLL: Final = 0.1
"""Interval between checks for a stop, in seconds."""


def open_interruptibly(url: str, stop: threading.Event, reading: Reading | None = None) -> Source:
    """Return the opened input. Raises InputError, and InterruptedRunError once `stop` is set.

    FFmpeg cannot be interrupted while it opens an input. After a stop, the opening thread keeps
    running, and closes the input if it opens after all.
    """
    result: Future[Source] = Future()

    def open_source() -> None:
        source, error = None, None
        try:
            source = Source(url, reading)
        except BaseException as exc:  # raised again in the waiting caller
            error = exc
        is_waiting = result.set_running_or_notify_cancel()
        if source is None:
            if is_waiting:
                result.set_exception(error)
        elif is_waiting:
            result.set_result(source)
        else:
            source.close()

    threading.Thread(target=open_source, name="open", daemon=True).start()
    while True:
        try:
            return result.result(_POLL)
        except TimeoutError:
            if stop.is_set() and result.cancel():
                raise InterruptedRunError(
                    f"stopped while {url_for_messages(url)} was being opened; nothing was written"
                ) from None
