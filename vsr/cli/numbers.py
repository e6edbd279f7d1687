"""Types of options that are numbers, with errors in plain words."""

from typing import Any

import click


class WholeNumber(click.IntRange):
    """Whole numbers within limits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Raises click.BadParameter."""
        _check(int, value, "a whole number", self, param, ctx)
        return super().convert(value, param, ctx)


class Number(click.FloatRange):
    """Numbers within limits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Raises click.BadParameter."""
        _check(float, value, "a number", self, param, ctx)
        return super().convert(value, param, ctx)


def _check(
    kind: type[int] | type[float], value: Any, words: str, option: WholeNumber | Number,
    param: click.Parameter | None, ctx: click.Context | None,
) -> None:  # fmt: skip
    try:
        kind(value)
    except ValueError:
        option.fail(f"'{value}' is not {words}", param, ctx)
