"""Handles standard streams that are closed, full or no longer read, so that the work continues."""

import os
import sys
from contextlib import suppress
from typing import Final, TextIO

import click

from vsr.errors import OutputError, reason

_NUMBERS: Final = {0: "stdin", 1: "stdout", 2: "stderr"}


def open_missing() -> None:
    """Open the null device in place of standard streams that are closed.

    Otherwise the first file that the program opens gets the stream's descriptor, and libraries'
    messages are written into that file. Writing to a closed stdout fails, as the text may be a
    result. Call before any file is opened.
    """
    for number, name in _NUMBERS.items():
        try:
            os.fstat(number)
        except OSError:
            mode = os.O_WRONLY if name == "stderr" else os.O_RDONLY
            null = os.open(os.devnull, mode)  # gets the lowest free descriptor: this one
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            kind = "w" if number else "r"
            setattr(sys, name, os.fdopen(os.dup(number), kind, encoding="utf-8"))


def print_result(text: str) -> None:
    """Print a command's result on stdout; ignore a reader that closes it early, such as `head`.

    Raises OutputError if it cannot be written, for example to a full disk.
    """
    try:
        click.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _redirect_to_null(sys.stdout)
    except OSError as exc:
        _redirect_to_null(sys.stdout)
        raise OutputError(f"cannot write to the standard output: {reason(exc)}") from exc


def write_if_possible(stream: TextIO, text: str) -> bool:
    """Write and flush optional text; return False if the stream cannot be written any more."""
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        _redirect_to_null(stream)
        return False
    return True


def flush_all() -> None:
    """Flush stdout and stderr; redirect one that fails, or Python would fail at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _redirect_to_null(stream)


def _redirect_to_null(stream: TextIO) -> None:
    """Redirect a stream that cannot be written any more to the null device."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
