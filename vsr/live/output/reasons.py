"""Words the reasons why an output was lost, and tracks which were already reported."""

import errno
import os
import re
from typing import Final

_REFUSED: Final = re.compile(
    r"\b40[13]\b|unauthori[sz]ed|forbidden|access denied|permission denied|publish\.denied"
    r"|badname|invalid (stream )?key|auth",
    re.IGNORECASE,
)


class Reasons:
    """Collects the reasons of one outage. Not thread-safe."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @property
    def any(self) -> bool:
        """Whether the output is lost: a reason was added since the last `end`."""
        return bool(self._told)

    def is_new(self, why: str) -> bool:
        """Return whether this reason is new in this outage, and remember it."""
        new = why not in self._told
        self._told.add(why)
        return new

    def end(self) -> None:
        """Clear all reasons: the output is open again."""
        self._told.clear()


def end_of_pipe(why: str) -> str:
    """Return why a pipe can no longer be written to, from FFmpeg's message."""
    return "whoever read it has left" if os.strerror(errno.EPIPE) in why else why


def with_hint(why: str) -> str:
    """Add advice to a reason if the server refuses the publisher or has a bad certificate."""
    if "certificate" in why.lower():
        return f"{why} (nothing was sent; --tls-no-verify accepts any certificate)"
    return f"{why} (is the stream key right?)" if _REFUSED.search(why) else why
