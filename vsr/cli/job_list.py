"""Reads the list of jobs of `vsr run --list`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from vsr.cli.relay_config import option_named, option_values, read_tables
from vsr.cli.run_settings import SELECTION, settings_of
from vsr.errors import UsageError
from vsr.files.job_list import ListedJob
from vsr.files.receipt import receipt_path

_TABLE: Final = "job"
_NOT_JOB_SETTINGS: Final = (
    *SELECTION, "listed", "input_", "output", "progress", "verbose", "quiet", "paths",
)  # fmt: skip
"""Command parameters that are not settings of a job."""


def read_list(path: Path, command: click.Command) -> list[ListedJob]:
    """Return the [[job]] tables of the file, in order; keys before them apply to all jobs.

    Raises UsageError, whose message names the job.
    """
    tables = read_tables(path)
    jobs = tables.pop(_TABLE, None)
    if not isinstance(jobs, list) or not jobs or not all(isinstance(job, dict) for job in jobs):
        raise UsageError(f"{path} contains no job: begin each job with a line [[{_TABLE}]]")
    found = [
        _job(f"{path}, job {number}", {**tables, **job}, command)
        for number, job in enumerate(jobs, 1)
    ]
    _check_outputs_differ(path, found)
    return found


def _check_outputs_differ(path: Path, jobs: Sequence[ListedJob]) -> None:
    """Raise UsageError if one job would overwrite a file of another job."""
    written: set[Path] = set()
    for job in jobs:
        files = {
            "output": job.output,
            "report": job.settings.report,
            "receipt": receipt_path(job.settings, Path(job.output)),
        }
        for what, name in files.items():
            if name is None:
                continue
            if (resolved := Path(name).resolve()) in written:
                raise UsageError(f"{path}: two jobs have the same {what}: {name}")
            written.add(resolved)


def _job(where: str, table: dict[str, Any], command: click.Command) -> ListedJob:
    paths = [table.pop(name, None) for name in ("input", "output")]
    if not all(isinstance(end, str) and end not in ("", "-") for end in paths):
        raise UsageError(f"{where}: 'input' and 'output' must be file names")
    try:
        values = option_values(command, table)
    except click.ClickException as exc:
        raise UsageError(f"{where}: {exc.format_message()}") from exc
    for name in table:
        if option_named(command, name).name in _NOT_JOB_SETTINGS:
            raise UsageError(f"{where}: '{name}' is not a setting of a job")
    try:
        settings = settings_of({k: v for k, v in values.items() if k not in _NOT_JOB_SETTINGS})
    except UsageError as exc:
        raise UsageError(f"{where}: {exc}") from exc
    return ListedJob(input=str(paths[0]), output=str(paths[1]), settings=settings)
