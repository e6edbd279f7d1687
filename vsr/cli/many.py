"""`vsr run` for several files, folders and lists: its options, and the display of the results."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vsr.cli.given import is_given, option_name
from vsr.cli.streams import print_result
from vsr.cli.terminal import run_stoppable
from vsr.errors import UsageError

if TYPE_CHECKING:
    from vsr.cli.progress import Show
    from vsr.files.batch import Batch, Selection
    from vsr.files.job_list import JobList
    from vsr.files.settings import RunSettings

_ALLOWED_WITH_LIST: Final = ("listed", "skip_existing", "progress", "verbose", "quiet")
"""Parameters that may be given together with --list."""


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select files of a folder, or a list of jobs, to a command."""
    options = [
        click.option("--recursive", is_flag=True, help="Include files in subfolders."),
        click.option(
            "--pattern", metavar="GLOB", help="Process only files that match, such as '*.mkv'.",
        ),
        click.option(
            "--skip-existing", is_flag=True, help="Skip files whose output exists and is complete.",
        ),
        click.option(
            "--list", "listed", type=click.Path(path_type=Path), metavar="FILE.toml",
            help="Run the jobs of a file, each with its own settings, instead of INPUT and OUTPUT.",
        ),
        click.option("--watch", is_flag=True, help="Keep waiting for new files, until Ctrl+C."),
    ]  # fmt: skip
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
    """Upscale all files into a folder, print the results, and exit. Raises UsageError."""
    from vsr.files.batch import Batch
    from vsr.media.location import is_stdin, is_url, url_for_messages
    from vsr.media.target import CONTAINERS

    if others := [name for name in inputs if is_url(name) or is_stdin(name)]:
        raise UsageError(
            f"several inputs must be files or folders, but {url_for_messages(others[0])} is "
            "neither: process it separately, or as a job of --list"
        )
    ending = Path(folder).suffix[1:].lower()
    if ending in CONTAINERS and not folder.endswith(("/", os.sep)) and not Path(folder).exists():
        raise UsageError(
            f"several inputs or a folder of videos require a folder as OUTPUT, but {folder} looks "
            f"like a file: name a folder, or write {folder}/ if it is one (frame_%05d.png names "
            "the pictures among videos)"
        )
    _run_all(Batch([Path(i) for i in inputs], Path(folder), settings, selection, show))


def run_list(context: click.Context, path: Path, skip_existing: bool, show: "Show") -> None:
    """Run the jobs of a TOML file, print the results, and exit. Raises UsageError."""
    from vsr.cli.job_list import read_list
    from vsr.files.job_list import JobList

    others = [p for p in context.command.params if p.name and p.name not in _ALLOWED_WITH_LIST]
    given = [p for p in others if is_given(str(p.name))]
    if given:
        name = option_name(given[0]) if isinstance(given[0], click.Option) else "INPUT, OUTPUT"
        raise UsageError(f"with --list, set {name} in {path}, not on the command line")
    _run_all(JobList(read_list(path, context.command), skip_existing, show))


def _run_all(jobs: "Batch | JobList") -> None:
    from vsr.media.target import part_path

    def work(stop: Any) -> None:
        jobs.stop = stop
        jobs.run()

    def part() -> Path | None:
        return None if jobs.current is None else part_path(jobs.current)

    run_stoppable(work, part, "; the file in progress was not written")
    print_result(jobs.table())
    sys.exit(jobs.exit_code())
