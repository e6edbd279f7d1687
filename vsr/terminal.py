"""What every command does alike: words on stderr, errors in one line, signals heard."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from vsr.errors import EXIT_FAILED, EXIT_INTERRUPTED, VsrError

log = logging.getLogger("vsr")
T = TypeVar("T")
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


def verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--verbose` and `--quiet`."""
    command = click.option("-v", "--verbose", is_flag=True, help="More words, and tracebacks.")(
        command
    )
    return click.option("-q", "--quiet", is_flag=True, help="Only errors.")(command)


def key_value(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    """Options of the form KEY=VALUE as a dict."""
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"'{text}' is not of the form KEY=VALUE")
        found[key] = value
    return found


def start_logging(verbose: bool = False, quiet: bool = False) -> None:
    """Send the words of `vsr` to stderr, clear of a progress line."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # the progress line stands there
    handler.setFormatter(logging.Formatter(f"{clear}vsr: %(message)s"))
    root = logging.getLogger("vsr")
    root.handlers[:] = [handler]
    root.setLevel(level)


@contextmanager
def errors_shown(verbose: bool = False) -> Iterator[None]:
    """End the program with one line and the error's exit code instead of a traceback."""
    try:
        yield
    except VsrError as exc:
        fail(str(exc), exc.exit_code, verbose)
    except Exception as exc:  # a defect of ours: still one line, and how to report it
        text = f"unexpected {type(exc).__name__}: {exc} (run with -v for details, and report it)"
        fail(" ".join(text.split()), EXIT_FAILED, verbose)


def fail(message: str, code: int, verbose: bool) -> None:
    """End the program with one line on stderr."""
    log.error("error: %s", message, exc_info=verbose)
    sys.exit(code)


def stopping_on_signals(work: Callable[[threading.Event], T], part: Path | None) -> T:
    """Do `work` on a thread, so that signals are heard even while an encoder drains.

    The first SIGINT, SIGTERM or SIGHUP sets the event; the second removes `part` and ends the
    process.
    """
    stop = threading.Event()
    heard: list[int] = []
    outcome: Future[T] = Future()

    def handle(number: int, _frame: FrameType | None) -> None:
        # no lock may be taken here: this thread may hold it where the signal found it
        heard.append(number)
        if len(heard) > 1:
            if part is not None:
                part.unlink(missing_ok=True)
            os.write(2, b"vsr: error: stopped at once; nothing was written\n")
            os._exit(EXIT_INTERRUPTED)

    def run_work() -> None:
        try:
            outcome.set_result(work(stop))
        except BaseException as exc:  # raised again by the waiting thread
            outcome.set_exception(exc)

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    worker = threading.Thread(target=run_work, name="job", daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(0.1)  # wakes for signals, which only this thread hears
            if heard and not stop.is_set():
                log.warning("stopping after the frames under way; once more stops at once")
                stop.set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return outcome.result()
