"""Define the commands `python -m train reproduce` and `former`; other modules do the work.

`reproduce` uses `former` to restore weights that a training started from and that are no longer
shipped.
"""

import sys
from dataclasses import replace
from pathlib import Path

import click

from train.ship.git_history import restore_from_history
from train.ship.reproduce import Folders, check_inputs, commands, run

Folder = click.Path(exists=True, file_okay=False, path_type=Path)
NewFolder = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("model")
@click.option("--scale", type=int, multiple=True, help="Default: all shipped scales.")
@click.option(
    "--data",
    type=NewFolder,
    default=Path("data"),
    show_default=True,
    help="Parent folder of yang91, bsds400 ..., as created by `fetch`, and of clips.",
)
@click.option(
    "--weights",
    type=NewFolder,
    default=Path("data/weights"),
    show_default=True,
    help="Folder with the VGG, LPIPS and teacher weights that the stages use.",
)
@click.option(
    "--work",
    type=NewFolder,
    default=Path("reproduced"),
    show_default=True,
    help="Output folder for checkpoints; the networks are written to WORK/engines.",
)
@click.option("--engines", type=Folder, default=Path("engines"), show_default=True)
@click.option("--dry-run", is_flag=True, help="Print the commands without running them.")
@click.option("--try", "trial", is_flag=True, help="Run 20 steps of each stage, in WORK/trial.")
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
    """Repeat the training of the shipped MODEL by its provenance.toml, and export it.

    Completed stages are skipped: after a stop, run the same command to resume.
    """
    folders = Folders(data=data, weights=weights, work=work, engines=engines)
    if trial:
        folders = replace(folders, work=work / "trial", trial=True)
    found = commands(model, scale, folders)
    if not dry_run:
        check_inputs(found)
    for command in found:
        if dry_run:
            click.echo(command)
        elif status := run(command):
            click.echo(f"stopped: `{command}` failed with exit code {status}", err=True)
            sys.exit(status)


@click.command()
@click.argument("file")
@click.option("--sha256", required=True, help="SHA-256 of the file.")
@click.option("--engines", type=Folder, default=Path("engines"), show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
def former(file: str, sha256: str, engines: Path, output: Path) -> None:
    """Restore FILE (x3.onnx), a formerly shipped network, from the checkout's git history."""
    restore_from_history(engines, file, sha256, output)
    click.echo(output)
