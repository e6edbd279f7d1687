"""`vsr cluster check`: show the versions, devices and encoders of a Ray cluster's nodes."""

import platform
import sys
from contextlib import closing

import click

from vsr.cli.streams import print_result
from vsr.cli.terminal import exit_on_error, start_logging, verbosity
from vsr.errors import EXIT_FAILED


@click.group("cluster")
def cluster() -> None:
    """Inspect a Ray cluster, for `vsr run --cluster`."""


@cluster.command("check")
@click.option(
    "--cluster",
    "address",
    default="auto",
    show_default=True,
    metavar="auto|ray://HOST:PORT",
    help="Address of the cluster. auto: the one of this computer.",
)
@verbosity
def check(address: str, verbose: bool, quiet: bool) -> None:
    """Show the versions and devices of each computer; exit with 1 if the versions differ."""
    from vsr.files.cluster import Cluster, equipment

    start_logging(verbose, quiet)
    with exit_on_error(verbose), closing(Cluster(address)) as found:
        rows = {f"{platform.node()} (here)": equipment(), **found.call_on_nodes(equipment)}
        same = {row.versions for row in rows.values()}
        print_result("\n".join(f"{name}: {row}" for name, row in rows.items()))
        if len(same) > 1:
            print_result(
                "the versions of vsr, av and ffmpeg differ: install the same ones on all computers"
            )
        sys.exit(0 if len(same) == 1 else EXIT_FAILED)
