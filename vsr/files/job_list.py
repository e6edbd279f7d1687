"""Runs a list of jobs, each with separate settings, one after the other."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vsr.files.job import Job
from vsr.files.outcome import Outcome, exit_code_of, is_complete, outcome_of, table_of
from vsr.files.progress import Progress
from vsr.files.settings import RunSettings
from vsr.media.location import url_for_messages

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ListedJob:
    """One job of a list."""

    input: str
    output: str
    settings: RunSettings


@dataclass
class JobList:
    """Runs jobs one after the other, and continues after a failed one. Call `run` once."""

    jobs: Sequence[ListedJob]
    skip_existing: bool = False
    """Skip jobs whose output exists and is complete."""
    on_progress: Callable[[Progress], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    outcomes: list[Outcome] = field(default_factory=list)
    current: Path | None = None
    """Output of the job that was started last."""

    def run(self) -> list[Outcome]:
        """Run all jobs."""
        for job in self.jobs:
            if self.stop.is_set():
                break
            log.info("%s -> %s", url_for_messages(job.input), job.output)
            self.current = Path(job.output)
            self.outcomes.append(self._process(job))
        return self.outcomes

    def exit_code(self) -> int:
        """Return the exit code of `vsr run`: 3 if a job failed or lost something."""
        return exit_code_of(self.outcomes, self.stop.is_set())

    def table(self) -> str:
        """Return a table, one line per job: result, frames, frames per second, name, message."""
        return table_of(self.outcomes)

    def _process(self, job: ListedJob) -> Outcome:
        name, target = url_for_messages(job.input), Path(job.output)
        if self.skip_existing and is_complete(target):
            return Outcome(source=name, target=target, result="skipped")
        run = Job(job.input, job.output, job.settings, self.on_progress, self.stop)
        return outcome_of(run, name, target)
