"""Run `vsr run` over thousands of damaged files, and report crashes, hangs and other faults.

`python -m bench.fuzz --count 10000 --seed 1 [--log FILE] [--keep FOLDER]`, from the repository's
root. The files are those of `tests/fuzz/corpus.py`, damaged by `tests/fuzz/mutate.py`. A
separate process runs them one after the other; a finding is

- crash: the process died;
- hang: no result within 20 s of CPU time, or 120 s of wall time;
- traceback: an error that is not one of `vsr.errors`;
- left: an output file, finished or not, after an error;
- unreadable: an output that was reported as finished but cannot be decoded;
- memory: more than 1 GiB in use; the limit for pictures is half of that.

With `--log`, a later call resumes where an earlier one ended. The exit code is 1 with findings.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.output import print_line
from bench.watchdog import EXPECTED_ENDS, Campaign, Job, Outcome, run_all
from tests.fuzz.corpus import make_corpus
from vsr.errors import EXIT_DONE, VsrError
from vsr.files.settings import RunSettings
from vsr.files.upscale import upscale
from vsr.media.encoder import EncoderSettings
from vsr.media.pictures.names import FORMATS

PICTURE_MEMORY: Final = 2**29
"""Memory limit for a run's pictures, in bytes; inputs that need more are refused."""
_FAST_ENCODER: Final = EncoderSettings(preset="ultrafast", options={"threads": "1"})


def outcome_of(campaign: Campaign, index: int) -> Outcome:
    """Run one damaged file, in this process."""
    began = time.monotonic()
    source = campaign.write(index, campaign.folder)
    output = campaign.output(index)
    encoder = EncoderSettings() if output.suffix in FORMATS else _FAST_ENCODER
    settings = RunSettings(model="bicubic", encoder=encoder, memory=PICTURE_MEMORY)
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
    """Return why a finished output cannot be decoded; empty if it can."""
    import av

    try:
        with av.open(str(path)) as container:
            if not any(True for _ in container.decode(video=0)):
                return "it contains no picture"
    except (av.error.FFmpegError, OSError) as exc:
        return str(exc)
    return ""


@contextlib.contextmanager
def prepare_campaign(seed: int, ending: str = ".mkv") -> Iterator[Campaign]:
    """Yield a campaign with its corpus, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="vsr-fuzz-") as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        (folder / "work").mkdir()
        corpus = tuple(make_corpus(folder / "corpus"))
        yield Campaign(seed=seed, corpus=corpus, folder=folder / "work", ending=ending)


def _logged_outcomes(log: Path | None) -> dict[int, Outcome]:
    """Return the outcomes of earlier calls, by number."""
    if log is None or not log.exists():
        return {}
    found = [Outcome(**json.loads(line)) for line in log.read_text().splitlines()]
    return {outcome.index: outcome for outcome in found}


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=200, help="number of files")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ending", default=".mkv", help="suffix of the outputs")
    parser.add_argument(
        "--log", type=Path, help="file for a line of JSON per input; resumes from it"
    )
    parser.add_argument("--keep", type=Path, help="folder for copies of the files with findings")
    return parser


def main(words: list[str] | None = None) -> int:
    """Run a campaign over damaged files; return the exit code."""

    def open_campaign(given: argparse.Namespace) -> contextlib.AbstractContextManager[Campaign]:
        return prepare_campaign(given.seed, given.ending)

    return run_campaign(__doc__, outcome_of, open_campaign, words)


def run_campaign(
    description: str | None,
    job: Job,
    open_campaign: Callable[[argparse.Namespace], contextlib.AbstractContextManager[Campaign]],
    words: list[str] | None = None,
) -> int:
    """Run a campaign with the command line's options; return the exit code."""
    given = _parser(description).parse_args(words)
    before = _logged_outcomes(given.log)
    numbers = range(given.first, given.first + given.count)
    ends = Counter(before[index].end for index in numbers if index in before)
    began = time.monotonic()
    with open_campaign(given) as campaign:
        for outcome in run_all(campaign, (n for n in numbers if n not in before), job):
            ends[outcome.end] += 1
            if given.log:
                with given.log.open("a") as log:
                    log.write(json.dumps(asdict(outcome)) + "\n")
            if outcome.is_finding:
                print_line(f"{outcome.index} ({outcome.name}): {outcome.end} {outcome.words}")
                if given.keep:
                    given.keep.mkdir(parents=True, exist_ok=True)
                    campaign.write(outcome.index, given.keep)
    findings = sum(count for end, count in ends.items() if end not in EXPECTED_ENDS)
    table = ", ".join(f"{end} {count}" for end, count in sorted(ends.items()))
    print_line(f"seed {given.seed}: {sum(ends.values())} files, {findings} findings ({table})")
    print_line(f"run time: {time.monotonic() - began:.0f} s")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
