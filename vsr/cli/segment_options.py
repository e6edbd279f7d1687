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
        raise click.BadParameter(f"'{given}' is neither auto nor a whole number of at least 1")
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
            help="Save finished segments at this interval, so that an interrupted run can resume. "
            "Default: 20, for runs of a minute or more; 0: disabled.",
        ),
        click.option(
            "--restart", is_flag=True, help="Discard the segments saved by an earlier run."
        ),
        click.option(
            "--jobs", callback=_number_or_auto, default="1", show_default=True, metavar="N|auto",
            help="Segments encoded in parallel on each device; auto: finds the fastest number.",
        ),
        click.option(
            "--cluster", metavar="auto|ray://HOST:PORT",
            help="Encode the segments on the nodes of a Ray cluster.",
        ),
        click.option(
            "--receipt", type=click.Path(path_type=Path), metavar="FILE",
            help="Write a receipt for `vsr verify`: hashes and properties of input and output. "
            "Default: next to --report.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command
