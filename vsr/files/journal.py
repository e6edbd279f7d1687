"""Saves the finished segments of a run, so that the same command resumes it after any interruption.

The folder `.<output>.vsr`, next to the output, contains one video file per segment and
`journal.jsonl`: a line of facts about input and settings, then a line per segment. A line is
written after its file is on the disk.
"""

import hashlib
import json
import logging
import os
import shutil
from bisect import insort
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vsr.errors import OutputError, UsageError, reason
from vsr.files.fingerprint import change_message
from vsr.files.journal_lines import (
    JOURNAL,
    LOCK,
    SCHEMA,
    THREADS,
    Segment,
    folder_of,
    lines_of,
    size_and_time,
    until_first_gap,
)

log = logging.getLogger(__name__)


class Journal:
    """The segments of one output. Locked by one process; call `close` or `remove` at the end."""

    def __init__(
        self,
        output: Path,
        facts: Mapping[str, Any],
        restart: bool = False,
        threads: int | None = None,
        gaps: bool = False,
    ) -> None:
        """Open or create the journal of a run with these facts; `restart` discards an existing one.

        `threads`: encoder threads, for a new journal. `gaps`: whether to keep segments after a
        missing one. Raises UsageError if the existing segments have other facts or another process
        uses the journal, OutputError if the folder cannot be written.
        """
        self.folder = folder_of(output)
        self.segments: list[Segment] = []
        """Finished segments, in order."""
        self.threads = threads
        """Encoder threads, which affect the encoder's output: fixed when the journal is created."""
        self._output = output
        self._facts = json.loads(json.dumps(facts, default=str))
        from filelock import FileLock  # takes 12 ms to load, and short runs have no journal

        self._lock = FileLock(self.folder / LOCK)
        try:
            self.folder.mkdir(exist_ok=True)
            self._acquire()
            try:
                self._load(restart, gaps)
            except BaseException:
                if not (self.folder / JOURNAL).exists():
                    self.remove()
                self._lock.release()  # keep the work of another run
                raise
        except OSError as exc:
            raise self.error(exc) from exc

    @property
    def frames(self) -> int:
        """Number of finished frames."""
        return sum(segment.frames for segment in self.segments)

    @property
    def concealed(self) -> int:
        """Number of damaged frames that the decoder partly reconstructed."""
        return sum(segment.concealed for segment in self.segments)

    @property
    def lost(self) -> int:
        """Number of the input's frames lost in the finished segments."""
        return sum(segment.lost for segment in self.segments)

    @property
    def before_first_gap(self) -> list[Segment]:
        """Segments before the first missing one."""
        return until_first_gap(self.segments)

    def new_file(self, number: int, attempt: str = "") -> Path:
        """Return the path for a new segment; concurrent attempts have different paths."""
        return self.folder / f"{number:06d}{attempt}.nut"

    def path(self, segment: Segment) -> Path:
        """Return the path of a segment's file."""
        return self.folder / segment.file

    def add(self, segment: Segment) -> None:
        """Record a segment whose file is complete. Raises OutputError."""
        try:
            _sync(self.path(segment))
            _sync(self.folder)
            self._append(asdict(segment))
        except OSError as exc:
            raise self.error(exc) from exc
        insort(self.segments, segment, key=lambda each: each.number)

    def mark_interrupted(self) -> None:
        """Record that the output is incomplete and may be replaced by the same run; close."""
        try:
            self._append({"interrupted": size_and_time(self._output.stat())})
        except OSError as exc:
            raise self.error(exc) from exc
        self.close()

    def remove(self) -> None:
        """Delete the folder, which a complete output does not need."""
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Release the folder for other processes; delete it if there are no segments."""
        if not self.segments and self._lock.is_locked:
            self.remove()
        self._lock.release()

    def close_after_run(self, failed: bool) -> None:
        """Close the journal after a run; if the run failed, log how many frames are kept."""
        if failed and self.segments:
            log.warning("%d finished frames are saved: run the same command to resume", self.frames)
        self.close()

    def error(self, exc: OSError) -> OutputError:
        """Return the error for a folder that cannot be written."""
        return OutputError(f"cannot save finished segments in {self.folder}: {reason(exc)}")

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except TimeoutError as exc:  # base class of filelock.Timeout
            raise UsageError(f"another process is writing {self._output}") from exc

    def _load(self, restart: bool, gaps: bool) -> None:
        path = self.folder / JOURNAL
        lines = [] if restart or not path.exists() else lines_of(path)
        if not any("file" in line for line in lines):  # nothing to resume
            lines = []
        if lines and (differs := self._difference(lines[0])):
            raise UsageError(
                f"{self.folder} contains segments of a run that differs: {differs}; use the same "
                "input and settings to resume, or --restart to discard the segments"
            )
        if lines:
            self.threads = lines[0].get(THREADS)
        for line in lines[1:]:
            if "file" in line:
                segment = Segment(**line)
                if self._is_intact(segment):
                    insort(self.segments, segment, key=lambda each: each.number)
                else:
                    log.warning("%s is damaged: encoding it again", self.path(segment))
        if not gaps:
            self.segments = until_first_gap(self.segments)
        self._rewrite()

    def _difference(self, then: Mapping[str, Any]) -> str | None:
        """Return a message on the first fact that has changed; None if there is none."""
        now = {"schema": SCHEMA, **self._facts}
        for name in [*now, *then]:
            if name != THREADS and now.get(name) != then.get(name):
                if name == "input":
                    return "the input has changed"
                return change_message(name, then.get(name), now.get(name))
        return None

    def _is_intact(self, segment: Segment) -> bool:
        path = self.path(segment)
        if not path.exists() or path.stat().st_size != segment.bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == segment.sha256

    def _rewrite(self) -> None:
        """Write a new journal of the intact segments, and delete all other files."""
        path, beside = self.folder / JOURNAL, self.folder / f"{JOURNAL}.part"
        head = {"schema": SCHEMA, **self._facts, THREADS: self.threads}
        lines = [head, *map(asdict, self.segments)]
        beside.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
        _sync(beside)
        beside.replace(path)
        kept = {JOURNAL, LOCK, *(segment.file for segment in self.segments)}
        for file in self.folder.iterdir():
            if file.name not in kept:
                file.unlink()
        _sync(self.folder)

    def _append(self, line: Mapping[str, Any]) -> None:
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")
            file.flush()
            os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    with suppress(PermissionError):  # Windows cannot open folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
