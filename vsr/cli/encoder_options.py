"""Options of the encoder that several commands share: bitrate, preset and encoder options."""

from collections.abc import Callable
from typing import Any

import click

from vsr.cli.terminal import key_value
from vsr.errors import UsageError


def _bits(_ctx: click.Context, _param: click.Parameter, given: str | None) -> int | None:
    """Parse bits per second such as 2500k or 2.5M. Raises click.BadParameter."""
    from vsr.media.bitrate import parse_bits

    try:
        return None if given is None else parse_bits(given)
    except UsageError as exc:
        raise click.BadParameter(str(exc)) from exc


def rate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--bitrate`, `--maxrate` and `--bufsize` to a command."""
    for option in (
        click.option(
            "--bufsize", callback=_bits, metavar="SIZE",
            help="Size of the rate control buffer, in bits.",
        ),
        click.option(
            "--maxrate", callback=_bits, metavar="RATE",
            help="Maximum bitrate in bits per second; also with --crf."
        ),
        click.option(
            "--bitrate", "-b:v", "bitrate", callback=_bits, metavar="RATE",
            help="Average bitrate in bits per second (2500k, 2.5M), instead of --crf.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def preset_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--preset` and `-e` to a command."""
    for option in (
        click.option(
            "-e", "options", callback=key_value, multiple=True, metavar="KEY=VALUE",
            help="Encoder option. Repeatable.",
        ),
        click.option("--preset", help="Speed preset of the encoder."),
    ):  # fmt: skip
        command = option(command)
    return command
