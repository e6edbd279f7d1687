"""Prints lines without buffering, for benches that are run as modules."""

import sys


def say(line: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
