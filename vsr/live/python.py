"""`vsr.relay`: the Python function for `vsr relay`."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final, Unpack

from vsr.live.ladder.pool import Pool
from vsr.live.relay import Relay
from vsr.live.settings import RelayOptions, RelaySettings, with_options
from vsr.live.status.board import StatusBoard
from vsr.live.status.snapshot import Snapshot
from vsr.live.supervisor import run_one
from vsr.report.report import Report

_PROGRESS_INTERVAL_S: Final = 1.0
"""Interval between calls of `on_progress`, in seconds."""


def relay(
    input: str,
    outputs: str | Sequence[str],
    settings: RelaySettings | None = None,
    *,
    on_progress: Callable[[Snapshot], None] | None = None,
    stop: threading.Event | None = None,
    **options: Unpack[RelayOptions],
) -> Report:
    """Relay a live stream: `vsr.relay("rtmp://host/live/in", "rtmp://host/live/out")`.

    Options come from `settings`, from keywords named like the options of `vsr relay` (times in
    seconds), or both: keywords take precedence. `on_progress` is called every second and once at
    the end, on a separate thread, with the statistics of the status page. If it raises an error,
    `stop` is set, the relay ends, and the error is raised here. Returns the report when the source
    has ended for good or another thread sets `stop`. Raises VsrError with a one-line message.
    """
    chosen = with_options(RelaySettings() if settings is None else settings, **options)
    urls = [outputs] if isinstance(outputs, str) else outputs
    stop = stop or threading.Event()
    with closing(Pool()) as pool:
        one = Relay(input, urls, chosen, pool)
        with _progress_thread(one.board, on_progress, stop):
            run_one(one, stop)
    return one.report


@contextmanager
def _progress_thread(
    board: StatusBoard, on_progress: Callable[[Snapshot], None] | None, stop: threading.Event
) -> Iterator[None]:
    """Call `on_progress` during the context; if it fails, set `stop`, then raise its error."""
    if on_progress is None:
        yield
        return
    ended, errors = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            while not ended.wait(_PROGRESS_INTERVAL_S):
                on_progress(board.snapshot())
            on_progress(board.snapshot(max_age_s=0))
        except BaseException as exc:  # raised to the caller
            errors.append(exc)
            stop.set()

    thread = threading.Thread(target=work, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if errors:
        raise errors[0]
