"""Runs jobs of a fuzzing campaign in a process that may crash, hang or take too much memory."""

import contextlib
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tests.fuzz.mutate import mutated
from vsr.cli.terminal import start_logging
from vsr.media.pictures.names import FORMATS

CPU_LIMIT_S: Final = 20.0
"""CPU time limit of one file, in seconds; unlike wall time, it does not depend on the load."""
WALL_LIMIT_S: Final = 120.0
"""Wall time limit of one file, in seconds, for a process that hangs without computing."""
MEMORY_LIMIT: Final = 2**30
"""Memory limit of the process, in bytes."""
FILES_PER_PROCESS: Final = 400
"""Number of files that one process runs, so that memory does not add up over thousands."""
POLL_S: Final = 0.1
EXPECTED_ENDS: Final = ("done", "degraded", "refused")
"""Ends that are not findings: with all frames, with some, or with a one-line error."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one file."""

    index: int
    name: str
    """Name of the corpus file from which it was made."""
    end: str
    words: str = ""
    seconds: float = 0.0

    @property
    def is_finding(self) -> bool:
        """Whether the end is a fault of `vsr`."""
        return self.end not in EXPECTED_ENDS


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """The damaged files to run, and the folder for them."""

    seed: int
    corpus: tuple[Path, ...]
    folder: Path
    """Folder for the current input and output."""
    ending: str = ".mkv"
    """Suffix of the outputs' names."""

    def origin(self, index: int) -> Path:
        """Return the corpus file from which file number `index` is made."""
        return self.corpus[index % len(self.corpus)]

    def output(self, index: int) -> Path:
        """Return the output's path; for picture files, every other round writes a picture."""
        kind = self.origin(index).suffix
        into_picture = kind in FORMATS and (index // len(self.corpus)) % 2
        return self.folder / f"out{kind if into_picture else self.ending}"

    def write(self, index: int, folder: Path) -> Path:
        """Write the damaged file number `index` into a folder."""
        origin = self.origin(index)
        path = folder / f"{index}{origin.suffix}"
        path.write_bytes(mutated(origin.read_bytes(), self.seed, index))
        return path


Job = Callable[[Campaign, int], Outcome]


def _work(job: Job, campaign: Campaign, pipe: Connection) -> None:
    """Run the numbers received from a pipe, and send back their outcomes."""
    os.environ["SVT_LOG"] = "1"
    start_logging(quiet=True)  # as the command does
    pipe.send(None)
    with contextlib.suppress(EOFError):  # the parent has ended
        while True:
            pipe.send(job(campaign, pipe.recv()))


class Watchdog:
    """Runs files in a child process, and watches its time and memory."""

    def __init__(
        self, campaign: Campaign, job: Job,
        cpu_limit_s: float = CPU_LIMIT_S, wall_limit_s: float = WALL_LIMIT_S,
    ) -> None:  # fmt: skip
        self._campaign, self._cpu_limit_s, self._wall_limit_s = campaign, cpu_limit_s, wall_limit_s
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(job, campaign, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # wait until it is ready, so that its start is not timed

    def run(self, index: int) -> Outcome:
        """Run a file; after a crash, a hang or too much memory, the process is ended."""
        began, used_before = time.monotonic(), _cpu_seconds(self._process.pid)
        self._pipe.send(index)
        end, words = "", ""
        while not end:
            try:
                if self._pipe.poll(POLL_S):
                    outcome: Outcome = self._pipe.recv()
                    return outcome
            except (EOFError, ConnectionError):
                self._process.join()
                end, words = "crash", f"exit code {self._process.exitcode}"
                continue
            used = _resident_bytes(self._process.pid)
            computed = _cpu_seconds(self._process.pid) - used_before
            if used > MEMORY_LIMIT:
                end, words = "memory", f"{used / 2**20:.0f} MiB"
            elif computed > self._cpu_limit_s:
                end, words = "hang", f"{computed:.0f} s of CPU time"
            elif time.monotonic() - began > self._wall_limit_s:
                limit = f"{self._wall_limit_s:.0f} s"
                end, words = "hang", f"no result within {limit}, {computed:.1f} s of CPU time"
        self.close()
        return Outcome(
            index=index, name=self._campaign.origin(index).name, end=end, words=words,
            seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether the process can run another file."""
        return self._process.is_alive()

    def close(self) -> None:
        """Kill the process and clear the folder."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
        shutil.rmtree(self._campaign.folder)
        self._campaign.folder.mkdir()


def _resident_bytes(pid: int | None) -> int:
    """Return the resident memory of a process, in bytes; 0 if it is unknown."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu_seconds(pid: int | None) -> float:
    """Return the CPU time of all threads of a process, in seconds; 0 if it is unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_all(campaign: Campaign, numbers: Iterable[int], job: Job) -> Iterator[Outcome]:
    """Run files one after the other, each in a watchdog's process."""
    watchdog: Watchdog | None = None
    try:
        for done, index in enumerate(numbers):
            if watchdog is not None and (done % FILES_PER_PROCESS == 0 or not watchdog.alive):
                with contextlib.suppress(OSError):
                    watchdog.close()
                watchdog = None
            watchdog = watchdog or Watchdog(campaign, job)
            yield watchdog.run(index)
    finally:
        if watchdog is not None and watchdog.alive:
            watchdog.close()
