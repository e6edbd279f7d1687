"""Tests of the engine cache: killed and concurrent builders, damaged and foreign files."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest

from vsr.errors import BackendError
from vsr.inference.tensorrt import cache as cache_module
from vsr.inference.tensorrt.cache import MAGIC, DamagedError, EngineCache, EngineKey, read_entry

ROOT = Path(__file__).parents[2]

KEY = EngineKey(
    label="carn-m-x2-fp16-matrix6",
    graph="0" * 64,
    sizes="640x360",
    batch=1,
    runtime="tensorrt",
    version="11.4.0.106",
    targets=("sm86",),
    gpu="NVIDIA GeForce RTX 3080",
)
PLAN = bytes(range(256)) * 40 + b"\n" * 17
OTHER = b"another plan"
Making = Callable[[], tuple[bytes, dict[str, Any]]]


def making(plan: bytes = PLAN, calls: list[bytes] | None = None) -> Making:
    """Return a build function that takes no time and appends its plan to `calls`."""

    def make() -> tuple[bytes, dict[str, Any]]:
        if calls is not None:
            calls.append(plan)
        return plan, {"seconds": 0.1}

    return make


def never() -> tuple[bytes, dict[str, Any]]:
    raise AssertionError("built again")


def filled(tmp_path: Path, key: EngineKey = KEY) -> tuple[EngineCache, Path]:
    """Return a cache with one engine, and the file of that engine."""
    cache = EngineCache(tmp_path / "engines")
    _, path, _ = cache.get(key, making())
    return cache, path


# ---- stored engines


def test_a_fact_is_added_once(tmp_path: Path) -> None:
    cache, path = filled(tmp_path)
    for gpu in ("A", "B", "A", "A"):
        cache.add_fact(path, "slower_on", gpu)
    assert read_entry(path).facts == {"seconds": 0.1, "slower_on": ["A", "B"]}
    assert cache.get(KEY, never)[0] == PLAN


def test_an_engine_is_built_once(tmp_path: Path) -> None:
    cache, path = filled(tmp_path)
    assert cache.get(KEY, never) == (PLAN, path, True)
    assert EngineCache(tmp_path / "engines").get(KEY, never) == (PLAN, path, True)


def test_a_plan_that_is_empty_or_begins_with_a_line_end_is_kept_whole(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    for k, plan in enumerate((b"", b"\n", b"\n\nx\n", MAGIC + b"{}\n")):
        key = replace(KEY, label=f"plan{k}")
        cache.get(key, making(plan))
        assert cache.get(key, never)[0] == plan


def test_the_file_name_can_be_read_and_the_folder_is_the_users_own(tmp_path: Path) -> None:
    cache, path = filled(tmp_path)
    name = "carn-m-x2-fp16-matrix6-640x360-tensorrt-sm86-nvidia-geforce-rtx-3080.engine"
    assert path.name == name
    assert replace(KEY, batch=4, gpu="").file.endswith("-640x360-batch4-tensorrt-sm86.engine")
    if os.name == "posix":
        assert cache.folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "stem", ["m" * 300, "模型" * 90, "../../etc/passwd", ".hidden" + "." * 200]
)
def test_no_name_of_a_model_leads_outside_or_is_too_long(tmp_path: Path, stem: str) -> None:
    key = replace(KEY, label=f"{stem}-x2-fp16", targets=("sm75", "sm80", "sm86", "sm89", "sm120"))
    cache, path = filled(tmp_path, key)
    assert path.parent == cache.folder
    assert not path.name.startswith(".")
    assert "x2-fp16-640x360" in path.name
    assert [entry.key for entry in cache.entries()] == [key]


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EngineCache().folder == tmp_path / "vsr" / "engines"


def test_entries_tell_what_was_built(tmp_path: Path) -> None:
    cache, path = filled(tmp_path)
    second = replace(KEY, label="dcscn-x2-fp16", targets=("sm75", "sm89"), gpu="")
    cache.get(second, making(OTHER))
    first, other = cache.entries()
    assert (first.path, first.key, first.plan_bytes) == (path, KEY, len(PLAN))
    assert (other.key, other.plan_bytes, other.facts) == (second, len(OTHER), {"seconds": 0.1})
    assert cache.load(other) == OTHER


def test_clear_removes_everything_and_says_how_much(tmp_path: Path) -> None:
    cache, path = filled(tmp_path)
    (cache.folder / "timing-11.4-sm86.cache").write_bytes(b"12345")
    (cache.folder / ".half.engine.17.part").write_bytes(b"123")
    (cache.folder / "folder").mkdir()
    size = path.stat().st_size
    assert cache.clear() == (1, size + 5 + 3)
    assert [p.name for p in cache.folder.iterdir()] == ["folder"]
    assert cache.clear() == (0, 0)
    assert EngineCache(tmp_path / "nowhere").clear() == (0, 0)


# ---- files that do not fit


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5000] ^= 1
    path.write_bytes(bytes(data))


def _holding(data: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(data)

    return change


def _with_line(line: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(line + b"\n" + path.read_bytes().partition(b"\n")[2])

    return change


def _without(name: str, inner: str = "") -> Callable[[Path], None]:
    """Return a function that removes a key from the header."""

    def change(path: Path) -> None:
        line, _, plan = path.read_bytes().partition(b"\n")
        head = json.loads(line[len(MAGIC) :])
        del (head[inner] if inner else head)[name]
        path.write_bytes(MAGIC + json.dumps(head).encode() + b"\n" + plan)

    return change


def _changed(**values: object) -> Callable[[Path], None]:
    """Return a function that changes fields of the engine key in the header."""

    def change(path: Path) -> None:
        line, _, plan = path.read_bytes().partition(b"\n")
        head = json.loads(line[len(MAGIC) :])
        head["key"].update(values)
        path.write_bytes(MAGIC + json.dumps(head).encode() + b"\n" + plan)

    return change


SIZE = len(PLAN)
UNREADABLE = r"is damaged \(its first line cannot be read\)"
FOREIGN = "is not a vsr engine file"
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (_truncated, rf"is truncated \({SIZE - 1} of {SIZE} bytes\)"),
    "grown": (_grown, rf"is truncated \({SIZE + 1} of {SIZE} bytes\)"),
    "flipped": (_flipped, r"is damaged \(its SHA-256 differs\)"),
    "half a line": (_holding(MAGIC + b'{"key": {"label'), FOREIGN),
    "empty": (_holding(b""), FOREIGN),
    "foreign": (_holding(PLAN), FOREIGN),
    "endless line": (_holding(MAGIC + b"9" * 99999), FOREIGN),
    "no json": (_with_line(MAGIC + b"{oops"), UNREADABLE),
    "no utf-8": (_with_line(MAGIC + b'{"key": "\xff\xfe"}'), UNREADABLE),
    "a list": (_with_line(MAGIC + b"[]"), UNREADABLE),
    "a number": (_with_line(MAGIC + b"7"), UNREADABLE),
    "null": (_with_line(MAGIC + b"null"), UNREADABLE),
    "a null key": (_with_line(MAGIC + b'{"key": null}'), UNREADABLE),
    "deep": (_with_line(MAGIC + b"[" * 50000), UNREADABLE),
    "no sha": (_without("plan_sha256"), UNREADABLE),
    "no size": (_without("plan_bytes"), UNREADABLE),
    "no key": (_without("key"), UNREADABLE),
    "no facts": (_without("facts"), UNREADABLE),
    "no graph": (_without("graph", "key"), UNREADABLE),
    "no targets": (_without("targets", "key"), UNREADABLE),
    "unknown field": (_changed(colour="red"), UNREADABLE),
    "a label of 5": (_changed(label=5), UNREADABLE),
    "targets of 5": (_changed(targets=5), UNREADABLE),
    "targets of fives": (_changed(targets=[5]), UNREADABLE),
    "other model": (_changed(label="dcscn-x2-fp16"), "it is an engine of dcscn-x2-fp16"),
    "other graph": (_changed(graph="1" * 64), "from another network or by another version of vsr"),
    "other runtime": (_changed(runtime="tensorrt-rtx"), "it was built by tensorrt-rtx"),
    "old version": (
        _changed(version="10.13.2"), "it was built by version 10.13.2, this is version 11.4.0.106"
    ),
    "other GPU": (
        _changed(gpu="NVIDIA T4"), "it was built on NVIDIA T4, this is NVIDIA GeForce RTX 3080"
    ),
    "other size": (_changed(sizes="1280x720"), "it was built with other options"),
    "other batch": (_changed(batch=2), "it was built with other options"),
    "other target": (_changed(targets=["sm75"]), "it was built with other options"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_fit_is_rebuilt_with_a_word(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, path = filled(tmp_path)
    spoil, words = FAULTS[fault]
    spoil(path)
    calls: list[bytes] = []
    assert cache.get(KEY, making(OTHER, calls)) == (OTHER, path, False)
    assert calls == [OTHER]
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert {level for level, _ in told} == {logging.WARNING}
    for _, line in told:
        assert line.startswith(f"the cached engine {path.name} ")
        assert line.endswith(": rebuilding it")
        assert re.search(words, line)
    assert len(told) == 1
    caplog.clear()
    assert cache.get(KEY, never) == (OTHER, path, True)
    assert caplog.text == ""


def test_an_engine_renamed_from_another_model_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, path = filled(tmp_path)
    wanted = replace(KEY, label="dcscn-x2-fp16")
    path.rename(cache.folder / wanted.file)
    assert cache.get(wanted, making(OTHER))[0] == OTHER
    assert "does not fit (it is an engine of carn-m-x2-fp16-matrix6)" in caplog.text


def test_the_damaged_are_passed_over_when_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, _ = filled(tmp_path)
    (cache.folder / "a.engine").write_bytes(b"\x7fELF")
    (cache.folder / "z.engine").mkdir()
    assert [entry.key for entry in cache.entries()] == [KEY]
    assert "a.engine is not a vsr engine file: it will be rebuilt when needed" in caplog.text
    assert "z.engine cannot be read (Is a directory)" in caplog.text


def test_an_entry_that_vanishes_or_changes_before_it_is_loaded_is_damaged(tmp_path: Path) -> None:
    cache, path = filled(tmp_path)
    entry = read_entry(path)
    _truncated(path)
    with pytest.raises(DamagedError, match="is truncated"):
        cache.load(entry)
    path.unlink()
    with pytest.raises(DamagedError, match=r"cannot be read \(No such file or directory\)"):
        cache.load(entry)


# ---- folders that cannot be written


def in_one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = EngineCache(tmp_path / "file" / "engines")
    with pytest.raises(BackendError, match="cannot write engines to ") as caught:
        cache.get(KEY, never)
    assert "Not a directory" in in_one_line(caught.value)


@contextmanager
def nobody() -> Iterator[None]:
    """Drop root's permission to write everywhere; containers often run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["read-only", "closed"])
