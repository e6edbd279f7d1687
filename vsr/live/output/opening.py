"""Opens FFmpeg outputs with muxer and protocol options, and formats their errors.

Imports nothing from `vsr`, so that `vsr.live.output.process` starts quickly.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import av

_IGNORED_PREFIXES: Final = (
    "Slave ", "All tee outputs failed", "Cannot open connection", "missing picture", "no frame!",
    "Codec '",
)  # fmt: skip
"""Prefixes of log lines that only repeat that it failed, or that concern stream creation."""
_TEE_OPTIONS: Final = ("flush_packets", "max_interleave_delta")
"""Options that `tee` needs too: otherwise it delays frames until audio of their time arrives."""
_CODEC_LINE: Final = re.compile(r"[\w.-]+ \(\d+\)")
"""A line of the codec list that FFmpeg logs with some errors."""


def open_output(target: Any, plan: dict[str, Any]) -> "av.container.OutputContainer":
    """Open the output; pass protocol options, which PyAV does not support, by the muxer `tee`."""
    options = plan["options"]
    if not plan["protocol"]:
        return av.open(target, "w", format=plan["format"], container_options=options)
    options = {"f": plan["format"], "onfail": "abort", **options, **plan["protocol"]}
    tee_options = ":".join(f"{name}={_escaped(_escaped(value))}" for name, value in options.items())
    container_options = {name: value for name, value in options.items() if name in _TEE_OPTIONS}
    return av.open(
        f"[{tee_options}]{_escaped(target)}", "w", format="tee", container_options=container_options
    )


def _escaped(text: str) -> str:
    """Escape FFmpeg's separators."""
    return re.sub(r"([\\'\[\]:| ])", r"\\\1", text)


def error_text(exc: Exception, log_lines: Sequence[tuple[int, str, str]] = ()) -> str:
    """Return FFmpeg's error message with the last log lines about it."""
    logged = getattr(exc, "log", None)
    message = getattr(exc, "strerror", None) or str(exc)
    lines = [line[2].strip() for line in log_lines] or ([logged[2].strip()] if logged else [])
    lines = [
        line for line in dict.fromkeys(lines) if line and not line.startswith(_IGNORED_PREFIXES)
    ]
    lines = [line for line in lines if not _CODEC_LINE.fullmatch(line)]
    lines = [line for line in lines if not line.endswith(f"failed: {message}")]
    return f"{message} ({'; '.join(lines[-3:])})" if lines else message
