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
from train.fit.begin import begin_from, find_teacher, warn_ignored
from train.fit.gan import Adversary
from train.fit.loop import fit as run_fit
from train.fit.machine import PRECISIONS, choose_precision, default_workers, open_fabric
from train.fit.recipe import Recipe, find_recipe
from train.fit.sharp import Sharpness
from train.fit.trainer import Trainer
from train.fit.vgg import VggFeatures, VggLayers
from train.fit.watch import Watch
from train.measure.counting import table
from train.measure.evaluate_command import ManyValues, evaluate
from train.measure.perceptual import Lpips
from train.nets import NETS
from train.ship.export_command import blend, export, import_
from train.ship.quantise_command import quantise
from train.ship.renew import cards
from train.ship.reproduce_command import former, reproduce

log = logging.getLogger("train")
Folder = click.Path(exists=True, file_okay=False, path_type=Path)
File = click.Path(exists=True, dir_okay=False, path_type=Path)
_COUNT = click.IntRange(1)


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
    """Parameters and work of every network and scale, beside the papers' figures."""
    click.echo(table())


@main.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(DATA_SETS)))
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder that gets a folder of each.",
)
@click.option("--keep-archive", is_flag=True, help="Several sets may share one.")
def fetch(names: tuple[str, ...], to: Path, keep_archive: bool) -> None:
    """Download the papers' data sets NAMES, each into a folder for --data."""
    for name in names:
        run_fetch(DATA_SETS[name], to, keep_archive=keep_archive)


@main.command(cls=ManyValues)
@click.argument("name", type=click.Choice(sorted(NETS)))
@click.option("--recipe", default="ours", show_default=True, help="paper, ours, ... or a .toml.")
@click.option("--scale", type=int, multiple=True, help="Default: all that the network has.")
@click.option("--data", type=Folder, multiple=True, help="Folder of HR images.")
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keeps the prepared pictures; default: the user's cache, for more than 16 MB of images.",
)
@click.option("--packed", type=File, help="What `pack` wrote, instead of --data.")
@click.option("--checkpoint", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--from",
    "start",
    type=File,
    multiple=True,
    help="Start from the weights of a checkpoint or ONNX; further files give what the first lacks.",
)
@click.option("--vgg", type=File, help="VGG weights for the losses `gan` and `sharp`.")
@click.option("--lpips", type=File, help="LPIPS (AlexNet) weights for the loss `sharp`.")
@click.option("--teacher", type=File, help="Network to learn from: checkpoint, .pth or ONNX.")
@click.option("--teacher-weight", type=click.FloatRange(0, 1), help="Its share of the loss.")
@click.option("--steps", type=_COUNT, help="Length; the recipe's phases scale along.")
@click.option("--until", type=_COUNT, default=None, help="Stop at this step of the recipe's.")
@click.option("--batch", type=_COUNT, help="Patches a step, over all processes.")
@click.option("--patch", type=_COUNT, help="Side of a patch.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Highest learning rate.")
@click.option("--optimiser", type=click.Choice(["adam", "sgd", "muon"]))
@click.option("--ema", type=click.FloatRange(0, 1, max_open=True), help="Of averaged weights.")
@click.option("--init", help="Initialisation (see train/fit/initialise.py).")
@click.option("--seed", type=int)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Network setting.")
@click.option("--validation", type=Folder, help="Benchmark folder, scored at each report.")
@click.option("--every", type=_COUNT, default=500, show_default=True, help="Steps between reports.")
@click.option("--board", type=click.Path(path_type=Path), help="Folder for TensorBoard.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Default: what is fast here.")
@click.option("--workers", type=click.IntRange(0), help="Processes for patches; default by cores.")
@click.option("--compile/--no-compile", "compiled", default=None, help="Default: on CUDA.")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads, 0 for all.")
def fit(
    name: str,
    recipe: str,
    scale: tuple[int, ...],
    data: tuple[Path, ...],
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
    **scaled: Any,
) -> None:
    """Train NAME; an existing checkpoint is resumed (only --steps then changes anything)."""
    if threads:
        torch.set_num_threads(threads)
    if bool(data) == (packed is not None):
        raise click.UsageError("give either --data or --packed")
    resumed = checkpoint.exists()
    if resumed:
        trainer = Trainer.resume(checkpoint, name, steps)
        warn_ignored(trainer, recipe, {**scaled, **_settings(changes)})
    else:
        plan = find_recipe(name, recipe).resized(steps)
        plan = replace(plan, **{key: value for key, value in scaled.items() if value is not None})
        plan = replace(plan, teacher=str(teacher or plan.teacher))
        trainer = Trainer.new(name, plan, scale or None, **_settings(changes))
        _begin(trainer, recipe, start, checkpoint.parent)
    trainer.command, trainer.until = _command_line(), until or 0
    trainer.use_features(_features(vgg, trainer.recipe) if vgg else None)
    trainer.lpips = Lpips.load(lpips) if lpips else None
    chosen, why = choose_precision(precision, trainer.precision if resumed else None)
    trainer.compiled = torch.cuda.is_available() if compiled is None else compiled
    fabric = open_fabric(chosen, trainer.net.scales)
    find_teacher(trainer, teacher, validation)
    patches = _patches(trainer, packed, data, cache)
    record = patches.pictures.record
    trainer.go_on_with(record, chosen)
    log.info("%d images, from step %d", record["images"], trainer.step)
    log.info("computing in %s (%s)", trainer.precision, why)
    cutters = default_workers() if workers is None else workers
    watch = Watch(every=every, validation=validation, board=board, workers=cutters)
    done = run_fit(trainer, patches, checkpoint, watch, fabric)
    watch.close()
    if not done:
        if fabric.is_global_zero:
            told = f"stopped at step {trainer.step}; the same command goes on from there"
            click.echo(told, err=True)
        sys.exit(130)


