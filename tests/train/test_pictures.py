"""Tests of the cache of prepared pictures: bit-exact, prepared once, rebuilt if damaged."""

import logging
import os
import pickle
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training import TINY, Pixels, image_folder, noise
from train.data import pictures as module
from train.data.patches import Patches
from train.data.pictures import Pictures, worth_caching
from train.data.store import DamagedStoreError, open_store, write_store
from train.errors import TrainError
from train.fit.recipe import Recipe

BICUBIC = replace(TINY, copies=(0.5,))
STREAM = replace(TINY, degradation="stream", patch=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "hr", (96, 128))


def _assert_same(ours: Pictures, theirs: Pictures) -> None:
    assert ours.record == theirs.record
    for mine, other in ((ours.lr, theirs.lr), (ours.hr, theirs.hr)):
        assert list(mine) == list(other)
        for scale in mine:
            for a, b in zip(mine[scale], other[scale], strict=True):
                assert np.array_equal(a, b)


def _count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each preparation of a picture appends its scale."""
    made: list[int] = []
    original = module._degrade

    def counted(picture: Pixels, scale: int, recipe: Recipe, rng: np.random.Generator) -> object:
        made.append(scale)
        return original(picture, scale, recipe, rng)

    monkeypatch.setattr(module, "_degrade", counted)
    return made


@pytest.mark.parametrize("recipe", [BICUBIC, STREAM], ids=["copies", "stream"])
def test_cached_pictures_are_those_in_memory_and_give_the_same_patches(
    tmp_path: Path, folder: Path, recipe: Recipe
) -> None:
    loaded = Pictures.load([folder], (2, 3), recipe)
    mapped = Pictures.cached([folder], (2, 3), recipe, tmp_path / "cache")
    _assert_same(mapped, loaded)
    assert not mapped.hr[2][0].flags.owndata
    ours, theirs = (Patches(p, recipe, "y", (2, 3)) for p in (mapped, loaded))
    for k in range(8):
        assert torch.equal(ours[k][0], theirs[k][0])
        assert torch.equal(ours[k][1], theirs[k][1])


def test_a_second_start_prepares_nothing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _count(monkeypatch)
    first = Pictures.cached([folder], (2,), BICUBIC, tmp_path / "cache")
    assert len(made) == 4  # two images, each with one scaled copy
    _assert_same(Pictures.cached([folder], (2,), BICUBIC, tmp_path / "cache"), first)
    assert len(made) == 4


def test_of_two_that_start_at_once_one_prepares(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _count(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        start = [
            pool.submit(Pictures.cached, [folder], (2,), BICUBIC, tmp_path / "cache")
            for _ in range(2)
        ]
        _assert_same(start[0].result(), start[1].result())
    assert len(made) == 4


def _touched(folder: Path) -> None:
    path = folder / "0.png"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000_000))


def _removed(folder: Path) -> None:
    (folder / "1.png").unlink()


@pytest.mark.parametrize("change", [_touched, _removed])
def test_another_listing_is_another_file(
    tmp_path: Path, folder: Path, change: Callable[[Path], None]
) -> None:
    before = Pictures.cached([folder], (2,), BICUBIC, tmp_path / "cache")
    change(folder)
    after = Pictures.cached([folder], (2,), BICUBIC, tmp_path / "cache")
    assert before.file != after.file
    _assert_same(after, Pictures.load([folder], (2,), BICUBIC))


@pytest.mark.parametrize(
    ("recipe", "scales", "same"),
    [
        (replace(BICUBIC, copies=()), (2,), False),
        (replace(BICUBIC, patch=10), (2,), False),
        (BICUBIC, (2, 3), False),
        (replace(BICUBIC, rate=1.0, steps=9), (2,), True),
        (replace(BICUBIC, seed=2), (2,), True),  # bicubic uses no random numbers
    ],
    ids=["copies", "patch", "scales", "rate", "seed"],
)
def test_the_file_follows_what_the_pictures_depend_on(
    tmp_path: Path, folder: Path, recipe: Recipe, scales: tuple[int, ...], same: bool
) -> None:
    one = Pictures.cached([folder], (2,), BICUBIC, tmp_path / "cache")
    other = Pictures.cached([folder], scales, recipe, tmp_path / "cache")
    assert (one.file == other.file) == same


def test_streamed_pictures_depend_on_the_seed(folder: Path) -> None:
    keys = {module._key([folder], (), (2,), replace(STREAM, seed=seed)) for seed in (1, 2)}
    assert len(keys) == 2


def test_the_file_follows_the_code_but_not_its_comments(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key() -> str:
        return module._key([folder], (), (2,), BICUBIC)

    source, code = Path(module.__file__).parent, tmp_path / "code"
    code.mkdir()
    for name in module._CODE_FILES:
        shutil.copy(source / name, code)
    before = key()
    monkeypatch.setattr(module, "__file__", str(code / "pictures.py"))
    assert key() == before
    resize = code / "resize.py"
    text = resize.read_text(encoding="utf-8")
    assert " bicubically exactly" in text and "    factor = target / source\n" in text
    other = text.replace(" bicubically exactly", " as exactly")
    other = other.replace("    factor =", "    # of the sides\n\n    factor =")
    resize.write_text(other, encoding="utf-8")
    assert key() == before
    pictures = code / "pictures.py"
    other = pictures.read_text(encoding="utf-8").replace('"""Number of clips', '"""Count of clips')
    pictures.write_text(other, encoding="utf-8")
    assert "Count of" in other and key() == before
    resize.write_text(text.replace("a: float = -0.5", "a: float = -0.75"), encoding="utf-8")
    assert key() != before


# damage


def _cut(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def _flipped(whole: bytes) -> bytes:
    at = len(whole) // 2
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


def _foreign(whole: bytes) -> bytes:
    return b"PK" + whole[2:]


def _empty(_whole: bytes) -> bytes:
    return b""


def _longer(whole: bytes) -> bytes:
    return whole + b"\0"


@pytest.mark.parametrize("damage", [_cut, _flipped, _foreign, _empty, _longer])
def test_a_damaged_file_is_made_anew_and_said(
    tmp_path: Path,
    folder: Path,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Pictures.cached([folder], (2,), BICUBIC, tmp_path / "cache").file
    assert path is not None
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedStoreError):
        open_store(path)
    with caplog.at_level(logging.WARNING):
        again = Pictures.cached([folder], (2,), BICUBIC, tmp_path / "cache")
    _assert_same(again, Pictures.load([folder], (2,), BICUBIC))
    assert re.search(rf"{path.name} is .*: preparing the pictures again", caplog.text)


def test_an_interrupted_preparation_leaves_nothing_that_is_used(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    with monkeypatch.context() as patched:
        patched.setattr(module, "_with_copies", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Pictures.cached([folder], (2,), BICUBIC, cache)
    assert not list(cache.glob("*.pictures"))
    killed = cache / f".{module._key([folder], (), (2,), BICUBIC)}.pictures.1.part"
    killed.write_bytes(b"half")
    found = Pictures.cached([folder], (2,), BICUBIC, cache)
    assert not killed.exists()
    _assert_same(found, Pictures.load([folder], (2,), BICUBIC))


def test_a_cache_that_cannot_be_written_is_told_in_one_line(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainError, match="choose another folder with --cache") as caught:
        Pictures.cached([folder], (2,), BICUBIC, tmp_path / "file" / "cache")
    assert "\n" not in str(caught.value)


# memory


def _private_bytes() -> int:
    """Return this process's memory that is not file-backed, in bytes (Linux: RssAnon)."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc here: memory cannot be measured")
    found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text("ascii"))
    assert found
    return int(found[1]) * 1024


