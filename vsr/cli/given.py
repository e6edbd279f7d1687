"""Tells which options were given on the command line, to refuse those without an effect."""

from collections.abc import Collection

import click
from click.core import ParameterSource

from vsr.errors import UsageError


def is_given(name: str) -> bool:
    """Return whether the current command's parameter was given on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def option_name(parameter: click.Parameter) -> str:
    """Return an option's longest name, such as `--model`."""
    return max(parameter.opts, key=len)


def refuse(names: Collection[str], why: str) -> None:
    """Raise UsageError for the first given one of these parameters; `why` follows its name."""
    for parameter in click.get_current_context().command.params:
        if parameter.name in names and is_given(parameter.name):
            raise UsageError(f"{option_name(parameter)} {why}")
