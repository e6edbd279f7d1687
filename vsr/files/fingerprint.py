"""Detects whether an input or a setting has changed since an earlier run."""

import hashlib
from pathlib import Path
from typing import Any, Final

_HASHED_BYTES: Final = 2**20
"""Number of bytes that are hashed at each end of an input."""


def fingerprint(path: Path) -> dict[str, Any]:
    """Return facts that identify an input: size, modification time, hash of both ends.

    Raises OSError.
    """
    status = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_HASHED_BYTES))
        file.seek(max(0, status.st_size - _HASHED_BYTES))
        digest.update(file.read(_HASHED_BYTES))
    return {"bytes": status.st_size, "modified": status.st_mtime_ns, "ends": digest.hexdigest()}


def change_message(name: str, then: Any, now: Any) -> str:
    """Return a message with a setting's old and new value; for a group, of the first difference."""
    if isinstance(then, dict) and isinstance(now, dict):
        inner = next(key for key in [*now, *then] if now.get(key) != then.get(key))
        return change_message(inner, then.get(inner), now.get(inner))
    was, is_ = ("not set" if value is None else value for value in (then, now))
    return f"{name.replace('_', ' ')} was {was} and is now {is_}"
