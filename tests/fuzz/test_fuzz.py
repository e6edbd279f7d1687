"""Tests that damaged files yield a video or a one-line error; the watchdog finds all else."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest

from bench.fuzz import main, outcome_of, prepare_campaign
from bench.watchdog import Campaign, Outcome, Watchdog, run_all
from tests.fuzz.corpus import CORPUS
from tests.fuzz.mutate import MUTATIONS, mutated

ROOT = Path(__file__).parents[2]
SEED = 1


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    with prepare_campaign(SEED) as made:
        yield made


def test_the_corpus_is_whole(campaign: Campaign) -> None:
    """All files can be decoded before mutation: at least 20 containers and 20 codecs."""
    containers, codecs = set(), set()
    for path in campaign.corpus:
        with av.open(str(path)) as file:
            assert any(True for _ in file.decode(video=0)), path.name
            containers.add(file.format.name)
            codecs |= {s.codec_context.name for s in file.streams if s.codec_context}
    assert len(campaign.corpus) == len(CORPUS)
    assert len(containers) >= 20
    assert len(codecs) >= 20


def test_damaged_files(campaign: Campaign) -> None:
    """Three mutations of every file of the corpus, or twelve with VSR_ALL_FUZZ=1."""
    each = 12 if os.environ.get("VSR_ALL_FUZZ") == "1" else 3
    outcomes = list(run_all(campaign, range(each * len(CORPUS)), outcome_of))
    assert [outcome for outcome in outcomes if outcome.is_finding] == []
    ends = {outcome.end for outcome in outcomes}
    assert ends == {"done", "degraded", "refused"}  # some files are still readable


def test_mutations_follow_from_seed_and_number(campaign: Campaign) -> None:
    data = campaign.corpus[0].read_bytes()
    made = [mutated(data, SEED, index) for index in range(50)]
    assert made == [mutated(data, SEED, index) for index in range(50)]
    assert len(set(made)) > 45
    assert made[0] != mutated(data, SEED + 1, 0)
    for size in (0, 1, 2, 7):
        for index in range(20 * len(MUTATIONS)):
            mutated(data[:size], SEED, index)  # no mutation needs more bytes


def _dies(_: Campaign, __: int) -> Outcome:
    return Outcome(index=ctypes.string_at(0)[0], name="", end="done")


def _sleeps(_: Campaign, __: int) -> Outcome:
    time.sleep(60)
    raise AssertionError


def _computes(_: Campaign, __: int) -> Outcome:
    while True:
        pass


def _takes_memory(_: Campaign, __: int) -> Outcome:
    taken = b"x" * (2**30 + 2**20)
    time.sleep(60)
    return Outcome(index=len(taken), name="", end="done")


@pytest.mark.parametrize(
    ("job", "end", "words"),
    [
        (_dies, "crash", "exit code -11"), (_sleeps, "hang", "no result within"),
        (_computes, "hang", "s of CPU time"), (_takes_memory, "memory", "MiB"),
    ],
)  # fmt: skip
def test_the_watchdog_sees(campaign: Campaign, job: object, end: str, words: str) -> None:
    watchdog = Watchdog(campaign, job, cpu_limit_s=4, wall_limit_s=8)  # type: ignore[arg-type]
    outcome = watchdog.run(0)
    assert (outcome.end, outcome.is_finding) == (end, True)
    assert words in outcome.words
    assert not watchdog.alive


def test_a_call_goes_on_where_another_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    words = ["--log", str(log), "--seed", "7", "--keep", str(tmp_path / "keep")]
    assert main([*words, "--count", "3"]) == 0
    assert main([*words, "--count", "5"]) == 0
    assert len(log.read_text().splitlines()) == 5
    assert "seed 7: 5 files, 0 findings" in capsys.readouterr().out
    assert not (tmp_path / "keep").exists()


def test_a_decoder_ends_while_its_threads_find_damage(campaign: Campaign, tmp_path: Path) -> None:
    """A decoder thread and the thread that closed it deadlocked: found with seed 8."""
    damaged = replace(campaign, seed=8).write(260, tmp_path)
    code = """
import sys
from vsr.errors import VsrError
from vsr.media.source import Source
for _ in range(20):
    try:
        Source(sys.argv[1]).close()
    except VsrError:
        pass
"""
    words = [sys.executable, "-c", code, str(damaged)]
    subprocess.run(words, cwd=ROOT, check=True, timeout=120, stderr=subprocess.DEVNULL)
