"""Tests of writing files atomically."""

from pathlib import Path
from threading import Thread

import pytest

from vsr.media.whole_file import write_atomically


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with write_atomically(path) as part:
        part.write_text("new")
        assert (path.read_text(), part.parent) == ("old", tmp_path)
    assert ([p.name for p in tmp_path.iterdir()], path.read_text()) == (["a.json"], "new")


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(error), write_atomically(path) as part:
        part.write_text("half")
        raise error
    assert ([p.name for p in tmp_path.iterdir()], path.read_text()) == (["a.json"], "old")


def test_threads_that_write_one_file_leave_a_whole_one(tmp_path: Path) -> None:
    path, faults = tmp_path / "timing.cache", []
    pieces = [bytes([k]) * 300_000 for k in range(6)]

    def work(data: bytes) -> None:
        try:
            for _ in range(5):
                with write_atomically(path) as part:
                    part.write_bytes(data)
                assert path.read_bytes() in pieces
        except Exception as exc:
            faults.append(exc)

    threads = [Thread(target=work, args=(data,)) for data in pieces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert [p.name for p in tmp_path.iterdir()] == ["timing.cache"]