def test_a_large_set_does_not_sit_in_memory(tmp_path: Path) -> None:
    """Cut patches from 200 MB of pictures: private memory grows by less than a tenth of that."""
    low, high, path = noise(256, 256), noise(512, 512), tmp_path / "large.pictures"
    pairs = ((2, low, high) for _ in range(200))
    start = _private_bytes()
    write_store(path, pairs, {"images": 200})
    size = path.stat().st_size
    assert size > 190e6
    pictures = Pictures.mapped(path)
    recipe = replace(TINY, batch=16)
    patches = Patches(pictures, recipe, "rgb", (2,))
    for k in range(1000):
        patches[k]
    assert _private_bytes() - start < size / 10
    assert pictures.record == {"images": 200}


def test_a_worker_process_is_sent_the_files_name(tmp_path: Path, folder: Path) -> None:
    mapped = Pictures.cached([folder], (2,), BICUBIC, tmp_path / "cache")
    patches = Patches(mapped, BICUBIC, "rgb", (2,))
    sent = pickle.dumps(patches)
    assert len(sent) < 4096 < mapped.hr[2][0].nbytes
    there = pickle.loads(sent)
    assert torch.equal(there[5][1], patches[5][1])


def test_only_sets_of_more_than_16_megabytes_are_cached_unasked(
    tmp_path: Path, folder: Path
) -> None:
    assert not worth_caching([folder])
    with (folder / "large.png").open("wb") as file:
        file.truncate(17 << 20)
    assert worth_caching([folder])
