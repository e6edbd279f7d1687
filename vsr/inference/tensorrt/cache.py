"""Caches built engines in the user's cache folder, under keys that define when they fit.

One file per engine: a line of JSON with its key and checksum, then the plan. That line, not the
file name, decides whether an engine fits. Files are written under a temporary name and renamed,
under a lock that the system releases when its process dies. So a killed build leaves no damaged
engine, and two processes build an engine only once.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from platformdirs import user_cache_path

from vsr.errors import BackendError, reason
from vsr.media.whole_file import PART, write_atomically

log = logging.getLogger(__name__)

MAGIC: Final = b"vsr-engine/1 "
SUFFIX: Final = ".engine"
_LOCK_LOG_DELAY_S: Final = 1.0
"""Time to wait for another builder before logging it, in seconds; most engines take longer."""
_MAX_HEADER_BYTES: Final = 65536
_MAX_LABEL_BYTES: Final = 80
"""Maximum length of a label in a file name, in bytes, of 255 that most systems allow for the name;
its end is kept, because that distinguishes engines."""


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """Everything that decides whether an engine fits."""

    label: str
    """Model, scale, precision and colour, as text for a file name."""
    graph: str
    """SHA-256 of the planes-to-planes ONNX, including network, colour, scale and rewrites."""
    sizes: str
    batch: int
    runtime: str
    version: str
    """Version of the runtime; no other version loads the engine."""
    targets: tuple[str, ...]
    """Compute capabilities that the engine runs on."""
    gpu: str = ""
    """Name of the GPU it was tuned on; empty if built without one, for all GPUs of the targets."""

    @property
    def file(self) -> str:
        """File name, short enough for every file system."""
        where = "+".join(self.targets) + (f"-{_slug(self.gpu)}" if self.gpu else "")
        batch = f"-batch{self.batch}" if self.batch > 1 else ""
        label = _slug(self.label).encode()[-_MAX_LABEL_BYTES:].decode(errors="ignore").lstrip("-.")
        return f"{label}-{self.sizes}{batch}-{self.runtime}-{where}{SUFFIX}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One engine in the cache."""

    path: Path
    key: EngineKey
    plan_sha256: str
    plan_bytes: int
    facts: dict[str, Any]
    """Facts recorded by the builder, such as the rewrites and the build time in seconds."""


class DamagedError(Exception):
    """A file in the cache is damaged or not an engine; the message says why."""


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-._" else "-" for c in text).strip("-.").lower()


def default_folder() -> Path:
    """Return the user's cache folder for engines; on Linux it follows XDG_CACHE_HOME."""
    return user_cache_path("vsr", appauthor=False) / "engines"


