"""Types of options that are numbers, with plain error messages."""

import math
import re
from typing import Any, Final

import click

_BYTES: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


class WholeNumber(click.IntRange):
    """Option type for integers within limits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the integer. Raises click.BadParameter."""
        _check(int, value, "a whole number", self, param, ctx)
        return super().convert(value, param, ctx)


class Number(click.FloatRange):
    """Option type for finite floating-point numbers within limits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number. Raises click.BadParameter."""
        _check(float, value, "a number", self, param, ctx)
        return super().convert(value, param, ctx)


def _check(
    kind: type[int] | type[float], value: Any, words: str, option: WholeNumber | Number,
    param: click.Parameter | None, ctx: click.Context | None,
) -> None:  # fmt: skip
    try:
        finite = math.isfinite(kind(value))
    except (ValueError, OverflowError):
        finite = False
    if not finite:
        option.fail(f"'{value}' is not {words}", param, ctx)


def byte_size(_ctx: click.Context, _param: click.Parameter, given: str | None) -> int | None:
    """Parse a number of bytes such as 2G, 1.5GiB or 500M. Raises click.BadParameter."""
    if given is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", given.strip(), re.IGNORECASE)
    value = round(float(found[1]) * 2 ** _BYTES[found[2].lower()]) if found else 0
    if value < 1:
        raise click.BadParameter(f"'{given}' is not a size such as 2G or 500M")
    return value
