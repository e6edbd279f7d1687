"""Fills the options of x264, x265 and SVT-AV1 that hold lists of parameters."""

from typing import Final

from vsr.errors import UsageError
from vsr.media.colour import PQ, Colour
from vsr.media.hdr import HDR_ENCODERS, Hdr10

_TWO_PASSES: Final = {"libx264": "x264-params", "libx265": "x265-params"}
"""Encoder that supports two passes -> its parameter-list option."""

_THREADS: Final = {"libx265": ("x265-params", "pools"), "libsvtav1": ("svtav1-params", "lp")}
"""Encoder -> (its parameter-list option, the parameter for the number of threads)."""


def add_parameters(options: dict[str, str], name: str, *pairs: str) -> None:
    """Add `key=value` pairs to a parameter-list option, unless the list has their key already."""
    given = options.get(name, "")
    keys = {_key(pair) for pair in given.split(":")}
    new = [pair for pair in pairs if _key(pair) not in keys]
    options[name] = ":".join([given, *new] if given else new)


def _key(pair: str) -> str:
    """Return the key of a parameter; encoders take `_` and `-` in it for the same."""
    return pair.partition("=")[0].strip().replace("_", "-")


def add_hdr(encoder: str, hdr: Hdr10 | None, colour: Colour, options: dict[str, str]) -> None:
    """Make the encoder write HDR10 metadata into the stream, if it can."""
    if hdr is None or encoder not in HDR_ENCODERS:
        return
    name, found = hdr.parameters(encoder)
    if encoder == "libx265" and colour.transfer == PQ:
        found.append("hdr10-opt=1")
    add_parameters(options, name, *found)


def add_analysis(
    encoder: str, passes: int, analysis: tuple[int, str] | None, options: dict[str, str]
) -> None:
    """Make the encoder write or read the first pass's statistics. Raises UsageError."""
    if passes > 1 and encoder not in _TWO_PASSES:
        raise UsageError(f"two passes are supported for h264 and hevc, not for {encoder}")
    if analysis is not None:
        number, file = analysis
        add_parameters(options, _TWO_PASSES[encoder], f"pass={number}", f"stats={file}")


def add_threads(encoder: str, limit: int | None, options: dict[str, str]) -> None:
    """Limit the threads of encoders that ignore FFmpeg's thread count; no limit if None."""
    if limit is not None and encoder in _THREADS:
        name, key = _THREADS[encoder]
        add_parameters(options, name, f"{key}={limit}")
