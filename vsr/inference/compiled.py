"""Caches networks compiled by OpenVINO on disk, so that the next run only has to load them.

Compiling takes two to four times as long as loading. OpenVINO's cache is not used, because it runs
its files unverified; here each file begins with the SHA-256 of its content.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

from vsr.errors import reason
from vsr.media.whole_file import write_atomically

log = logging.getLogger(__name__)
_DIGEST: Final = hashlib.sha256().digest_size
_MAX_ENTRY_BYTES: Final = 64 * 2**20
"""Maximum size of a cached network, in bytes."""
_MAX_TOTAL_BYTES: Final = 256 * 2**20
"""Maximum size of all files, in bytes; the least recently used are deleted first."""


class CompiledCache:
    """A folder of compiled networks. Safe to use from several threads and processes.

    A file that cannot be read or written is treated as missing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or user_cache_path("vsr", appauthor=False) / "compiled"

    def get(self, key_parts: Sequence[str | bytes]) -> bytes | None:
        """Return the network cached under this key, or None if it is missing or damaged."""
        path = self._path(key_parts)
        try:
            content = path.read_bytes()
            if _digest(content[_DIGEST:]) != content[:_DIGEST]:
                log.debug("%s is damaged", path)
                path.unlink(missing_ok=True)
                return None
            os.utime(path)
        except OSError:
            return None
        return content[_DIGEST:]

    def put(self, key_parts: Sequence[str | bytes], data: bytes) -> None:
        """Cache a network; its key is all it depends on: model, settings, machine and version."""
        if len(data) > _MAX_ENTRY_BYTES:
            return
        path = self._path(key_parts)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with write_atomically(path) as temporary:
                temporary.write_bytes(_digest(data) + data)
            self._evict()
        except OSError as exc:
            log.debug("cannot cache the compiled network: %s", reason(exc))

    def remove(self, key_parts: Sequence[str | bytes]) -> None:
        """Delete the network cached under this key, e.g. if it cannot be loaded."""
        with suppress(OSError):
            self._path(key_parts).unlink(missing_ok=True)

    def _path(self, key_parts: Sequence[str | bytes]) -> Path:
        digest = hashlib.sha256()
        for part in key_parts:
            digest.update(_digest(part.encode() if isinstance(part, str) else part))
        return self.folder / f"{digest.hexdigest()[:32]}.bin"

    def _evict(self) -> None:
        """Delete the least recently used files until the others are within the limit."""
        found = [(path, path.stat()) for path in self.folder.glob("*.bin")]
        found.sort(key=lambda each: each[1].st_mtime, reverse=True)
        total = 0
        for path, stat in found:
            total += stat.st_size
            if total > _MAX_TOTAL_BYTES:
                path.unlink(missing_ok=True)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
