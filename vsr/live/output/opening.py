"""Opens FFmpeg's outputs with options of muxer and protocol, and words their errors.

Imports nothing of `vsr`, for `vsr.live.output.process`.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import av

_NO_REASON: Final = (
    "Slave ", "All tee outputs failed", "Cannot open connection", "missing picture", "no frame!",
    "Codec '",
)  # fmt: skip
"""Beginnings of log lines that only repeat that it failed, or are about the streams' making."""
_ANY_MUXER: Final = ("flush_packets", "max_interleave_delta")
"""Options that `tee` needs too: it would hold pictures back until sound of their time is there."""
_CODEC: Final = re.compile(r"[\w.-]+ \(\d+\)")
"""A line of the list of codecs that FFmpeg logs beside some errors."""


def opened(target: Any, plan: dict[str, Any]) -> "av.container.OutputContainer":
    """Open the output, and pass options of the protocol as PyAV does not: by the muxer `tee`."""
    options = plan["options"]
    if not plan["protocol"]:
        return av.open(target, "w", format=plan["format"], container_options=options)
    options = {"f": plan["format"], "onfail": "abort", **options, **plan["protocol"]}
    given = ":".join(f"{name}={_escaped(_escaped(value))}" for name, value in options.items())
    own = {name: value for name, value in options.items() if name in _ANY_MUXER}
    return av.open(f"[{given}]{_escaped(target)}", "w", format="tee", container_options=own)


def _escaped(text: str) -> str:
    """Escape what separates words for FFmpeg."""
    return re.sub(r"([\\'\[\]:| ])", r"\\\1", text)


def words_of(exc: Exception, said: Sequence[tuple[int, str, str]] = ()) -> str:
    """FFmpeg's words: the error, and what it logged about that."""
    logged = getattr(exc, "log", None)
    words = getattr(exc, "strerror", None) or str(exc)
    lines = [line[2].strip() for line in said] or ([logged[2].strip()] if logged else [])
    lines = [line for line in dict.fromkeys(lines) if line and not line.startswith(_NO_REASON)]
    lines = [line for line in lines if not _CODEC.fullmatch(line)]
    return f"{words} ({'; '.join(lines[-3:])})" if lines else words
