"""`python -m train fit|evaluate|export`: parse, call, log; no logic."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from train.data import PatchSet
from train.evaluate import evaluate as run_evaluate
from train.evaluate import torch_enlarge
from train.export import averaged_net
from train.export import export as run_export
from train.loop import RECIPES, Trainer
from train.loop import fit as run_fit
from train.nets import NETS

log = logging.getLogger("train")
Folder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def main() -> None:
    """Train the papers' networks and write engines/."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


@main.command()
@click.argument("name", type=click.Choice(sorted(NETS)))
@click.option("--scale", type=int, default=2, show_default=True)
@click.option("--data", type=Folder, multiple=True, required=True, help="Folder of HR images.")
@click.option("--validation", type=Folder, help="Benchmark folder, scored at each save.")
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True)
@click.option("--steps", type=int, help="Length of the recipe's cosine.")
@click.option("--batch", type=int)
@click.option("--rate", type=float)
@click.option("--bfloat16", is_flag=True, help="Compute in bfloat16, keep weights in float32.")
@click.option("--threads", type=int, default=0, help="CPU threads, 0 for all.")
def fit(
    name: str,
    scale: int,
    data: tuple[Path, ...],
    validation: Path | None,
    checkpoint: Path,
    steps: int | None,
    batch: int | None,
    rate: float | None,
    bfloat16: bool,
    threads: int,
) -> None:
    """Train NAME; an existing checkpoint is resumed."""
    if threads:
        torch.set_num_threads(threads)
    if checkpoint.exists():
        trainer = Trainer.resume(checkpoint, steps)
    else:
        given: dict[str, Any] = {"steps": steps, "batch": batch, "rate": rate, "bfloat16": bfloat16}
        recipe = replace(RECIPES[name], **{k: v for k, v in given.items() if v is not None})
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        trainer = Trainer.new(name, scale, recipe)
    colour, patch = trainer.net.colour, trainer.recipe.patch
    patches = PatchSet.load(list(data), trainer.scale, colour, patch)
    log.info("%d images, from step %d", len(patches.hr), trainer.step)
    run_fit(trainer, patches, checkpoint, validation)


@main.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data-set", type=Folder, multiple=True, required=True)
def evaluate(checkpoint: Path, data_set: tuple[Path, ...]) -> None:
    """PSNR and SSIM on Y of a checkpoint's averaged weights."""
    saved, net = averaged_net(checkpoint)
    for folder in data_set:
        score = run_evaluate(torch_enlarge(net), folder, saved["scale"], net.colour)
        click.echo(f"{folder.name}: {score['psnr']:.3f} dB, SSIM {score['ssim']:.4f}")


@main.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--engines", type=Folder, default=Path("engines"), show_default=True)
@click.option("--data-set", type=Folder, multiple=True, help="Benchmark to state PSNR on.")
@click.option("--data", default="", help="What it was trained on, for the manifest.")
def export(checkpoint: Path, engines: Path, data_set: tuple[Path, ...], data: str) -> None:
    """Write CHECKPOINT's deploy form as ONNX into engines/, with its measured figures."""
    run_export(checkpoint, engines, list(data_set), data)


if __name__ == "__main__":
    main()
