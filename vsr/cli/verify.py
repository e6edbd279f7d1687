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
    help="Receipt written by `vsr run --receipt`.",
)  # fmt: skip
@verbosity
def verify(output: Path, receipt: Path, verbose: bool, quiet: bool) -> None:
    """Check that OUTPUT matches its receipt; exit with 1 and a message if it does not."""
    from vsr.files.receipt import difference

    start_logging(verbose, quiet)
    with exit_on_error(verbose):
        found = difference(output, receipt)
        print_result(found or f"{output} matches {receipt}")
        sys.exit(EXIT_FAILED if found else 0)
