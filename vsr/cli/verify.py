"""`vsr verify`: check an output against the receipt of its run."""

import sys
from pathlib import Path

import click

from vsr.cli.streams import print_result
from vsr.cli.terminal import exit_on_error, start_logging, verbosity
from vsr.errors import EXIT_FAILED


@click.command("verify")
@click.argument("output", type=click.Path(path_type=Path), metavar="OUTPUT")
@click.option(
    "--receipt", type=click.Path(path_type=Path), required=True,
    help="What `vsr run --receipt` has written.",
)  # fmt: skip
@verbosity
def verify(output: Path, receipt: Path, verbose: bool, quiet: bool) -> None:
    """Check that OUTPUT is the file that a run has made: exit code 0, or 1 and what differs."""
    from vsr.files.receipt import difference

    start_logging(verbose, quiet)
    with exit_on_error(verbose):
        found = difference(output, receipt)
        print_result(found or f"{output} is as {receipt} says")
        sys.exit(EXIT_FAILED if found else 0)
