"""Words the reasons why an output was lost, and tracks which were already reported."""

import errno
import os
import re
from typing import Final

_PUBLISHER_REFUSED: Final = re.compile(
    r"\b40[13]\b|unauthori[sz]ed|forbidden|access denied|permission denied|publish\.denied"
    r"|badname|invalid (stream )?key|auth",
    re.IGNORECASE,
)


class Reasons:
    """Collects the reasons of one outage. Not thread-safe."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    @property
    def has_any(self) -> bool:
        """Whether the output is lost: a reason was added since the last `clear`."""
        return bool(self._seen)

    def add(self, why: str) -> bool:
        """Remember a reason; return whether it is new in this outage."""
        new = why not in self._seen
        self._seen.add(why)
        return new

    def clear(self) -> None:
        """Clear all reasons: the output is open again."""
        self._seen.clear()


def explain_pipe_end(why: str) -> str:
    """Return why a pipe can no longer be written to, from FFmpeg's message."""
    return "the reader closed the pipe" if os.strerror(errno.EPIPE) in why else why


def with_hint(why: str, url: str = "") -> str:
    """Add advice to a reason if the server refuses the publisher or has a bad certificate.

    An RTMP server that does not know the application of `url` closes the connection.
    """
    if url.startswith("rtmp") and why == os.strerror(errno.EIO):
        return f"{why} (is it an RTMP server, and is the URL rtmp://HOST/APPLICATION/KEY?)"
    if "certificate" in why.lower():
        return f"{why} (nothing was sent; --tls-no-verify accepts any certificate)"
    return f"{why} (check the stream key)" if _PUBLISHER_REFUSED.search(why) else why


def retry_words(again: bool, rarely: bool) -> str:
    """Return how an output goes on; `again`: it was said before, `rarely`: the pauses are long."""
    return "still retrying" * again + "retrying" * (not again) + ", less and less often" * rarely
