"""Standard streams that are closed, full or no longer read: the work goes on without them."""

import os
import sys
from contextlib import suppress
from typing import Final, TextIO

import click

from vsr.errors import OutputError, reason

_NUMBERS: Final = {0: "stdin", 1: "stdout", 2: "stderr"}


def open_missing() -> None:
    """Open the null device in place of standard streams that are closed.

    Else the first file that the program opens gets the stream's number, and what libraries say on
    it is written into that file. What is written on a closed stdout fails: it may be a result.
    Call before anything is opened.
    """
    for number, name in _NUMBERS.items():
        try:
            os.fstat(number)
        except OSError:
            mode = os.O_WRONLY if name == "stderr" else os.O_RDONLY
            null = os.open(os.devnull, mode)  # the lowest number that is free: this one
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            kind = "w" if number else "r"
            setattr(sys, name, os.fdopen(os.dup(number), kind, encoding="utf-8"))


def say(text: str) -> None:
    """Print a command's result on stdout. Whoever stops reading it, as `head` does, has enough.

    Raises OutputError where it cannot be written, as to a full disk.
    """
    try:
        click.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up(sys.stdout)
    except OSError as exc:
        _give_up(sys.stdout)
        raise OutputError(f"cannot write to the standard output: {reason(exc)}") from exc


def write_if_possible(stream: TextIO, text: str) -> bool:
    """Write and flush words that nothing depends on; False where the stream takes no more."""
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        _give_up(stream)
        return False
    return True


def flush_all() -> None:
    """Flush stdout and stderr, and give up those that cannot be: Python would fail at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _give_up(stream)


def _give_up(stream: TextIO) -> None:
    """Let a stream that takes no more write into the null device."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
