"""Detects what this computer's processor can do."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_INT8: Final = frozenset(
    # x86: multiply-accumulate of bytes in one instruction; ARM: dot products of bytes
    {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm"}
)
_NUMPYS: Final = frozenset({"AVX512VNNI", "ASIMDDP"})
"""The same, where numpy looks for them: it does not for those of AVX alone."""


@cache
def has_int8_instructions() -> bool:
    """Whether 8-bit networks are faster here: by Linux's list of flags, elsewhere by numpy's."""
    try:
        text = _CPUINFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return not _NUMPYS.isdisjoint(_numpys_features())
    named = (line.partition(":") for line in text.splitlines())
    return any(
        not _INT8.isdisjoint(value.split())
        for name, _, value in named
        if name.strip() in {"flags", "Features"}
    )


def _numpys_features() -> set[str]:
    """What numpy has found in the processor on any system; empty where it does not say."""
    try:  # private, and the only place where it is
        found = import_module("numpy._core._multiarray_umath")
    except ImportError:
        return set()
    features: dict[str, bool] = getattr(found, "__cpu_features__", {})
    return {name for name, there in features.items() if there}
