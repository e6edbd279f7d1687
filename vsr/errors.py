"""Every error a user can meet, and the exit code each one ends the program with.

    VsrError                  1  the base: one line that says what is wrong and what to do
    ├── UsageError            2  what was asked for cannot be: unknown model, codec, scale ...
    ├── InputError            1  the input cannot be opened, read or decoded
    ├── OutputError           1  the output cannot be created or written
    ├── ModelError            1  a network's file is damaged or not a super-resolution network
    ├── BackendError          1  the inference backend is missing or failed
    │   ├── OutOfMemoryError  1  memory ran out: smaller tiles or batches help
    │   └── PlanError         1  an engine's file cannot be used: it is built again
    └── InterruptedRunError 130  stopped by the user before there was anything to keep

Foreign exceptions (PyAV, OpenVINO, ONNX, OSError) are wrapped once, where they are met, `from exc`.
"""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_DEGRADED = 3
"""Finished, but frames were lost or concealed."""
EXIT_INTERRUPTED = 130
"""Stopped by a signal after a clean flush."""


class VsrError(Exception):
    """Base of all errors raised on purpose; `str()` is one line for the user."""

    exit_code = EXIT_FAILED


class UsageError(VsrError):
    """The request is wrong, whatever the files hold."""

    exit_code = EXIT_USAGE


class InputError(VsrError):
    """The input cannot be opened, read or decoded."""


class OutputError(VsrError):
    """The output cannot be created or written."""


class ModelError(VsrError):
    """A network's file is damaged, or is not a super-resolution network."""


class BackendError(VsrError):
    """The inference backend is missing, refused the graph, or failed while running."""


class OutOfMemoryError(BackendError):
    """The device's memory, or page-locked memory, is used up: take smaller tiles or batches."""


class PlanError(BackendError):
    """A built engine cannot be used by this library or GPU: build it again."""


class InterruptedRunError(VsrError):
    """Stopped on request before the first frame was done."""

    exit_code = EXIT_INTERRUPTED


def unexpected(exc: BaseException) -> str:
    """Say in one line that a defect of ours was met, and how to report it."""
    text = f"unexpected {type(exc).__name__}: {exc} (run with -v for details, and report it)"
    return " ".join(text.split())


def reason(exc: BaseException) -> str:
    """Summarise a foreign exception on one line, without the paths that FFmpeg repeats."""
    strerror = getattr(exc, "strerror", None)
    text = strerror or str(exc).strip() or type(exc).__name__
    return text.splitlines()[0].rstrip(".")
