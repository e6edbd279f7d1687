"""Tests of the pool of pinned memory, on ordinary memory: any view keeps its buffer in use."""

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vsr.errors import BackendError, OutOfMemoryError
from vsr.inference.cuda import PinnedBuffer, PinnedPool

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
Bytes = npt.NDArray[np.uint8]


class Plain:
    """Ordinary memory instead of page-locked memory; counts the instances alive."""

    alive = 0

    def __init__(self, nbytes: int) -> None:
        self._memory = np.zeros(nbytes, np.uint8)
        self.address, self.nbytes = self._memory.ctypes.data, nbytes
        Plain.alive += 1

    def __del__(self) -> None:
        self._memory[:] = 0xEE  # makes a use after free visible
        Plain.alive -= 1

    array = PinnedBuffer.array


@pytest.fixture(scope="module", autouse=True)
def _old_objects() -> Iterator[None]:
    """Exclude objects of other tests from garbage collection, which takes a second each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _count() -> None:
    gc.collect()
    Plain.alive = 0


def pool(limit: int = MIB, timeout_s: float = 0.05) -> PinnedPool:
    return PinnedPool(Plain, limit, timeout_s)


def address(array: npt.NDArray[Any]) -> int:
    return int(array.ctypes.data)


def test_a_buffer_is_reused_once_its_array_is_gone() -> None:
    lender = pool()
    first = lender.take(100)
    assert (first.shape, first.dtype.name, first.flags.writeable) == ((100,), "uint8", True)
    where = address(first)
    second = lender.take(100)
    assert address(second) != where
    del first
    assert address(lender.take(100)) == where
    assert (Plain.alive, lender.allocated) == (2, 200)


def test_views_of_views_keep_a_buffer_lent() -> None:
    lender = pool()
    flat = lender.take(96)
    where = address(flat)
    view = flat[16:80].reshape(8, 8).view(np.int8).T[::2, 1:]
    window = memoryview(view)
    again = np.from_dlpack(np.asarray(window))
    del flat, view, window
    other = lender.take(96)
    assert address(other) != where
    again[0, 0] = 7  # the buffer is still in use
    del again
    assert address(lender.take(96)) == where


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_buffers_return_in_any_order(order: tuple[int, ...]) -> None:
    lender, lent = pool(), {}
    for i in range(3):
        lent[i] = lender.take(64)
    where = {i: address(array) for i, array in lent.items()}
    for i in order:
        del lent[i]
        taken = lender.take(64)
        assert address(taken) == where[i]
        lent[i + 10] = taken
    assert Plain.alive == 3


def test_a_picture_of_the_encoder_keeps_its_planes() -> None:
    av = pytest.importorskip("av")
    lender = pool()
    flat = lender.take(16 * 8 * 3 // 2)
    where = address(flat)
    planes = flat[:128].reshape(8, 16), flat[128:160].reshape(4, 8), flat[160:].reshape(4, 8)
    for value, plane in enumerate(planes, start=1):
        plane[:] = value
    picture = av.VideoFrame.from_dlpack(planes, format="yuv420p")
    del flat, planes, plane
    other = lender.take(192)
    other[:] = 9
    assert address(other) != where
    assert [int(np.from_dlpack(plane)[0, 0]) for plane in picture.planes] == [1, 2, 3]
    one_plane = np.from_dlpack(picture.planes[2])
    del picture
    assert address(lender.take(192)) != where  # one plane outlives its picture
    assert int(one_plane[3, 7]) == 3
    del one_plane
    assert address(lender.take(192)) == where


def test_free_buffers_of_other_sizes_make_room() -> None:
    lender = pool(limit=1000)
    small = [lender.take(200) for _ in range(4)]
    del small[0]
    big = lender.take(400)  # replaces the returned buffer
    assert (Plain.alive, lender.allocated) == (4, 1000)
    with pytest.raises(BackendError, match="1000 of 1000 bytes"):
        lender.take(300)
    small.clear()
    assert lender.take(300).size == 300
    assert lender.allocated <= 1000
    assert big.size == 400


def test_more_than_the_limit_is_refused_after_a_while() -> None:
    lender = pool(limit=100)
    held = lender.take(60)
    started = time.monotonic()
    with pytest.raises(BackendError, match=r"timeout of 0\.05 s"):
        lender.take(60)
    assert time.monotonic() - started >= 0.05
    assert held.size == 60


def test_taking_waits_for_another_thread_to_let_go() -> None:
    lender = pool(limit=100, timeout_s=10)
    held = [lender.take(100)]
    where = address(held[0])
    timer = threading.Timer(0.1, held.clear)
    timer.start()
    assert address(lender.take(100)) == where
    timer.join()


def test_a_failed_allocation_is_not_counted() -> None:
    def refuse(nbytes: int) -> PinnedBuffer:
        raise OutOfMemoryError(f"no {nbytes}")

    lender = PinnedPool(refuse, MIB)
    with pytest.raises(OutOfMemoryError, match="no 10"):
        lender.take(10)
    assert lender.allocated == 0


def test_garbage_that_is_collected_while_taking_does_not_lock() -> None:
    class Knot:
        def __init__(self, array: Bytes) -> None:
            self.array, self.me = array, self

    def collecting(nbytes: int) -> Plain:
        gc.collect()  # runs the finalizer of the first array inside `take`
        return Plain(nbytes)

    lender = PinnedPool(collecting, MIB)
    where = address(Knot(lender.take(50)).array)
    done: list[Bytes] = []
    thread = threading.Thread(target=lambda: done.append(lender.take(50)), daemon=True)
    thread.start()
    thread.join(5)
    assert len(done) == 1, "take locked itself out"
    assert address(lender.take(50)) == where


def test_two_threads_never_get_the_same_buffer() -> None:
    lender, faults = pool(limit=40 * 640, timeout_s=10), []
    numbers = np.random.default_rng(0).integers(0, 4, 4000)

    def work(mark: int) -> None:
        kept: list[tuple[Bytes, int]] = []
        for step, number in enumerate(numbers[mark::2]):
            array = lender.take(256 + 128 * int(number))
            value = (step * 2 + mark) % 251
            array[:] = value
            kept.append((array[5:].reshape(-1, 1), value))
            if len(kept) > number + 3:
                view, expected = kept.pop(int(number))
                if not (view == expected).all():
                    faults.append(expected)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert lender.allocated <= 40 * 640
    assert Plain.alive < 50


def test_arrays_outlive_the_pool_and_free_its_memory() -> None:
    lender = pool()
    kept, returned = lender.take(10), lender.take(10)
    kept[:] = 3
    del returned, lender
    gc.collect()
    assert kept.tolist() == [3] * 10
    del kept
    assert Plain.alive == 0


def test_the_interpreter_ends_with_buffers_lent() -> None:
    code = """if True:
        import threading, time
        from tests.inference.test_cuda_pool import Plain, PinnedPool
        lender = PinnedPool(Plain, 1 << 20)
        kept = [lender.take(1000)[2:] for _ in range(5)]
        def churn():
            while True:
                lender.take(500)
        threading.Thread(target=churn, daemon=True).start()
        time.sleep(0.05)
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("shape", "offset"), [((11,), 0), ((2, 5), 1), ((1,), -1)])
def test_no_array_reaches_past_its_buffer(shape: tuple[int, ...], offset: int) -> None:
    with pytest.raises(ValueError, match="exceed the buffer of 10"):
        Plain(10).array(shape, offset=offset)


def test_an_array_starts_at_its_offset() -> None:
    buffer = Plain(64)
    buffer.array((64,))[:] = np.arange(64)
    assert buffer.array((2, 3), np.dtype("<u2"), 4).tolist() == [
        [0x0504, 0x0706, 0x0908],
        [0x0B0A, 0x0D0C, 0x0F0E],
    ]