def test_a_folder_without_permission_is_told_in_one_line(mode: int) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name) / "engines"
        folder.mkdir()
        Path(name).chmod(0o755)
        folder.chmod(mode)
        try:
            with nobody(), pytest.raises(BackendError, match="cannot write engines") as caught:
                EngineCache(folder).get(KEY, making())
        finally:
            folder.chmod(0o755)
    assert "(Permission denied): free some space or set XDG_CACHE_HOME" in in_one_line(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX's")
def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    import resource

    cache = EngineCache(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(BackendError, match=r"\(File too large\): free some space") as caught:
            cache.get(KEY, making())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    in_one_line(caught.value)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    assert cache.get(KEY, making())[2] is False


def test_a_folder_in_the_engines_place_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / KEY.file).mkdir()
    with pytest.raises(BackendError, match="cannot write engines to") as caught:
        EngineCache(tmp_path).get(KEY, making())
    in_one_line(caught.value)


def test_a_failed_build_leaves_nothing_and_may_be_tried_again(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)

    def fail() -> tuple[bytes, dict[str, Any]]:
        raise BackendError("no luck")

    with pytest.raises(BackendError, match="no luck"):
        cache.get(KEY, fail)
    assert list(cache.entries()) == []
    assert cache.get(KEY, making())[0] == PLAN


# ---- concurrent builders

BUILDER = """
import logging, signal, sys, time
from dataclasses import replace
from pathlib import Path
from tests.inference.test_cache import KEY, PLAN
from vsr.inference.tensorrt.cache import EngineCache

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
logging.basicConfig(level=logging.INFO)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def build():
    with (folder / "builds").open("ab") as file:
        file.write(b"x")
    time.sleep(seconds)
    return PLAN, {}

plan, path, cached = EngineCache(folder / "engines").get(KEY, build)
assert plan == PLAN
print("cached" if cached else "built")
"""


def builder(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    """Start a process that takes `seconds` to build the engine of KEY."""
    command = [sys.executable, "-c", BUILDER, str(folder), str(seconds)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_builder_that_is_killed_leaves_no_engine_and_no_lock(tmp_path: Path) -> None:
    with builder(tmp_path, 60) as process:
        wait_for(tmp_path / "builds")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    cache = EngineCache(tmp_path / "engines")
    assert list(cache.entries()) == []
    began = time.monotonic()
    assert cache.get(KEY, making())[0::2] == (PLAN, False)
    assert time.monotonic() - began < 30, "the dead builder's lock was waited for"
    assert cache.get(KEY, never)[0::2] == (PLAN, True)


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    half = tmp_path / f".{KEY.file}.4711-1.part"
    other = tmp_path / f".{replace(KEY, label='dcscn').file}.4711-1.part"  # may still be written
    for part in (half, other):
        part.write_bytes(MAGIC)
    cache.get(KEY, making())
    assert (half.exists(), other.exists()) == (False, True)


def test_two_processes_build_once(tmp_path: Path) -> None:
    with builder(tmp_path, 0.3) as first, builder(tmp_path, 0.3) as second:
        said = sorted((first.communicate(timeout=60)[0], second.communicate(timeout=60)[0]))
    assert said == ["built\n", "cached\n"]
    assert (tmp_path / "builds").read_bytes() == b"x"


def test_who_waits_for_another_builder_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache_module, "_LOCK_LOG_DELAY_S", 0.05)
    caplog.set_level(logging.INFO)
    cache, results, building = EngineCache(tmp_path), [], Event()

    def make() -> tuple[bytes, dict[str, Any]]:
        building.set()
        deadline = time.monotonic() + 10
        while not caplog.messages:
            assert time.monotonic() < deadline, "the other waits in silence"
            time.sleep(0.01)
        time.sleep(0.2)
        return PLAN, {}

    first = Thread(target=lambda: results.append(cache.get(KEY, make)))
    first.start()
    assert building.wait(10)
    assert cache.get(KEY, never)[0::2] == (PLAN, True)
    first.join()
    assert [cached for _, _, cached in results] == [False]
    assert caplog.messages == [f"waiting for another vsr process that builds {KEY.file}"]


def test_who_waits_a_moment_only_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with builder(tmp_path, 0.2) as process:
        wait_for(tmp_path / "builds")
        assert EngineCache(tmp_path / "engines").get(KEY, never)[2]
        assert process.wait(30) == 0
    assert caplog.messages == []


@pytest.mark.skipif(os.name != "posix", reason="SIGINT is sent otherwise elsewhere")
def test_waiting_for_another_builder_can_be_interrupted(tmp_path: Path) -> None:
    with builder(tmp_path, 60) as first:
        wait_for(tmp_path / "builds")
        command = [sys.executable, "-c", BUILDER, str(tmp_path), "0"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stderr=pipe, text=True) as second:
            assert second.stderr is not None
            assert "waiting for another vsr" in second.stderr.readline()
            began = time.monotonic()
            second.send_signal(signal.SIGINT)
            _, errors = second.communicate(timeout=30)
        assert time.monotonic() - began < 30
        assert second.returncode != 0
        assert errors.rstrip().endswith("KeyboardInterrupt")
        first.kill()
    assert (tmp_path / "builds").read_bytes() == b"x"


def test_two_threads_build_once(tmp_path: Path) -> None:
    cache, calls, results = EngineCache(tmp_path), [], []
    together = Barrier(4)

    def make() -> tuple[bytes, dict[str, Any]]:
        calls.append(1)
        time.sleep(0.1)
        return PLAN, {}

    def work() -> None:
        together.wait()
        results.append(cache.get(KEY, make))

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert {plan for plan, _, _ in results} == {PLAN}
    assert sorted(cached for _, _, cached in results) == [False, True, True, True]
