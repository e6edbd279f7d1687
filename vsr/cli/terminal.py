"""Shared by every command: logging to stderr, one-line errors, signal handling."""

import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from vsr.cli.streams import flush_all
from vsr.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    OutputError,
    UsageError,
    VsrError,
    reason,
    unexpected,
)

log = logging.getLogger("vsr")
T = TypeVar("T")
_DUPLICATE_SIGNAL_S = 0.5
"""Time in which a second signal counts as the first, in seconds."""
_ALWAYS_HANDLED = (signal.SIGINT, signal.SIGTERM)
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


def verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--verbose` and `--quiet` to a command."""
    command = click.option(
        "-v", "--verbose", is_flag=True, help="Show debug messages and tracebacks."
    )(command)
    return click.option("-q", "--quiet", is_flag=True, help="Show only errors.")(command)


def log_format(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--log-format` to a command."""
    return click.option(
        "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
        help="json: one object per line on stderr.",
    )(command)  # fmt: skip


class Lines(logging.Formatter):
    """Formats a record as a line, and its traceback with the secrets of URLs masked."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name that logging calls
        """Return the masked traceback: errors from libraries repeat their URL."""
        return _masked(super().formatException(ei))


class JsonLines(Lines):
    """Formats a record as one JSON object: time (UTC), level, logger, message, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without a line break; ASCII, so that no message can break the line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0]:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def key_value(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    """Parse options of the form KEY=VALUE into a dict."""
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"'{text}' is not of the form KEY=VALUE")
        found[key] = value
    return found


def variant_named(_ctx: click.Context, _param: click.Parameter, given: str) -> str:
    """Check a variant: `best`, a size or a number. Raises click.BadParameter."""
    from vsr.media.variants import VariantChoice

    try:
        VariantChoice.parse(given)
    except UsageError as exc:
        raise click.BadParameter(str(exc)) from exc
    return given


def ratio(_ctx: click.Context, _param: click.Parameter, given: str | None) -> Fraction | None:
    """Parse a positive number such as 25, 29.97 or 30000/1001."""
    if given is None:
        return None
    try:
        value = Fraction(given)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise click.BadParameter(f"'{given}' is not a positive number such as 25 or 30000/1001")
    return value


def start_logging(verbose: bool = False, quiet: bool = False, form: str = "text") -> None:
    """Log to stderr without mixing with a progress line; `form`: `text` or `json`.

    Ends the program if the user asked for more and for fewer messages.
    """
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # clears the progress line
    text = Lines(f"{clear}vsr: %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    logging.raiseExceptions = False  # no traceback if stderr cannot be written
    warnings.filterwarnings(
        "ignore", module=r"PIL\."
    )  # damaged or large pictures cause two lines each
    root = logging.getLogger("vsr")
    root.handlers[:] = [handler]
    root.setLevel(level)
    if verbose and quiet:
        fail("--verbose and --quiet exclude each other: use one of them", EXIT_USAGE, False)


@contextmanager
def exit_on_error(verbose: bool = False) -> Iterator[None]:
    """End the program with one line and the error's exit code instead of a traceback."""
    try:
        yield
    except VsrError as exc:
        fail(str(exc), exc.exit_code, verbose)
    except BrokenPipeError:  # the reader has closed stdout: click ends the program silently
        raise
    except Exception as exc:  # a bug in vsr: also one line, with how to report it
        fail(_masked(unexpected(exc)), EXIT_FAILED, verbose)


def _masked(text: str) -> str:
    from vsr.media.location import mask_secrets  # loads PyAV

    return mask_secrets(text)


def exit_process(exit_: SystemExit) -> NoReturn:
    """End the process with the exit code of `exit_`, without waiting for running threads.

    A blocked read or an engine build cannot be stopped. Python would free the libraries' memory
    while they still run, and the process would sometimes end by SIGSEGV.
    """
    flush_all()
    if threading.active_count() > 1 and isinstance(exit_.code, int):
        logging.shutdown()
        os._exit(exit_.code)
    raise exit_


def fail(message: str, code: int, verbose: bool) -> None:
    """End the program with one line on stderr."""
    log.error("error: %s", message, exc_info=verbose)
    sys.exit(code)


def reserve_stdout() -> str:
    """Reserve stdout for a video: return `pipe:N`, and redirect all other output to stderr.

    Libraries that print, and `--progress json`, would otherwise write into the video. Raises
    UsageError if stdout is a terminal, OutputError if it is closed.
    """
    try:
        if os.isatty(1):
            raise UsageError(
                "the output is stdout, which is a terminal: redirect it or pipe it into a program"
            )
        os.write(1, b"")  # fails if it was closed: see `vsr.cli.streams`
        own = os.dup(1)
        os.dup2(2, 1)
    except OSError as exc:
        raise OutputError(f"stdout cannot be written: {reason(exc)}") from exc
    return f"pipe:{own}"


def _line(level: int, message: str) -> bytes:
    """Format a log line in advance, for a signal handler that must not wait for a lock."""
    record = log.makeRecord(log.name, level, "", 0, message, (), None)
    lines = [handler.format(record) for handler in log.handlers] or [f"vsr: {message}"]
    return f"{lines[0]}\n".encode("utf-8", "replace")


def run_stoppable(
    work: Callable[[threading.Event], T],
    unfinished_file: Callable[[], Path | None] | None = None,
    lost: str = "",
) -> T:
    """Run `work` on a thread, so that signals are handled even while an encoder drains.

    The first SIGINT, SIGTERM or SIGHUP sets the event. The second deletes the file that
    `unfinished_file` returns, prints that the program stops and what is `lost`, and ends the
    process. A signal within half a second of the first is ignored: `timeout` and others signal a
    process and its group. Returns the result of `work`, or raises its exception.
    """
    stop = threading.Event()
    received: list[float] = []
    """Times of the received signals (s, `time.monotonic`)."""
    outcome: Future[T] = Future()
    abort_line = _line(logging.ERROR, f"error: stopped immediately{lost}")

    def handle(_number: int, _frame: FrameType | None) -> None:
        # take no lock here: the interrupted code of this thread may hold it
        received.append(time.monotonic())
        if received[-1] - received[0] > _DUPLICATE_SIGNAL_S:
            if unfinished_file is not None and (file := unfinished_file()) is not None:
                file.unlink(missing_ok=True)
            os.write(2, abort_line)
            os._exit(EXIT_INTERRUPTED)

    def run_work() -> None:
        try:
            outcome.set_result(work(stop))
        except BaseException as exc:  # raised again by the waiting thread
            outcome.set_exception(exc)

    # keep SIGHUP ignored under nohup, so that the process outlives the terminal
    handled = [n for n in _SIGNALS if n in _ALWAYS_HANDLED or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in handled}
    worker = threading.Thread(target=run_work, name="job", daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(0.1)  # wakes for signals, which only this thread receives
            if received and not stop.is_set():
                log.warning(
                    "stopping after the frames in progress; press Ctrl+C again to stop immediately"
                )
                stop.set()
    finally:
        if not received:  # else the default handler would end the process on another signal
            for number, handler in before.items():
                signal.signal(number, handler)
    return outcome.result()
