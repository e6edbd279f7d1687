"""Starts child processes that end with their parent.

This file is also the script that a child starts: it prepares the process and then runs the target.
"""

import ctypes
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
"""Value of PR_SET_PDEATHSIG in Linux's prctl.h."""


def start_child(
    target: str, stderr: int | None = subprocess.STDOUT, **options: Any
) -> "subprocess.Popen[Any]":
    """Start Python on a file (`*.py`) or module, with pipes to its stdin and stdout.

    By default its stderr goes to its stdout; `stderr=None`: to the stderr of this process.
    `options` are more arguments of `subprocess.Popen`. Terminal signals do not reach the child; on
    Linux it ends with its parent. Raises OSError.
    """
    return subprocess.Popen(
        [sys.executable, "-P", __file__, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        process_group=0,  # Ctrl+C reaches only the parent
        **options,
    )


def _end_with_parent() -> None:
    """Have the system kill this process (SIGKILL) when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def outlive_parent() -> None:
    """Let this process continue when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)


def main() -> None:
    """Prepare the process, then run the file or module named by the first argument."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group: the parent decides
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent()
    sys.path.append(str(Path(__file__).parents[2]))  # the folder of `vsr`, installed or not
    target = sys.argv[1]
    sys.argv = [target]
    if target.endswith(".py"):
        runpy.run_path(target, run_name="__main__")
    else:
        runpy.run_module(target, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
