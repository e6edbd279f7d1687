"""`vsr compare`: measure videos against each other, or choose a model by eye."""

import logging
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vsr.cli.numbers import Number, WholeNumber
from vsr.cli.streams import say
from vsr.cli.terminal import errors_shown, start_logging, stopping_on_signals, verbosity
from vsr.errors import UsageError

if TYPE_CHECKING:
    from vsr.compare.result import Comparison

log = logging.getLogger("vsr")
_CLOCK = re.compile(r"(?:(?:(\d+):)?([0-5]?\d):)?(\d+(?:\.\d+)?)")


def moment(_ctx: click.Context, _param: click.Parameter, given: str) -> float:
    """Parse a time in seconds, or one such as 01:10 or 1:02:03.5; return seconds."""
    found = _CLOCK.fullmatch(given)
    if found is None:
        raise click.BadParameter(f"'{given}' is no time such as 70 or 01:10")
    hours, minutes, seconds = found.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


@click.command("compare")
@click.argument("videos", nargs=-1, required=True, metavar="A [B]...")
@click.option("--reference", metavar="HR", help="The original, to measure all of them against.")
@click.option(
    "--models", metavar="NAME,NAME",
    help="Enlarge a piece of A by each of these models, and compare what comes out.",
)  # fmt: skip
@click.option(
    "--at", callback=moment, default="0", metavar="TIME",
    help="Where the piece begins, such as 70 or 01:10.",
)  # fmt: skip
@click.option(
    "--seconds", type=Number(0.04), default=1.0, show_default=True, help="How long the piece is."
)
@click.option("-s", "--scale", type=WholeNumber(1), help="Enlargement of the models.")
@click.option(
    "--align", is_flag=True, help="Compare from each video's first frame, not by their times."
)
@click.option(
    "--lpips", type=click.Path(path_type=Path), metavar="FILE.npz",
    help="Weights of LPIPS (AlexNet), which is measured then, too.",
)  # fmt: skip
@click.option("--max-frames", type=WholeNumber(1), help="Number of frames to compare.")
@click.option(
    "-o", "--output", "outputs", type=click.Path(path_type=Path), multiple=True,
    metavar="FILE.html|.json|.png", help="Where to write the result. Repeatable.",
)  # fmt: skip
@click.option("-y", "overwrite", is_flag=True, help="Replace existing outputs.")
@verbosity
def compare(
    videos: tuple[str, ...], reference: str | None, models: str | None, at: float, seconds: float,
    scale: int | None, align: bool, lpips: Path | None, max_frames: int | None,
    outputs: tuple[Path, ...], overwrite: bool, verbose: bool, quiet: bool,
) -> None:  # fmt: skip
    """Measure videos against the original, or against the first: PSNR, SSIM, XPSNR, flicker.

    Frames are matched by their times; smaller pictures are enlarged as a player does. A page
    (.html) shows the worst frames with a line to drag between two videos.

    Example: vsr compare big.mp4 upscaled.mp4 -o page.html

    Example: vsr compare in.mp4 --models c-dcscn,rt-sharp --at 00:10 -o page.html
    """
    from vsr.compare.candidates import CandidateSettings, compare_models
    from vsr.compare.compare import CompareSettings
    from vsr.compare.compare import compare as measure
    from vsr.compare.write import check_output_path, text_table, write_comparison
    from vsr.files.settings import RunSettings

    start_logging(verbose, quiet)
    with errors_shown(verbose):
        for path in outputs:
            check_output_path(path, overwrite, [*videos, *([reference] if reference else [])])
        if models and (len(videos) > 1 or reference):
            raise UsageError("--models enlarges one video: give neither others nor --reference")
        if models and lpips:
            raise UsageError("--lpips measures videos: it cannot be with --models, which shows")

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
                on_model=lambda name: log.info("enlarging by %s", name),
                stop=stop,
            )

        found = stopping_on_signals(work)
        for path in outputs:
            write_comparison(found, path)
        say(text_table(found))
        for note in found.notes:
            log.info(note)
