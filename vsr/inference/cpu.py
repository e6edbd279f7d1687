"""Detects what this computer's processor can do."""

from functools import cache
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_INT8: Final = frozenset(
    # x86: multiply-accumulate of bytes in one instruction; ARM: dot products of bytes
    {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm"}
)


@cache
def has_int8_instructions() -> bool:
    """Whether 8-bit networks are faster here. Known on Linux; False where nothing says so."""
    try:
        text = _CPUINFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    named = (line.partition(":") for line in text.splitlines())
    return any(
        not _INT8.isdisjoint(value.split())
        for name, _, value in named
        if name.strip() in {"flags", "Features"}
    )
