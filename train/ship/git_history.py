"""Find formerly shipped networks in the checkout's git history, by file name and SHA-256."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path

from train.errors import TrainError
from train.ship.manifest import write_file


@cache
def find_in_history(engines: Path, file: str, sha256: str) -> str:
    """Return `<commit>:<path>` of a file `<network>/<file>` with this SHA-256 in git history.

    Returns "" if no commit has it, `engines` is not in a checkout, or git is not installed.
    """
    for revision in _versions(engines, file):
        if hashlib.sha256(_git(engines, "show", revision)).hexdigest() == sha256:
            return revision
    return ""


def restore_from_history(engines: Path, file: str, sha256: str, output: Path) -> None:
    """Write the file found by `find_in_history` to `output`; raise TrainError if there is none."""
    revision = find_in_history(engines, file, sha256)
    if not revision:
        raise TrainError(f"the git history of {engines} has no {file} with SHA-256 {sha256}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_file(output, _git(engines, "show", revision))
    except OSError as exc:
        raise TrainError(f"cannot write {output}: {exc.strerror}") from exc


def _versions(engines: Path, file: str) -> list[str]:
    """Return `<commit>:<path>` of all versions of all networks' files `file`, newest first."""
    options = ("log", "--all", "--format=:%h", "--name-only", "--diff-filter=AM", "--no-renames")
    lines = _git(engines, *options, "--", f":(glob)*/{file}").decode().split("\n")
    found, commit = [], ""
    for line in filter(None, lines):
        if line.startswith(":"):
            commit = line[1:]
        else:
            found.append(f"{commit}:{line}")
    return found


def _git(folder: Path, *words: str) -> bytes:
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""
