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

PATIENCE: Final = 20.0
"""Seconds of processor time for one file, which a loaded machine does not make longer."""
STANDSTILL: Final = 120.0
"""Seconds by the clock, after which a process that computes little is stuck as well."""
MEMORY: Final = 2**30
"""Bytes of the whole process."""
BATCH: Final = 400
"""Files that one process runs, so that its memory is not that of thousands."""
POLL: Final = 0.1
FINE: Final = ("done", "degraded", "refused")
"""Ends that are no findings: with all frames, with some, or with an error in one line."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file."""

    index: int
    name: str
    """Of the corpus' file it was made of."""
    end: str
    words: str = ""
    seconds: float = 0.0

    @property
    def is_finding(self) -> bool:
        """Whether `vsr run` did what it must not."""
        return self.end not in FINE


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Which files are run, and where."""

    seed: int
    corpus: tuple[Path, ...]
    folder: Path
    """For the input and output of the moment."""
    ending: str = ".mkv"
    """Of the outputs' names."""

    def origin(self, index: int) -> Path:
        """The corpus' file that a number is made of."""
        return self.corpus[index % len(self.corpus)]

    def output(self, index: int) -> Path:
        """Where the result goes: of pictures every other time into a picture."""
        kind = self.origin(index).suffix
        into_picture = kind in FORMATS and (index // len(self.corpus)) % 2
        return self.folder / f"out{kind if into_picture else self.ending}"

    def write(self, index: int, folder: Path) -> Path:
        """Write the damaged file of that number into a folder."""
        origin = self.origin(index)
        path = folder / f"{index}{origin.suffix}"
        path.write_bytes(mutated(origin.read_bytes(), self.seed, index))
        return path


Job = Callable[[Campaign, int], Outcome]


def _work(job: Job, campaign: Campaign, pipe: Connection) -> None:
    """Run the numbers that come through a pipe, and answer with their outcomes."""
    os.environ["SVT_LOG"] = "1"
    start_logging(quiet=True)  # as the command does
    pipe.send(None)
    with contextlib.suppress(EOFError):  # who asks has ended
        while True:
            pipe.send(job(campaign, pipe.recv()))


class Watchdog:
    """A process that runs files, and who looks after it."""

    def __init__(
        self, campaign: Campaign, job: Job,
        patience: float = PATIENCE, standstill: float = STANDSTILL,
    ) -> None:  # fmt: skip
        self._campaign, self._patience, self._standstill = campaign, patience, standstill
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(job, campaign, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it is ready: what its start takes counts for no file

    def run(self, index: int) -> Outcome:
        """Run a file; after a crash, a hang or too much memory the process is gone."""
        began, used_before = time.monotonic(), _processor_time(self._process.pid)
        self._pipe.send(index)
        end, words = "", ""
        while not end:
            try:
                if self._pipe.poll(POLL):
                    outcome: Outcome = self._pipe.recv()
                    return outcome
            except (EOFError, ConnectionError):
                self._process.join()
                end, words = "crash", f"exit code {self._process.exitcode}"
                continue
            used = _resident(self._process.pid)
            computed = _processor_time(self._process.pid) - used_before
            if used > MEMORY:
                end, words = "memory", f"{used / 2**20:.0f} MiB"
            elif computed > self._patience:
                end, words = "hang", f"{computed:.0f} s of processor time"
            elif time.monotonic() - began > self._standstill:
                end, words = "hang", f"stands still: {computed:.1f} s of processor time"
        self.close()
        return Outcome(
            index=index, name=self._campaign.origin(index).name, end=end, words=words,
            seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether it takes another file."""
        return self._process.is_alive()

    def close(self) -> None:
        """End the process, whatever it does, and clear what it left."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
        shutil.rmtree(self._campaign.folder)
        self._campaign.folder.mkdir()


def _resident(pid: int | None) -> int:
    """Bytes of memory that a process has in use; 0 where that cannot be told."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _processor_time(pid: int | None) -> float:
    """Seconds that all threads of a process have computed; 0 where that cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_all(campaign: Campaign, numbers: Iterable[int], job: Job) -> Iterator[Outcome]:
    """Run files under watchdogs, one after the other."""
    watchdog: Watchdog | None = None
    try:
        for done, index in enumerate(numbers):
            if watchdog is not None and (done % BATCH == 0 or not watchdog.alive):
                with contextlib.suppress(OSError):
                    watchdog.close()
                watchdog = None
            watchdog = watchdog or Watchdog(campaign, job)
            yield watchdog.run(index)
    finally:
        if watchdog is not None and watchdog.alive:
            watchdog.close()
