"""Define the commands `python -m train info|fetch|fit|...|export|reproduce`.

They parse options, call the other modules and log; they contain no logic of their own.
"""

import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from platformdirs import user_cache_path

from train.data.fetch import DATA_SETS
from train.data.fetch import fetch as run_fetch
from train.data.patches import Patches
from train.data.pictures import Pictures, worth_caching
from train.errors import TrainError
from train.fit.loop import fit as run_fit
from train.fit.machine import PRECISIONS, choose_precision, default_workers, open_fabric
from train.fit.recipe import Recipe, find_recipe
from train.fit.reporter import Reporter
from train.fit.start import (
    attach_features,
    attach_teacher,
    load_initial_weights,
    warn_ignored_settings,
)
from train.fit.trainer import Trainer
from train.measure.counting import table
from train.measure.evaluate_command import ManyValues, evaluate
from train.nets import NETS
from train.ship.cards_command import cards
from train.ship.export_command import blend, export, import_
from train.ship.quantise_command import quantise
from train.ship.reproduce_command import former, reproduce

log = logging.getLogger("train")
Folder = click.Path(exists=True, file_okay=False, path_type=Path)
File = click.Path(exists=True, dir_okay=False, path_type=Path)
_COUNT = click.IntRange(1)
_PATCH_OPTION = click.option("--patch", type=_COUNT, help="Side of a patch in pixels.")
_CLIP_OPTION = click.option(
    "--clip", type=File, multiple=True, help="Video clip whose frames are HR images, too."
)


class Commands(click.Group):
    """Click group whose commands report user errors in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; convert a TrainError to click's one-line error and exit code 1."""
        try:
            return super().invoke(ctx)
        except TrainError as exc:
            raise click.ClickException(str(exc)) from exc


@click.group(cls=Commands)
def main() -> None:
    """Train the papers' networks and write engines/."""
    quiet = int(os.environ.get("RANK", "0")) > 0  # only process 0 logs progress
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%T")
    log.setLevel(logging.WARNING if quiet else logging.INFO)


for command in (evaluate, import_, blend, export, quantise, cards, reproduce, former):
    main.add_command(command)


@main.command()
def info() -> None:
    """Print parameters and MultAdds of every network and scale, beside the papers' figures."""
    click.echo(table())


@main.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(DATA_SETS)))
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Parent folder of the data sets' folders.",
)
@click.option("--keep-archive", is_flag=True, help="Keep the archive; several sets may share it.")
def fetch(names: tuple[str, ...], to: Path, keep_archive: bool) -> None:
    """Download the papers' data sets NAMES, each into a folder for --data."""
    for name in names:
        run_fetch(DATA_SETS[name], to, keep_archive=keep_archive)


@main.command(cls=ManyValues)
@click.argument("name", type=click.Choice(sorted(NETS)))
@click.option("--recipe", default="ours", show_default=True, help="Recipe name, or a .toml file.")
@click.option("--scale", type=int, multiple=True, help="Default: all scales of the network.")
@click.option("--data", type=Folder, multiple=True, help="Folder of HR images.")
@_CLIP_OPTION
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for prepared pictures; default: the user's cache, for more than 16 MB of images.",
)
@click.option("--packed", type=File, help="File written by `pack`, instead of --data.")
@click.option("--checkpoint", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--from",
    "start",
    type=File,
    multiple=True,
    help="Checkpoint or ONNX with initial weights; more files supply those that the first lacks.",
)
@click.option("--vgg", type=File, help="VGG weights for the loss `gan`, VGG16 for `sharp`.")
@click.option("--lpips", type=File, help="LPIPS (AlexNet) weights for the loss `sharp`.")
@click.option("--teacher", type=File, help="Teacher network: checkpoint, .pth or ONNX.")
@click.option("--teacher-weight", type=click.FloatRange(0, 1), help="Its weight in the loss, 0..1.")
@click.option("--steps", type=_COUNT, help="Number of steps; scales the recipe's phases.")
@click.option(
    "--until", type=_COUNT, default=None, help="Stop at this step, before the recipe's end."
)
@click.option("--batch", type=_COUNT, help="Patches per step, over all processes.")
@_PATCH_OPTION
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Highest learning rate.")
@click.option("--optimiser", type=click.Choice(["adam", "sgd", "muon"]))
@click.option(
    "--ema", type=click.FloatRange(0, 1, max_open=True), help="Decay of the averaged weights."
)
@click.option("--init", help="Initialisation (see train/fit/initialise.py).")
@click.option("--seed", type=int)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Network setting; VALUE is JSON."
)
@click.option("--validation", type=Folder, help="Benchmark folder, scored at each report.")
@click.option("--every", type=_COUNT, default=500, show_default=True, help="Steps between reports.")
@click.option("--board", type=click.Path(path_type=Path), help="Folder for TensorBoard.")
@click.option(
    "--precision", type=click.Choice(PRECISIONS), help="Default: the faster one on this machine."
)
@click.option("--workers", type=click.IntRange(0), help="Patch worker processes; default by cores.")
@click.option(
    "--compile/--no-compile", "compiled", default=None, help="Use torch.compile; default: on CUDA."
)
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads, 0 for all.")
def fit(
    name: str,
    recipe: str,
    scale: tuple[int, ...],
    data: tuple[Path, ...],
    clip: tuple[Path, ...],
    cache: Path | None,
    packed: Path | None,
    checkpoint: Path,
    start: tuple[Path, ...],
    vgg: Path | None,
    lpips: Path | None,
    teacher: Path | None,
    steps: int | None,
    until: int | None,
    changes: tuple[str, ...],
    validation: Path | None,
    every: int,
    board: Path | None,
    precision: str | None,
    workers: int | None,
    compiled: bool | None,
    threads: int,
    **recipe_options: Any,
) -> None:
    """Train NAME. An existing checkpoint is resumed; then only --steps changes the recipe."""
    if threads:
        torch.set_num_threads(threads)
    if bool(data) == (packed is not None):
        raise click.UsageError("give either --data or --packed")
    if clip and packed is not None:
        raise click.UsageError("--clip needs --data: the pictures of --packed are ready")
    resumed = checkpoint.exists()
    if resumed:
        trainer = Trainer.resume(checkpoint, name, steps)
        given = {**recipe_options, **_parse_settings(changes), "scale": scale or None}
        warn_ignored_settings(trainer, recipe, start, given)
    else:
        plan = find_recipe(name, recipe).with_steps(steps)
        plan = replace(
            plan, **{key: value for key, value in recipe_options.items() if value is not None}
        )
        plan = replace(plan, teacher=str(teacher or plan.teacher))
        trainer = Trainer.new(name, plan, scale or None, **_parse_settings(changes))
        _prepare_start(trainer, recipe, start, checkpoint.parent)
    trainer.command, trainer.until = _command_line(), until or 0
    attach_features(trainer, vgg, lpips)
    chosen, reason = choose_precision(precision, trainer.precision if resumed else None)
    trainer.compiled = torch.cuda.is_available() if compiled is None else compiled
    fabric = open_fabric(chosen, trainer.net.scales)
    attach_teacher(trainer, teacher, validation)
    patches = _load_patches(trainer, packed, data, clip, cache)
    record = patches.pictures.record
    trainer.set_data_and_precision(record, chosen)
    log.info("%d training images, starting at step %d", record["images"], trainer.step)
    log.info("precision: %s (%s)", trainer.precision, reason)
    patch_workers = default_workers() if workers is None else workers
    reporter = Reporter(every=every, validation=validation, board=board, workers=patch_workers)
    done = run_fit(trainer, patches, checkpoint, reporter, fabric)
    reporter.close()
    if not done:
        if fabric.is_global_zero:
            message = f"stopped at step {trainer.step}; run the same command to resume"
            click.echo(message, err=True)
        sys.exit(130)


