"""Define the command `python -m train quantise`; `train.ship.quantise` does the work."""

from pathlib import Path

import click

from train.measure.evaluate_command import ManyValues
from train.ship.quantise import Settings, Task
from train.ship.quantise import quantise as run_quantise

Folder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(cls=ManyValues)
@click.argument("models", nargs=-1)
@click.option("--scale", type=int, multiple=True, help="Default: all scales of each network.")
@click.option("--engines", type=Folder, default=Path("engines"), show_default=True)
@click.option(
    "--calibration", type=Folder, multiple=True, required=True, help="Folder of training images."
)
@click.option(
    "--data-set",
    type=Folder,
    multiple=True,
    required=True,
    help="Benchmark folder to measure PSNR on.",
)
@click.option(
    "--most-loss",
    type=click.FloatRange(0),
    default=0.10,
    show_default=True,
    help="Maximum loss of PSNR in dB on each benchmark; above it, nothing is written.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    help="Seed of the choice of images; try others for banding or changed pure colours.",
)
def quantise(
    models: tuple[str, ...],
    scale: tuple[int, ...],
    engines: Path,
    calibration: tuple[Path, ...],
    data_set: tuple[Path, ...],
    most_loss: float,
    seed: int,
) -> None:
    """Write the int8 form of MODELS (default: all in the manifest) beside their float form."""
    task = Task(
        engines=engines, calibration=calibration, benchmarks=data_set, most_loss=most_loss,
        settings=Settings(seed=seed),
    )  # fmt: skip
    for path in run_quantise(task, models, scale):
        click.echo(path)
