"""Closes several outputs in parallel."""

import time
from collections.abc import Iterable

from vsr.live.output.output import Output


def close_outputs(outputs: Iterable[Output], timeout_s: float = 1.0) -> None:
    """Close several outputs in parallel, within about `timeout_s` seconds in total."""
    outputs, deadline = list(outputs), time.monotonic() + timeout_s
    for output in outputs:
        output.begin_close(deadline)
    for output in outputs:
        output.wait_closed()