def _prepare_start(trainer: Trainer, recipe: str, start: tuple[Path, ...], folder: Path) -> None:
    """Load the initial weights of a new training and create the folder of its checkpoint."""
    if start:
        load_initial_weights(trainer, start)
    elif source := trainer.recipe.expected_start():
        log.warning(
            "recipe %s expects initial weights of %s: pass them with --from", recipe, source
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise TrainError(f"cannot create the folder {exc.filename}: {exc.strerror}") from exc


@main.command(cls=ManyValues)
@click.argument("name", type=click.Choice(sorted(NETS)))
@click.option("--recipe", default="ours", show_default=True, help="Recipe name, or a .toml file.")
@click.option("--scale", type=int, multiple=True, help="Default: all scales of the network.")
@click.option("--data", type=Folder, multiple=True, required=True, help="Folder of HR images.")
@_CLIP_OPTION
@_PATCH_OPTION
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
def pack(
    name: str,
    recipe: str,
    scale: tuple[int, ...],
    data: tuple[Path, ...],
    clip: tuple[Path, ...],
    patch: int | None,
    output: Path,
) -> None:
    """Prepare the pictures for `fit NAME --recipe ...` and write them to a file for --packed."""
    found = find_recipe(name, recipe)
    found = replace(found, patch=patch or found.patch)
    _load_pictures(data, clip, scale or NETS[name].scales, found).pack(output)


def _load_patches(
    trainer: Trainer,
    packed: Path | None,
    data: tuple[Path, ...],
    clips: tuple[Path, ...],
    cache: Path | None,
) -> Patches:
    """Return the recipe's training patches, cut from a packed file or from images and clips."""
    recipe, net = trainer.recipe, trainer.net
    if packed is not None:
        pictures = Pictures.unpack(packed).large_enough(recipe)
    else:
        pictures = _load_pictures(data, clips, net.scales, recipe, cache)
    return Patches(pictures, recipe, net.colour, net.scales)


def _load_pictures(
    data: tuple[Path, ...],
    clips: tuple[Path, ...],
    scales: tuple[int, ...],
    recipe: Recipe,
    cache: Path | None = None,
) -> Pictures:
    """Prepare the recipe's pictures: mapped from a cache, or in memory if they are few."""
    if cache is None and not clips and not worth_caching(data):
        return Pictures.load(data, scales, recipe)
    where = cache or user_cache_path("vsr", appauthor=False) / "pictures"
    return Pictures.cached(data, scales, recipe, where, clips)


def _command_line() -> str:
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return " ".join(["python -m train", *words])


def _parse_settings(changes: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for change in changes:
        key, _, value = change.partition("=")
        try:
            found[key] = json.loads(value)
        except ValueError as exc:
            raise click.BadParameter(f"--set {change}: not KEY=VALUE with a JSON value") from exc
    return found
