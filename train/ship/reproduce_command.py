"""Define the commands `python -m train reproduce` and `former`; other modules do the work.

`reproduce` uses `former` to restore weights that a training started from and that are no longer
shipped.
"""

import sys
from dataclasses import replace
from pathlib import Path

import click

from train.ship.former import take_former
from train.ship.reproduce import Places, check_inputs, commands, run

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
    found = commands(model, scale, places)
    if not dry_run:
        check_inputs(found)
    for command in found:
        if dry_run:
            click.echo(command)
        elif status := run(command):
            click.echo(f"stopped: `{command}` ended with {status}", err=True)
            sys.exit(status)


@click.command()
@click.argument("file")
@click.option("--sha256", required=True, help="Of its content.")
@click.option("--engines", type=Folder, default=Path("engines"), show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
def former(file: str, sha256: str, engines: Path, output: Path) -> None:
    """Take FILE (x3.onnx), a network that was shipped once, out of the checkout's history."""
    take_former(engines, file, sha256, output)
    click.echo(output)
