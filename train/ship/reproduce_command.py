"""`python -m train reproduce`: which network, from which pictures; the work is elsewhere."""

import sys
from dataclasses import replace
from pathlib import Path

import click

from train.ship.reproduce import Places, commands, run

Folder = click.Path(exists=True, file_okay=False, path_type=Path)
NewFolder = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("model")
@click.option("--scale", type=int, multiple=True, help="Default: all that are shipped.")
@click.option(
    "--data",
    type=NewFolder,
    default=Path("data"),
    show_default=True,
    help="Folder with yang91, bsds400 ... in it, as `fetch` makes it.",
)
@click.option(
    "--weights",
    type=NewFolder,
    default=Path("data/weights"),
    show_default=True,
    help="Folder with the VGG, LPIPS or teacher weights that a stage names.",
)
@click.option(
    "--work",
    type=NewFolder,
    default=Path("reproduced"),
    show_default=True,
    help="Gets the checkpoints, and the networks in WORK/engines.",
)
@click.option("--engines", type=Folder, default=Path("engines"), show_default=True)
@click.option("--dry-run", is_flag=True, help="Print the commands only.")
@click.option("--try", "trial", is_flag=True, help="20 steps of each stage, in WORK/trial.")
def reproduce(
    model: str,
    scale: tuple[int, ...],
    data: Path,
    weights: Path,
    work: Path,
    engines: Path,
    dry_run: bool,
    trial: bool,
) -> None:
    """Train the shipped MODEL again, stage by stage as its provenance.toml says, and export it.

    A stage whose checkpoint is there is not repeated, so the same command goes on after a stop.
    """
    places = Places(data=data, weights=weights, work=work, engines=engines)
    if trial:
        places = replace(places, work=work / "trial", trial=True)
    for command in commands(model, scale, places):
        if dry_run:
            click.echo(command)
        elif status := run(command):
            click.echo(f"stopped: `{command}` ended with {status}", err=True)
            sys.exit(status)
