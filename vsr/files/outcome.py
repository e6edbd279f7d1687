"""Runs one of many jobs, and describes the results of all of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vsr.errors import (
    EXIT_DEGRADED,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    InterruptedRunError,
    VsrError,
    reason,
    unexpected,
)
from vsr.files.job import Job
from vsr.files.journal_lines import left_by_an_interrupted_run, mark_interrupted

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one file or job."""

    source: Path | str
    target: Path
    result: str
    """`done`, `degraded`, `failed`, `skipped` or `stopped`."""
    frames: int = 0
    fps: float = 0.0
    message: str = ""
    """Message: why it failed, or what was lost."""


def is_complete(target: Path) -> bool:
    """Return whether an output exists and is complete."""
    return target.exists() and not left_by_an_interrupted_run(target)


def outcome_of(job: Job, source: Path | str, target: Path) -> Outcome:
    """Create the output's folder and run a job; return errors as an outcome, without raising."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        return failed(source, target, f"cannot create the folder {target.parent}: {reason(exc)}")
    try:
        report = job.run()
    except InterruptedRunError as exc:
        return Outcome(source=source, target=target, result="stopped", message=str(exc))
    except VsrError as exc:
        log.debug("%s failed", source, exc_info=True)
        return failed(source, target, str(exc))
    except Exception as exc:  # a bug in vsr
        log.debug("%s failed", source, exc_info=True)
        return failed(source, target, unexpected(exc))
    result, message = "degraded" if report.degraded else "done", "; ".join(report.closing_words())
    if report.interrupted:
        result = "stopped"
        if not report.resumable:
            message = _mark_stopped(target, report.frames_out)
    return Outcome(
        source=source, target=target, result=result, frames=report.frames_out, fps=report.fps,
        message=message,
    )  # fmt: skip


def _mark_stopped(target: Path, frames: int) -> str:
    """Mark an incomplete output, so that the next run makes it again; return a message."""
    message = f"stopped after {frames} frames: the same command with --skip-existing"
    try:
        mark_interrupted(target)
    except OSError as exc:
        return f"{message} would skip it: delete {target} before ({reason(exc)})"
    return f"{message} makes the file again, from the start"


def failed(source: Path | str, target: Path, message: str) -> Outcome:
    """Log why a file or job failed; return its outcome."""
    log.error("%s", message)
    return Outcome(source=source, target=target, result="failed", message=message)


def exit_code_of(outcomes: Sequence[Outcome], stopped: bool) -> int:
    """Return the exit code of several jobs: 3 if one failed or lost something."""
    results = {outcome.result for outcome in outcomes}
    if results & {"failed", "degraded"}:
        return EXIT_DEGRADED
    return EXIT_INTERRUPTED if stopped or "stopped" in results else EXIT_DONE


def table_of(outcomes: Sequence[Outcome]) -> str:
    """Return a table, one line per job: result, frames, frames per second, input, message."""
    rows = [
        f"{o.result:<9}{o.frames:>8}{o.fps:>9.1f}  {o.source}{': ' if o.message else ''}{o.message}"
        for o in outcomes
    ]
    return "\n".join([f"{'result':<9}{'frames':>8}{'fps':>9}  file", *rows])