def _begin(trainer: Trainer, recipe: str, start: tuple[Path, ...], folder: Path) -> None:
    """Load the initial weights of a new training and create the folder of its checkpoint."""
    if start:
        begin_from(trainer, start)
    elif source := trainer.recipe.goes_on_from():
        log.warning("recipe %s is meant to go on from weights of %s: --from", recipe, source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise TrainError(f"cannot make the folder {exc.filename}: {exc.strerror}") from exc


@main.command(cls=ManyValues)
@click.argument("name", type=click.Choice(sorted(NETS)))
@click.option("--recipe", default="ours", show_default=True, help="paper, ours, ... or a .toml.")
@click.option("--scale", type=int, multiple=True, help="Default: all that the network has.")
@click.option("--data", type=Folder, multiple=True, required=True, help="Folder of HR images.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
def pack(
    name: str, recipe: str, scale: tuple[int, ...], data: tuple[Path, ...], output: Path
) -> None:
    """Prepare the pictures that `fit NAME --recipe ...` would, as one file for --packed."""
    scales = scale or NETS[name].scales
    _pictures(data, scales, find_recipe(name, recipe)).pack(output)


def _patches(
    trainer: Trainer, packed: Path | None, data: tuple[Path, ...], cache: Path | None
) -> Patches:
    """Return the recipe's training patches, cut from a packed file or from image folders."""
    recipe, net = trainer.recipe, trainer.net
    if packed is not None:
        pictures = Pictures.unpack(packed).large_enough(recipe)
    else:
        pictures = _pictures(data, net.scales, recipe, cache)
    return Patches(pictures, recipe, net.colour, net.scales)


def _pictures(
    data: tuple[Path, ...], scales: tuple[int, ...], recipe: Recipe, cache: Path | None = None
) -> Pictures:
    """Prepare the folders' pictures for the recipe: mapped from a cache, or in memory if few."""
    if cache is None and not worth_caching(data):
        return Pictures.load(data, scales, recipe)
    where = cache or user_cache_path("vsr", appauthor=False) / "pictures"
    return Pictures.cached(data, scales, recipe, where)


def _features(path: Path, recipe: Recipe) -> VggFeatures | VggLayers:
    """Load the VGG layers that the recipe's loss uses from a file of VGG weights."""
    if recipe.sharpens():
        return VggLayers.load(path, Sharpness.of(recipe.sharp).names)
    return VggFeatures.load(path, Adversary(**recipe.adversary))


def _command_line() -> str:
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return " ".join(["python -m train", *words])


def _settings(changes: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for change in changes:
        key, _, value = change.partition("=")
        try:
            found[key] = json.loads(value)
        except ValueError as exc:
            raise click.BadParameter(f"--set {change}: not KEY=VALUE with a JSON value") from exc
    return found
