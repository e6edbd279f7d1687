"""Prints lines without buffering, for benchmarks that are run as modules."""

import sys


def print_line(line: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
