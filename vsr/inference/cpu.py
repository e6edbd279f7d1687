"""Detects whether this machine's CPU has 8-bit integer instructions."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_INT8: Final = frozenset(
    # x86: multiply-accumulate of bytes in one instruction; ARM: dot products of bytes
    {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm"}
)
_NUMPY_INT8: Final = frozenset({"AVX512VNNI", "ASIMDDP"})
"""numpy's names of these features; it does not detect AVX-VNNI without AVX-512."""


@cache
def has_int8_instructions() -> bool:
    """Return whether int8 networks are faster here, from /proc/cpuinfo or else from numpy."""
    try:
        text = _CPUINFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return not _NUMPY_INT8.isdisjoint(_numpy_features())
    fields = (line.partition(":") for line in text.splitlines())
    return any(
        not _INT8.isdisjoint(value.split())
        for name, _, value in fields
        if name.strip() in {"flags", "Features"}
    )


def _numpy_features() -> set[str]:
    """Return the CPU features that numpy detected on any system; empty if it does not list them."""
    try:  # a private module, but the only source
        found = import_module("numpy._core._multiarray_umath")
    except ImportError:
        return set()
    features: dict[str, bool] = getattr(found, "__cpu_features__", {})
    return {name for name, is_present in features.items() if is_present}
