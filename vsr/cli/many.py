"""`vsr run` for several files and folders: its options, and how the outcome is shown."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vsr.cli.streams import say
from vsr.cli.terminal import stopping_on_signals

if TYPE_CHECKING:
    from vsr.cli.progress import Show
    from vsr.files.batch import Selection
    from vsr.files.settings import RunSettings


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose files of a folder."""
    options = [
        click.option("--recursive", is_flag=True, help="Take files of folders within, too."),
        click.option("--pattern", metavar="GLOB", help="Take files such as '*.mkv' only."),
        click.option("--skip-existing", is_flag=True, help="Leave files whose output is there."),
        click.option("--watch", is_flag=True, help="Wait for more files, until Ctrl+C."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def run_many(
    inputs: Sequence[str],
    folder: str,
    settings: "RunSettings",
    selection: "Selection",
    show: "Show",
) -> None:
    """Upscale all files into a folder, print the table, and exit with its code."""
    from vsr.files.batch import Batch

    batch = Batch([Path(i) for i in inputs], Path(folder), settings, selection, show)

    def work(stop: Any) -> None:
        batch.stop = stop
        batch.run()

    stopping_on_signals(work, None)
    say(batch.table())
    sys.exit(batch.exit_code())
