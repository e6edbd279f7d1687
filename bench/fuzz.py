"""Run `vsr run` over thousands of damaged files, and tell where it does not end as it should.

`python -m bench.fuzz --count 10000 --seed 1 [--log FILE] [--keep FOLDER]`, from the repository's
root. The files are those of `tests/fuzz/corpus.py`, damaged by `tests/fuzz/mutate.py`. A process
of its own runs them one after the other; a finding is

- crash: the process died;
- hang: nothing came back within 20 s;
- traceback: an error that is not one of `vsr.errors`;
- left: a file under the output's name, or an unfinished one, after an error;
- unreadable: an output that was called finished and that cannot be decoded;
- memory: more than 1 GiB in use, where the pictures may take half of that.

With `--log`, a later call goes on where an earlier one ended. The exit code is 1 with findings.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tests.fuzz.corpus import make_corpus
from tests.fuzz.mutate import mutated
from vsr.cli.terminal import start_logging
from vsr.errors import EXIT_DONE, VsrError
from vsr.files.settings import RunSettings
from vsr.files.upscale import upscale
from vsr.media.encoder import EncoderSettings
from vsr.media.pictures.names import FORMATS

PATIENCE: Final = 20.0
"""Seconds for one file."""
MEMORY: Final = 2**30
"""Bytes of the whole process."""
FOR_PICTURES: Final = 2**29
"""Bytes of it that a run's pictures may take: more is refused."""
BATCH: Final = 400
"""Files that one process runs, so that its memory is not that of thousands."""
POLL: Final = 0.1
_QUICK: Final = EncoderSettings(preset="ultrafast", options={"threads": "1"})
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


def outcome_of(campaign: Campaign, index: int) -> Outcome:
    """Run one damaged file, in this process."""
    began = time.monotonic()
    source = campaign.write(index, campaign.folder)
    output = campaign.output(index)
    encoder = EncoderSettings() if output.suffix in FORMATS else _QUICK
    settings = RunSettings(model="bicubic", encoder=encoder, memory=FOR_PICTURES)
    try:
        report = upscale(source, output, settings)
        end = "done" if report.exit_code == EXIT_DONE else "degraded"
        words = _unreadable(output)
        end = "unreadable" if words else end
        output.unlink(missing_ok=True)
    except VsrError as exc:
        end, words = "refused", str(exc)
    except BaseException:
        end, words = "traceback", traceback.format_exc()
    source.unlink()
    left = [path.name for path in campaign.folder.iterdir()]
    if left:
        end, words = "left", f"{left} after {end}: {words}"
        for name in left:
            (campaign.folder / name).unlink()
    return Outcome(
        index=index, name=campaign.origin(index).name, end=end, words=words,
        seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip


def _unreadable(path: Path) -> str:
    """Why a finished output cannot be decoded; empty where it can."""
    import av

    try:
        with av.open(str(path)) as container:
            if not any(True for _ in container.decode(video=0)):
                return "no picture in it"
    except (av.error.FFmpegError, OSError) as exc:
        return str(exc)
    return ""


Job = Callable[[Campaign, int], Outcome]


def _work(job: Job, campaign: Campaign, pipe: Connection) -> None:
    """Run the numbers that come through a pipe, and answer with their outcomes."""
    os.environ["SVT_LOG"] = "1"
    start_logging(quiet=True)  # as the command does
    with contextlib.suppress(EOFError):  # who asks has ended
        while True:
            pipe.send(job(campaign, pipe.recv()))


class Watchdog:
    """A process that runs files, and who looks after it."""

    def __init__(
        self, campaign: Campaign, job: Job = outcome_of, patience: float = PATIENCE
    ) -> None:
        self._campaign, self._patience = campaign, patience
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(job, campaign, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, index: int) -> Outcome:
        """Run a file; after a crash, a hang or too much memory the process is gone."""
        began = time.monotonic()
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
            if used > MEMORY:
                end, words = "memory", f"{used / 2**20:.0f} MiB"
            elif time.monotonic() - began > self._patience:
                end = "hang"
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


def run_all(campaign: Campaign, numbers: Iterable[int]) -> Iterator[Outcome]:
    """Run files under watchdogs, one after the other."""
    watchdog: Watchdog | None = None
    try:
        for done, index in enumerate(numbers):
            if watchdog is not None and (done % BATCH == 0 or not watchdog.alive):
                with contextlib.suppress(OSError):
                    watchdog.close()
                watchdog = None
            watchdog = watchdog or Watchdog(campaign)
            yield watchdog.run(index)
    finally:
        if watchdog is not None and watchdog.alive:
            watchdog.close()


@contextlib.contextmanager
def prepared(seed: int, ending: str = ".mkv") -> Iterator[Campaign]:
    """A campaign with its corpus, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="vsr-fuzz-") as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        (folder / "work").mkdir()
        corpus = tuple(make_corpus(folder / "corpus"))
        yield Campaign(seed=seed, corpus=corpus, folder=folder / "work", ending=ending)


def _already(log: Path | None) -> dict[int, Outcome]:
    """Outcomes of earlier calls, by number."""
    if log is None or not log.exists():
        return {}
    found = [Outcome(**json.loads(line)) for line in log.read_text().splitlines()]
    return {outcome.index: outcome for outcome in found}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="files")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ending", default=".mkv", help="of the outputs' names")
    parser.add_argument("--log", type=Path, help="a line of JSON for each file")
    parser.add_argument("--keep", type=Path, help="folder for the files with findings")
    return parser


def main(words: list[str] | None = None) -> int:
    """See the module."""
    given = _parser().parse_args(words)
    before = _already(given.log)
    numbers = range(given.first, given.first + given.count)
    ends = Counter(before[index].end for index in numbers if index in before)
    began = time.monotonic()
    with prepared(given.seed, given.ending) as campaign:
        for outcome in run_all(campaign, (n for n in numbers if n not in before)):
            ends[outcome.end] += 1
            if given.log:
                with given.log.open("a") as log:
                    log.write(json.dumps(asdict(outcome)) + "\n")
            if outcome.is_finding:
                say(f"{outcome.index} ({outcome.name}): {outcome.end} {outcome.words}")
                if given.keep:
                    given.keep.mkdir(parents=True, exist_ok=True)
                    campaign.write(outcome.index, given.keep)
    findings = sum(count for end, count in ends.items() if end not in FINE)
    table = ", ".join(f"{end} {count}" for end, count in sorted(ends.items()))
    say(f"seed {given.seed}: {sum(ends.values())} files, {findings} findings ({table})")
    say(f"{time.monotonic() - began:.0f} s in this call")
    return 1 if findings else 0


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
