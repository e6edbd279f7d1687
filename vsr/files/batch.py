"""Upscales many files into a folder, one after the other, and continues after a failed one."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import chain, count
from pathlib import Path
from typing import Final

from vsr.errors import InputError, UsageError, reason
from vsr.files.job import Job
from vsr.files.model_choice import default_model
from vsr.files.outcome import Outcome, exit_code_of, failed, is_complete, outcome_of, table_of
from vsr.files.progress import Progress
from vsr.files.settings import RunSettings
from vsr.files.workers import devices_of
from vsr.inference import models
from vsr.inference.backend import load_backend
from vsr.media.pictures.names import find_pictures, has_videos, is_folder, is_picture
from vsr.media.target import CONTAINERS

log = logging.getLogger(__name__)

_POLL_S: Final = 2.0
"""Poll interval of a watched folder, in seconds; a file unchanged since the last poll is complete.
"""
_FALLBACK_EXTENSION: Final = ".mkv"
"""Extension of outputs whose input has a container that vsr does not write."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Options that select which files of the input folders are processed."""

    recursive: bool = False
    """Include files of subfolders; the output folder gets the same subfolders."""
    pattern: str | None = None
    """Pattern of file names, such as `*.mkv`; None: every file."""
    skip_existing: bool = False
    """Skip files whose output exists and is complete."""
    watch: bool = False
    """Also process files that are added later, once complete, until the run is stopped."""


def is_batch(inputs: Sequence[str], selection: Selection, output: str = "") -> bool:
    """Return whether inputs are processed file by file, unlike one video or folder of pictures.

    `output` may be a video in the folder.
    """
    if len(inputs) > 1 or selection != Selection():
        return True
    return is_folder(Path(inputs[0])) and find_pictures(inputs[0], output) is None


