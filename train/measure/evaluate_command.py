"""Defines the command `python -m train evaluate`; other modules do the measuring."""

from collections.abc import Sequence
from pathlib import Path

import click

from train.errors import TrainError
from train.fit.checkpoint import load_averaged_net
from train.measure.compressed import VideoSettings
from train.measure.evaluate import Method, Scoring, torch_enlarge
from train.measure.perceptual import Perceptual, load_perceptual
from train.measure.report import (
    create_folder,
    find_folders,
    footnotes,
    image_table,
    score_images,
    score_videos,
    video_table,
    write_report,
)
from train.measure.shipped import BACKENDS, load_onnx

File = click.Path(dir_okay=False, path_type=Path)
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower")


class ManyValues(click.Command):
    """A command that accepts `--data a b` for `--data a --data b`, for all repeatable options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each further value."""
        options = [p for p in self.params if isinstance(p, click.Option)]
        many = {name for option in options if option.multiple for name in option.opts}
        repeated: list[str] = []
        option = ""
        for word in args:
            if word.startswith("-") and len(word) > 1:
                name = word.partition("=")[0]
                option = name if name in many else ""
            elif option and repeated[-1] != option:
                repeated.append(option)
            repeated.append(word)
        return super().parse_args(ctx, repeated)


@click.command(cls=ManyValues)
@click.option("--model", type=File, multiple=True, help="Checkpoint written by `fit`.")
@click.option("--onnx", type=File, multiple=True, help="ONNX file of a network.")
@click.option(
    "--backend",
    type=click.Choice(sorted(BACKENDS)),
    default="openvino",
    show_default=True,
    help="Library that runs the ONNX files.",
)
@click.option(
    "--scale", type=int, multiple=True, help="Scale to measure; default: all scales of the network."
)
@click.option(
    "--data",
    multiple=True,
    help="Data set to measure on: set5, set14, bsd100, urban100 or a folder.",
)
@click.option("--grey-as-y", is_flag=True, help="Score the values of grey files as Y, not as RGB.")
@click.option(
    "--weights",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with the weights of LPIPS and NIQE.",
)
@click.option("--video", type=File, multiple=True, help="Clip to downscale, compress and upscale.")
@click.option(
    "--crf",
    type=click.IntRange(0, 51),
    multiple=True,
    default=(23, 28, 33),
    help="x264 quality of the clips; default: 23 28 33.",
)
@click.option(
    "--preset", type=click.Choice(PRESETS), default="medium", help="x264 preset of the clips."
)
@click.option(
    "--frames", type=click.IntRange(1), default=8, help="Frames scored per clip; default: 8."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for table.md, table.json and picture sheets.",
)
def evaluate(
    model: tuple[Path, ...],
    onnx: tuple[Path, ...],
    backend: str,
    scale: tuple[int, ...],
    data: tuple[str, ...],
    grey_as_y: bool,
    weights: Path | None,
    video: tuple[Path, ...],
    crf: tuple[int, ...],
    preset: str,
    frames: int,
    output: Path | None,
) -> None:
    """Measure networks as the papers do, compared with bicubic and the papers' figures.

    Options that can be repeated take several values: --data set5 set14 --crf 23 28.
    """
    if not data and not video:
        raise click.UsageError("nothing to measure on: give --data set5 or --video CLIP")
    if not model and not onnx:
        raise click.UsageError("no network: give --model CHECKPOINT or --onnx FILE")
    folders = find_folders(data)
    perceptual = load_perceptual(weights) if data or weights else Perceptual()
    lpips = perceptual.lpips if weights else None
    settings = VideoSettings(crfs=crf, preset=preset, frames=frames, lpips=lpips)
    scoring = Scoring(perceptual=perceptual, grey_as_y=grey_as_y)
    methods = find_methods(model, onnx, backend, scale)
    if output:
        create_folder(output)
    images = score_images(methods, folders, scoring, output)
    rows = score_videos(methods, video, settings)
    tables = [image_table(images)] if images else []
    tables += [video_table(rows)] if rows else []
    notes = footnotes(scoring, settings, bool(images), bool(rows))
    text = "\n".join([*tables, "\n".join(notes) + "\n"])
    click.echo(text, nl=False)
    if output:
        write_report(output, text, images, rows)


def find_methods(
    checkpoints: Sequence[Path], files: Sequence[Path], backend: str, scales: Sequence[int]
) -> list[Method]:
    """Return every network at each of `scales` that it has.

    Raises TrainError if no network is left, or if two of one scale have the same label.
    """
    found = [method for path in checkpoints for method in _of_checkpoint(path)]
    found += [load_onnx(path, backend) for path in files]
    kept = [method for method in found if not scales or method.scale in scales]
    if not kept:
        available = ", ".join(f"x{m.scale}" for m in found)
        raise TrainError(f"no network has the requested scale; available: {available}")
    names = [(method.label, method.scale) for method in kept]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TrainError(f"two networks have the name {twice[0]}: rename one of the files")
    return kept


def _of_checkpoint(path: Path) -> list[Method]:
    saved, net = load_averaged_net(path)
    compressed = saved["recipe"].get("degradation", "bicubic") != "bicubic"
    return [
        Method(
            label=path.stem,
            enlarge=torch_enlarge(net, scale),
            colour=net.colour,
            scale=scale,
            network="" if compressed else saved["name"],  # papers have clean pictures only
        )
        for scale in net.scales
    ]
