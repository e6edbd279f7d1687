"""Keeps what a run has done beside its output, so that the same command goes on after any end.

The folder `.<output>.vsr` holds one video file per segment and `journal.jsonl`: a line of facts
about input and settings, then a line per segment. A line is written after its file is on the disk.
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
from vsr.files.fingerprint import change
from vsr.files.journal_lines import (
    JOURNAL,
    LOCK,
    SCHEMA,
    THREADS,
    Segment,
    chain,
    folder_of,
    lines_of,
    state_of,
)

log = logging.getLogger(__name__)


class Journal:
    """The segments of one output. One process at a time; use `close` or `remove` at the end."""

    def __init__(
        self,
        output: Path,
        facts: Mapping[str, Any],
        restart: bool = False,
        threads: int | None = None,
        gaps: bool = False,
    ) -> None:
        """Open or begin a journal for a run of these facts; `restart` forgets what is there.

        `threads`: of the encoder, where the journal is new. `gaps`: whether segments behind one
        that is missing are kept. Raises UsageError where the segments there are another run's or
        another process is at it, OutputError where the folder cannot be written.
        """
        self.folder = folder_of(output)
        self.segments: list[Segment] = []
        """What is done, in order."""
        self.threads = threads
        """Threads of the encoder, with which its output varies: those of the run's beginning."""
        self._output = output
        self._facts = json.loads(json.dumps(facts, default=str))
        from filelock import FileLock  # takes 12 ms to load, and short runs have no journal

        self._lock = FileLock(self.folder / LOCK)
        try:
            self.folder.mkdir(exist_ok=True)
            self._acquire()
            try:
                self._begin(restart, gaps)
            except BaseException:
                if not (self.folder / JOURNAL).exists():
                    self.remove()
                self._lock.release()  # what another run has done stays
                raise
        except OSError as exc:
            raise self.error(exc) from exc

    @property
    def frames(self) -> int:
        """Number of frames that are done."""
        return sum(segment.frames for segment in self.segments)

    @property
    def concealed(self) -> int:
        """Number of frames that the decoder had to make up in part."""
        return sum(segment.concealed for segment in self.segments)

    @property
    def lost(self) -> int:
        """Number of the input's frames that are lost in what is done."""
        return sum(segment.lost for segment in self.segments)

    @property
    def beginning(self) -> list[Segment]:
        """The segments up to the first that is missing."""
        return chain(self.segments)

    def new_file(self, number: int, attempt: str = "") -> Path:
        """Return the path of a segment's file; attempts that run at a time have different ones."""
        return self.folder / f"{number:06d}{attempt}.nut"

    def path(self, segment: Segment) -> Path:
        """Return the path of a segment's file."""
        return self.folder / segment.file

    def add(self, segment: Segment) -> None:
        """Record a segment, whose file is whole. Raises OutputError."""
        try:
            _on_disk(self.path(segment))
            _on_disk(self.folder)
            self._append(asdict(segment))
        except OSError as exc:
            raise self.error(exc) from exc
        insort(self.segments, segment, key=lambda each: each.number)

    def keep_for_later(self) -> None:
        """Record that the output holds what is done so far and may be replaced by the same run."""
        try:
            self._append({"interrupted": state_of(self._output.stat())})
        except OSError as exc:
            raise self.error(exc) from exc
        self.close()

    def remove(self) -> None:
        """Delete the folder: the output is whole."""
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let others have the folder, which is deleted if nothing is done."""
        if not self.segments and self._lock.is_locked:
            self.remove()
        self._lock.release()

    def leave(self, failed: bool) -> None:
        """End using it after a run, and say what is kept if that failed."""
        if failed and self.segments:
            log.warning(
                "%d frames are done and kept: the same command goes on from there", self.frames
            )
        self.close()

    def error(self, exc: OSError) -> OutputError:
        """Make the error for a folder that cannot be written."""
        return OutputError(f"cannot keep what is done in {self.folder}: {reason(exc)}")

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except TimeoutError as exc:  # of filelock, whose Timeout is one
            raise UsageError(f"another process is making {self._output}") from exc

    def _begin(self, restart: bool, gaps: bool) -> None:
        path = self.folder / JOURNAL
        lines = [] if restart or not path.exists() else lines_of(path)
        if lines and (differs := self._difference(lines[0])):
            raise UsageError(
                f"{self.folder} holds what another run has done: {differs}; take the same "
                "settings to go on, or --restart to begin anew"
            )
        if lines:
            self.threads = lines[0].get(THREADS)
        for line in lines[1:]:
            if "file" in line:
                segment = Segment(**line)
                if self._is_whole(segment):
                    insort(self.segments, segment, key=lambda each: each.number)
                else:
                    log.warning("%s is damaged: made anew", self.path(segment))
        if not gaps:
            self.segments = chain(self.segments)
        self._write_anew()

    def _difference(self, then: Mapping[str, Any]) -> str | None:
        """Say in words what is not as it was; None if all is."""
        now = {"schema": SCHEMA, **self._facts}
        for name in [*now, *then]:
            if name != THREADS and now.get(name) != then.get(name):
                if name == "input":
                    return "the input has changed since"
                return change(name, then.get(name), now.get(name))
        return None

    def _is_whole(self, segment: Segment) -> bool:
        path = self.path(segment)
        if not path.exists() or path.stat().st_size != segment.bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == segment.sha256

    def _write_anew(self) -> None:
        """Write the journal of what is whole, and delete everything else."""
        path, beside = self.folder / JOURNAL, self.folder / f"{JOURNAL}.part"
        head = {"schema": SCHEMA, **self._facts, THREADS: self.threads}
        lines = [head, *map(asdict, self.segments)]
        beside.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
        _on_disk(beside)
        beside.replace(path)
        kept = {JOURNAL, LOCK, *(segment.file for segment in self.segments)}
        for file in self.folder.iterdir():
            if file.name not in kept:
                file.unlink()
        _on_disk(self.folder)

    def _append(self, line: Mapping[str, Any]) -> None:
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")
            file.flush()
            os.fsync(file.fileno())


def _on_disk(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    with suppress(PermissionError):  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
