"""Define the commands `python -m train export|import|blend`; other modules do the work."""

from pathlib import Path

import click

from train.measure.evaluate_command import ManyValues
from train.nets import NETS
from train.ship.blend import blend as run_blend
from train.ship.export import Target
from train.ship.export import export as run_export
from train.ship.imports import import_public

Folder = click.Path(exists=True, file_okay=False, path_type=Path)
File = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(name="import")
@click.argument("file", type=File)
@click.option("--model", type=click.Choice(sorted(NETS)), required=True)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--data-set", type=Folder, multiple=True, help="Benchmark folder to measure PSNR on.")
def import_(file: Path, model: str, output: Path, data_set: tuple[Path, ...]) -> None:
    """Convert a public checkpoint to OUTPUT/MODEL/x<scale>.onnx, and write the manifest."""
    for path in import_public(file, Target(engines=output, model=model, benchmarks=data_set)):
        click.echo(path)


@click.command(cls=ManyValues)
@click.argument("checkpoint", type=File)
@click.option(
    "--engines",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("engines"),
    show_default=True,
)
@click.option("--model", default="", help="Name of the model in engines/; default: the network's.")
@click.option("--scale", type=int, multiple=True, help="Default: all scales of the network.")
@click.option("--data-set", type=Folder, multiple=True, help="Benchmark folder to measure PSNR on.")
@click.option("--video", type=File, multiple=True, help="Clip to compress and measure PSNR on.")
@click.option("--lpips", type=File, help="LPIPS (AlexNet) weights, to measure LPIPS too.")
def export(
    checkpoint: Path,
    engines: Path,
    model: str,
    scale: tuple[int, ...],
    data_set: tuple[Path, ...],
    video: tuple[Path, ...],
    lpips: Path | None,
) -> None:
    """Write CHECKPOINT's deploy form as ONNX into engines/, with its measured figures."""
    target = Target(engines=engines, model=model, benchmarks=data_set, clips=video, lpips=lpips)
    for path in run_export(checkpoint, target, scale):
        click.echo(path)


@click.command()
@click.argument("checkpoint", type=File)
@click.option(
    "--with", "earlier", type=File, required=True,
    help="Checkpoint or shipped ONNX from which CHECKPOINT's training started.",
)  # fmt: skip
@click.option(
    "--share", type=click.FloatRange(0, 1, min_open=True, max_open=True), required=True,
    help="Weight of CHECKPOINT in the average, 0..1.",
)  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
def blend(checkpoint: Path, earlier: Path, share: float, output: Path) -> None:
    """Average CHECKPOINT's weights with those it started from, for fewer artefacts."""
    run_blend(checkpoint, earlier, share, output)
    click.echo(output)
