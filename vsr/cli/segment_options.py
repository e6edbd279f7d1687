"""Options of `vsr run` for segments, workers and receipts."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import click

from vsr.cli.numbers import Number


def _number_or_auto(_ctx: click.Context, _param: click.Parameter, given: str) -> int | None:
    """Parse an integer of at least 1, or `auto` (None). Raises click.BadParameter."""
    if given == "auto":
        return None
    if not given.isascii() or not given.isdigit() or int(given) < 1:
        raise click.BadParameter(f"'{given}' is neither auto nor a number from 1 on")
    return int(given)


def own_stdout(cluster: str | None) -> TextIO | None:
    """Return stdout and set `sys.stdout` to stderr for Ray's output; None without a cluster."""
    if cluster is None:
        return None
    own, sys.stdout = sys.stdout, sys.stderr
    return own


def sharing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for segments, workers and receipts to a command."""
    options = [
        click.option(
            "--segment", type=Number(0), metavar="SECONDS",
            help="Keep what is done every so often, so that the same command goes on after a "
            "crash. Default: 20, for a minute and more; 0: never.",
        ),
        click.option("--restart", is_flag=True, help="Forget what an earlier run has done."),
        click.option(
            "--jobs", callback=_number_or_auto, default="1", show_default=True, metavar="N|auto",
            help="Segments to make at a time, on each device; auto: tries what is quickest.",
        ),
        click.option(
            "--cluster", metavar="auto|ray://HOST:PORT",
            help="Have the computers of a Ray cluster make the segments.",
        ),
        click.option(
            "--receipt", type=click.Path(path_type=Path), metavar="FILE",
            help="Write hashes and facts that `vsr verify` checks. Default: beside --report.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command