class EngineCache:
    """A folder of engines. Safe to use from several threads and processes."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def entries(self) -> Iterator[Entry]:
        """Yield every intact engine, by name; log a warning for a damaged one."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                yield read_entry(path)
            except DamagedError as exc:
                log.warning("%s %s: it will be rebuilt when needed", path, exc)

    def load(self, entry: Entry) -> bytes:
        """Read and verify the plan of an entry. Raises DamagedError."""
        try:
            data = entry.path.read_bytes()
        except OSError as exc:
            raise DamagedError(f"cannot be read ({reason(exc)})") from exc
        plan = data[data.find(b"\n") + 1 :]
        if len(plan) != entry.plan_bytes:
            raise DamagedError(f"is truncated ({len(plan)} of {entry.plan_bytes} bytes)")
        if hashlib.sha256(plan).hexdigest() != entry.plan_sha256:
            raise DamagedError("is damaged (its SHA-256 differs)")
        return plan

    def find(self, key: EngineKey) -> bytes | None:
        """Return the plan with exactly this key, or None; log why a file of that name misfits."""
        try:
            return self._load_exact(key)
        except DamagedError as exc:
            log.warning("the cached engine %s %s: rebuilding it", key.file, exc)
            return None

    def _load_exact(self, key: EngineKey) -> bytes | None:
        path = self.folder / key.file
        if not path.exists():
            return None
        entry = read_entry(path)
        if entry.key != key:
            raise DamagedError(f"does not fit ({_difference(entry.key, key)})")
        return self.load(entry)

    def get(
        self, key: EngineKey, build: Callable[[], tuple[bytes, dict[str, Any]]]
    ) -> tuple[bytes, Path, bool]:
        """Return (plan, its file, whether it was cached); build it under a lock if it was not."""
        path = self.folder / key.file
        try:
            plan = self.find(key)
            if plan is not None:
                return plan, path, True
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # plans contain code
            with _locked(path):
                with suppress(DamagedError):  # `find` logged it
                    plan = self._load_exact(key)  # another process may have built it
                if plan is not None:
                    return plan, path, True
                for part in self.folder.glob(f".{path.name}.*{PART}"):
                    part.unlink(missing_ok=True)  # left by a killed builder
                plan, facts = build()
                self._write(path, key, plan, facts)
        except OSError as exc:
            raise BackendError(
                f"cannot write engines to {self.folder} ({reason(exc)}): free some space or set "
                "XDG_CACHE_HOME to a writable folder"
            ) from exc
        return plan, path, False

    def _write(self, path: Path, key: EngineKey, plan: bytes, facts: dict[str, Any]) -> None:
        head = {
            "key": asdict(key),
            "plan_sha256": hashlib.sha256(plan).hexdigest(),
            "plan_bytes": len(plan),
            "facts": facts,
        }
        with write_atomically(path) as part:
            part.write_bytes(MAGIC + json.dumps(head).encode() + b"\n" + plan)

    def add_fact(self, path: Path, name: str, value: str) -> None:
        """Add a value to a list in an engine's facts, once; a damaged engine is left unchanged."""
        try:
            with _locked(path):
                entry = read_entry(path)
                values = entry.facts.get(name, ())
                if value not in values:
                    facts = {**entry.facts, name: [*values, value]}
                    self._write(path, entry.key, self.load(entry), facts)
        except (DamagedError, OSError) as exc:
            log.debug("%s: %s", path.name, exc)

    def clear(self) -> tuple[int, int]:
        """Remove all files of the cache; return the number of engines and bytes."""
        engines = size = 0
        for path in sorted(self.folder.glob("*")):  # includes hidden files
            if path.is_dir():
                continue
            try:
                found = path.stat()
                path.unlink()
            except FileNotFoundError:  # another process removed it
                continue
            except OSError as exc:
                raise BackendError(f"cannot remove {path}: {reason(exc)}") from exc
            engines += path.suffix == SUFFIX and not path.name.startswith(".")
            size += found.st_size
        return engines, size


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of one engine's file; log a line when another process holds it."""
    from filelock import FileLock, Timeout  # loads in 12 ms, and few runs build engines

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=_LOCK_LOG_DELAY_S)
    except Timeout:
        log.info("waiting for another vsr process that builds %s", path.name)
        lock.acquire()  # polls, so that Ctrl+C works
    try:
        yield
    finally:
        lock.release()


def read_entry(path: Path) -> Entry:
    """Parse the first line of an engine's file. Raises DamagedError."""
    try:
        with path.open("rb") as file:
            line = file.readline(_MAX_HEADER_BYTES)
    except OSError as exc:
        raise DamagedError(f"cannot be read ({reason(exc)})") from exc
    if not line.startswith(MAGIC) or not line.endswith(b"\n"):
        raise DamagedError("is not a vsr engine file")
    try:
        head = json.loads(line[len(MAGIC) :])
        key = EngineKey(**{**head["key"], "targets": tuple(head["key"]["targets"])})
        texts = (key.label, key.graph, key.sizes, key.runtime, key.version, key.gpu, *key.targets)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("expected strings")
        return Entry(
            path=path, key=key, plan_sha256=str(head["plan_sha256"]),
            plan_bytes=int(head["plan_bytes"]), facts=dict(head["facts"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        raise DamagedError("is damaged (its first line cannot be read)") from exc


def _difference(found: EngineKey, key: EngineKey) -> str:
    """Describe the first field in which the keys differ."""
    for name, template in (
        ("label", "it is an engine of {0}"),
        ("runtime", "it was built by {0}"),
        ("version", "it was built by version {0}, this is version {1}"),
        ("gpu", "it was built on {0}, this is {1}"),
        ("graph", "it was built from another network or by another version of vsr"),
    ):
        ours, theirs = getattr(key, name), getattr(found, name)
        if ours != theirs:
            return template.format(theirs, ours)
    return "it was built with other options"
