"""Why an output is lost: what is said of it, and when."""

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
    """The reasons of one outage. For one thread."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @property
    def any(self) -> bool:
        """Whether the output is lost: a reason was told since the last `end`."""
        return bool(self._told)

    def is_new(self, why: str) -> bool:
        """Whether this reason was not given in this outage yet; remembers it."""
        new = why not in self._told
        self._told.add(why)
        return new

    def end(self) -> None:
        """Forget all: the output is open again."""
        self._told.clear()


def end_of_pipe(why: str) -> str:
    """Why nothing can be written into a pipe any more, by FFmpeg's words."""
    return "whoever read it has left" if os.strerror(errno.EPIPE) in why else why


def with_hint(why: str) -> str:
    """Add advice to a reason: the server refuses the publisher, or is not who it should be."""
    if "certificate" in why.lower():
        return f"{why} (nothing was sent; --tls-no-verify accepts any certificate)"
    return f"{why} (is the stream key right?)" if _REFUSED.search(why) else why
