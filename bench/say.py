"""Prints a line at once, of benches that are run as modules."""

import sys


def say(line: str) -> None:
    """To stdout at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
