"""`vsr compare`: measure videos against each other, or choose a model by eye."""

import logging
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vsr.cli.given import refuse
from vsr.cli.numbers import Number, WholeNumber
from vsr.cli.streams import print_result
from vsr.cli.terminal import exit_on_error, run_stoppable, start_logging, verbosity
from vsr.errors import UsageError

if TYPE_CHECKING:
    from vsr.compare.result import Comparison

log = logging.getLogger("vsr")
_CLOCK = re.compile(r"(?:(?:(\d+):)?([0-5]?\d):)?(\d+(?:\.\d+)?)")


def parse_time(_ctx: click.Context, _param: click.Parameter, given: str) -> float:
    """Parse a time in seconds, or one such as 01:10 or 1:02:03.5; return seconds."""
    found = _CLOCK.fullmatch(given)
    if found is None:
        raise click.BadParameter(f"'{given}' is not a time such as 70 or 01:10")
    hours, minutes, seconds = found.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


@click.command("compare")
@click.argument("videos", nargs=-1, required=True, metavar="A [B]...")
@click.option(
    "--reference", metavar="HR", help="Original video with which all videos are compared."
)
@click.option(
    "--models", metavar="NAME,NAME",
    help="Upscale an excerpt of A with each of these models, and compare the results.",
)  # fmt: skip
@click.option(
    "--at", callback=parse_time, default="0", metavar="TIME",
    help="Start of the excerpt, such as 70 or 01:10.",
)  # fmt: skip
@click.option(
    "--seconds", type=Number(0.04), default=1.0, show_default=True, help="Duration of the excerpt."
)
@click.option("-s", "--scale", type=WholeNumber(1), help="Scale factor of the models.")
@click.option(
    "--align",
    is_flag=True,
    help="Match frames by the time since each video's first frame.",
)
@click.option(
    "--lpips", type=click.Path(path_type=Path), metavar="FILE.npz",
    help="Weights file (AlexNet); enables the LPIPS metric.",
)  # fmt: skip
@click.option("--max-frames", type=WholeNumber(1), help="Maximum number of frames to compare.")
@click.option(
    "-o", "--output", "outputs", type=click.Path(path_type=Path), multiple=True,
    metavar="FILE.html|.json|.png", help="Output file for the results. Repeatable.",
)  # fmt: skip
@click.option("-y", "overwrite", is_flag=True, help="Replace existing outputs.")
@verbosity
def compare(
    videos: tuple[str, ...], reference: str | None, models: str | None, at: float, seconds: float,
    scale: int | None, align: bool, lpips: Path | None, max_frames: int | None,
    outputs: tuple[Path, ...], overwrite: bool, verbose: bool, quiet: bool,
) -> None:  # fmt: skip
    """Compare videos with the original, or with the first one: PSNR, SSIM, XPSNR, flicker.

    Frames are matched by time; smaller frames are scaled up bicubically. A .html page shows the
    worst frames, with a slider between two videos.

    Example: vsr compare big.mp4 upscaled.mp4 -o page.html

    Example: vsr compare in.mp4 --models c-dcscn,rt-sharp --at 00:10 -o page.html
    """
    from vsr.compare.candidates import CandidateSettings, compare_models
    from vsr.compare.compare import CompareSettings
    from vsr.compare.compare import compare as measure
    from vsr.compare.write import check_output_path, text_table, write_comparison
    from vsr.files.settings import RunSettings

    start_logging(verbose, quiet)
    with exit_on_error(verbose):
        for path in outputs:
            check_output_path(path, overwrite, [*videos, *([reference] if reference else [])])
        if models and (len(videos) > 1 or reference):
            raise UsageError("--models requires exactly one video and no --reference")
        if models:
            refuse(["lpips", "align", "max_frames"], "cannot be combined with --models")
        else:
            refuse(["at", "seconds", "scale"], "applies only to the excerpt of --models")

        def work(stop: threading.Event) -> "Comparison":
            if not models:
                settings = CompareSettings(max_frames=max_frames, align=align, lpips=lpips)
                return measure(videos, reference, settings, stop=stop)
            chosen = CandidateSettings(
                models=[name.strip() for name in models.split(",") if name.strip()],
                at=at, seconds=seconds, run=RunSettings(scale=scale),
            )  # fmt: skip
            return compare_models(
                videos[0],
                chosen,
                on_model=lambda name: log.info("upscaling with %s", name),
                stop=stop,
            )

        found = run_stoppable(work)
        for path in outputs:
            write_comparison(found, path)
        print_result(text_table(found))
        for note in found.notes:
            log.info(note)
