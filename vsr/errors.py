"""Defines the errors shown to users, and the program's exit code for each of them.

    VsrError                  1  the base: one line that says what is wrong and what to do
    ├── UsageError            2  the request is invalid: unknown model, codec, scale ...
    ├── InputError            1  the input cannot be opened, read or decoded
    ├── OutputError           1  the output cannot be created or written
    ├── ModelError            1  a network's file is damaged or not a super-resolution network
    ├── BackendError          1  the inference backend is missing or failed
    │   ├── OutOfMemoryError  1  memory ran out: smaller tiles or batches help
    │   └── PlanError         1  an engine file cannot be used and has to be rebuilt
    └── InterruptedRunError 130  stopped by the user before the first frame was finished

Exceptions of other libraries (PyAV, OpenVINO, ONNX, OSError) are wrapped once, with `from exc`,
at the call that raises them.
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
    """The request is invalid, independent of the contents of the files."""

    exit_code = EXIT_USAGE


class InputError(VsrError):
    """The input cannot be opened, read or decoded."""


class OutputError(VsrError):
    """The output cannot be created or written."""


class ModelError(VsrError):
    """A network's file is damaged, or contains no super-resolution network."""


class BackendError(VsrError):
    """The inference backend is missing, refused the graph, or failed while running."""


class OutOfMemoryError(BackendError):
    """Device memory or page-locked memory is exhausted: use smaller tiles or batches."""


class PlanError(BackendError):
    """A built engine cannot be used by this library or GPU and has to be rebuilt."""


class InterruptedRunError(VsrError):
    """The user stopped the program before the first frame was finished."""

    exit_code = EXIT_INTERRUPTED


def unexpected(exc: BaseException) -> str:
    """Return a one-line message for an exception that is a bug in vsr, with how to report it."""
    text = f"unexpected {type(exc).__name__}: {exc} (run with -v for details, and report it)"
    return " ".join(text.split())


def reason(exc: BaseException) -> str:
    """Summarise another library's exception on one line, without the paths that FFmpeg repeats."""
    strerror = getattr(exc, "strerror", None)
    text = strerror or str(exc).strip() or type(exc).__name__
    return text.splitlines()[0].rstrip(".")