@dataclass
class Batch:
    """Upscales many files into one folder. Call `run` once."""

    inputs: Sequence[Path]
    """Files and folders."""
    folder: Path
    settings: RunSettings
    selection: Selection = field(default_factory=Selection)
    on_progress: Callable[[Progress], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    outcomes: list[Outcome] = field(default_factory=list)
    current: Path | None = None
    """Output of the file that was started last."""
    _targets: dict[Path, Path] = field(default_factory=dict)
    """Output of each file found so far; it does not change while a folder is watched."""
    _left_out: set[Path] = field(default_factory=set)
    """Pictures among videos found so far."""
    _inputs: set[Path] = field(default_factory=set)
    """Paths of the files found so far, with symbolic links resolved."""

    def run(self) -> list[Outcome]:
        """Upscale all files. Raises VsrError, before the first, for errors common to all files.

        These are wrong settings, a missing backend, or a folder that cannot be read.
        """
        if self.settings.report is not None or self.settings.receipt is not None:
            raise UsageError(
                "--report and --receipt require a single input: process that file separately"
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(
                "several inputs or a folder of videos require a folder as OUTPUT, but "
                f"{self.folder} is a file (frame_%05d.png names the pictures among videos)"
            )
        if self.folder.exists() and any(
            is_folder(given) and given.samefile(self.folder) for given in self.inputs
        ):
            raise UsageError(
                f"the input folder {self.folder} cannot be OUTPUT too: name another folder"
            )
        self._check_model()
        try:
            for source, target in self._pairs():
                if self.stop.is_set():
                    break
                log.info("%s -> %s", source, target)
                self.current = target
                self.outcomes.append(self._process(source, target))
        finally:
            with suppress(OSError):  # not empty, or not created
                self.folder.rmdir()
        if not (self.outcomes or self.stop.is_set()):
            matching = f" that matches {self.selection.pattern}" if self.selection.pattern else ""
            raise InputError(f"no file to upscale in {', '.join(map(str, self.inputs))}{matching}")
        return self.outcomes

    def _check_model(self) -> None:
        """Raise the error that every file would cause; the nodes of a cluster check themselves."""
        settings = self.settings
        if settings.cluster is None:
            backend = load_backend(settings.backend, devices_of(settings.device)[0])
            models.find(default_model(settings), settings.scale, backend, settings.precision)

    def exit_code(self) -> int:
        """Return the exit code of `vsr run`: 3 if a file failed or lost something."""
        return exit_code_of(self.outcomes, self.stop.is_set() and not self.selection.watch)

    def table(self) -> str:
        """Return a table, one line per file: result, frames, frames per second, name, message."""
        return table_of(self.outcomes)

    def _process(self, source: Path, target: Path) -> Outcome:
        if (place := target.resolve()) in self._inputs and place != source.resolve():
            return failed(
                source,
                target,
                f"the output {target} is one of the other inputs: name another folder",
            )
        if self.selection.skip_existing and is_complete(target):
            return Outcome(source=source, target=target, result="skipped")
        job = Job(str(source), target, self.settings, self.on_progress, self.stop)
        return outcome_of(job, source, target)

    def _pairs(self) -> Iterator[tuple[Path, Path]]:
        """Yield each file and its output once; in a watched folder, once the file is complete."""
        taken: set[Path] = set()
        seen: dict[Path, tuple[int, int]] = {}
        first = True
        while first or (self.selection.watch and not self.stop.wait(_POLL_S)):
            for source, target in self._found():
                state = _size_and_time(source) if self.selection.watch else (0, 0)
                whole = not self.selection.watch or seen.get(source) == state
                seen[source] = state
                if whole and source not in taken:
                    taken.add(source)
                    yield source, target
            first = False

    def _found(self) -> list[tuple[Path, Path]]:
        sources = list(self._sources())
        kept = {name for _, name in sources if _can_keep_name(name)}
        used = set(self._targets.values())
        for source, name in sources:
            if source in self._targets:
                continue
            target = name if _can_keep_name(name) else name.with_suffix(_FALLBACK_EXTENSION)
            if target is not name and target in kept:  # a.avi and a.mkv exist
                target = name.with_name(f"{name.name}{_FALLBACK_EXTENSION}")
            self._inputs.add(source.resolve())
            self._targets[source] = target = _unused_name(target, used)
            used.add(target)
        return [(source, self.folder / self._targets[source]) for source, _ in sources]

    def _sources(self) -> Iterator[tuple[Path, Path]]:
        """Yield (file, name in the output folder) of all selected files, sorted in each folder."""
        for given in self.inputs:
            if not is_folder(given):
                yield given, Path(given.name)
                continue
            try:
                within = sorted(given.rglob("*") if self.selection.recursive else given.iterdir())
            except OSError as exc:
                raise InputError(f"cannot read the folder {given}: {reason(exc)}") from exc
            selected = [path for path in within if self._is_selected(path, given)]
            for path in self._without_pictures(selected, given):
                yield path, path.relative_to(given)

    def _without_pictures(self, files: list[Path], given: Path) -> list[Path]:
        """Leave out the pictures of a folder of videos, such as posters, with a note."""
        if not has_videos(files):
            return files
        pictures = [path for path in files if is_picture(path)]
        if new := [path.name for path in pictures if path not in self._left_out]:
            log.info("%s of %s left out: pictures among videos", ", ".join(new), given)
        self._left_out.update(pictures)
        return [path for path in files if path not in pictures]

    def _is_selected(self, path: Path, given: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(given).parts)
        if hidden or not path.is_file() or self._is_output(path, given):
            return False
        return self.selection.pattern is None or fnmatch(path.name, self.selection.pattern)

    def _is_output(self, path: Path, given: Path) -> bool:
        """Return whether a file is in the output folder, if that is inside the folder `given`."""
        folder = self.folder.resolve()
        return given.resolve() in folder.parents and folder in path.resolve().parents


def _can_keep_name(name: Path) -> bool:
    """Return whether vsr can write the file's format, so that the output keeps its name."""
    return name.suffix[1:].lower() in CONTAINERS or is_picture(name)


def _unused_name(name: Path, used: set[Path]) -> Path:
    """Return the name, or the first of `name-2`, `name-3` ... that is not in `used`."""
    others = (name.with_stem(f"{name.stem}-{k}") for k in count(2))
    return next(each for each in chain([name], others) if each not in used)


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (-1, -1)
    return status.st_size, status.st_mtime_ns
