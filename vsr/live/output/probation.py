"""Recognises a server that opens a session and ends it at once, as for a wrong stream key.

RTMP servers often check the key only after they have announced the session as started: FFmpeg
then succeeds, and the first packets are written to a connection that the server closes.
"""

import errno
import os
from typing import Final

from vsr.live.output.link import ADAPTED_SCHEMES
from vsr.live.output.record import Record
from vsr.live.output.tally import Tally

_ACCEPTED_S: Final = 1.0
"""Time after which an open session counts as accepted by the server, in seconds."""
_REFUSALS: Final = 3
"""Number of consecutive sessions that end at once after which the server counts as refusing."""
REFUSED: Final = (
    "the server closes the stream right after it starts: wrong key, or publishing not allowed"
)
NOT_AGAIN: Final = (
    "the server closes the stream right after it starts, though it accepted it before: it may "
    "still hold the last session"
)
_CLOSED: Final = (
    *map(os.strerror, (errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED)),
    "End of file",
    "Error in the push function",  # TLS
    "Input/output error",
)
"""Messages of FFmpeg for a connection that the other side has closed."""


class Probation:
    """Holds back the results of packets until the server has accepted the session.

    Packets of a session that the server ends at once count as dropped. Not thread-safe.
    """

    def __init__(self, url: str, tally: Tally) -> None:
        """`tally` gets the results."""
        self._applies = url.partition("://")[0].lower() in ADAPTED_SCHEMES
        self._tally = tally
        self._held: list[tuple[Record, float, float, float | None]] = []
        self._first_reason = ""
        self.was_accepted = False
        """Whether any session was accepted."""
        self.refusals = 0
        """Number of consecutive sessions that the server ended at once."""

    @property
    def is_pending(self) -> bool:
        """Whether it is not known yet if the server accepts a session that opens now."""
        return self._applies and (self.refusals > 0 or not self.was_accepted)

    @property
    def is_refused(self) -> bool:
        """Whether the server counts as refusing."""
        return self.refusals >= _REFUSALS

    def sent(self, record: Record, begin: float, end: float, pts_s: float | None) -> None:
        """Count a written packet, or hold it back; see `Tally.sent`."""
        if self.is_pending:
            self._held.append((record, begin, end, pts_s))
        else:
            self._tally.sent(record, begin, end, pts_s)

    def is_passed(self, open_s: float) -> bool:
        """Return whether a session that is open for `open_s` seconds is to be accepted now."""
        return self.is_pending and open_s >= _ACCEPTED_S

    def accept(self) -> None:
        """Accept the session."""
        self.was_accepted, self.refusals = True, 0
        for held in self._held:
            self._tally.sent(*held)
        self._held.clear()

    def end_session(self, why: str, open_s: float) -> str:
        """Judge a session that ended after `open_s` seconds (0: it never opened); return why it
        ended."""
        is_closed = any(words in why for words in _CLOSED)
        if not open_s:
            if not is_closed:  # e.g. it restarts, and may accept the stream then
                self.refusals = min(self.refusals, _REFUSALS - 1)
            return why
        if not (self._applies and is_closed and open_s < _ACCEPTED_S):
            self.accept()
            return why
        for record, *_ in self._held:
            self._tally.dropped(record)
        self._held.clear()
        self._first_reason = self._first_reason if self.refusals else why
        self.refusals += 1
        if not self.is_refused:
            return self._first_reason
        return NOT_AGAIN if self.was_accepted else REFUSED
