"""Tests of the CUDA layer on a GPU, through each installed CUDA library.

`VSR_REQUIRE_GPU=1 pytest -m gpu tests/inference/test_cuda.py`
"""

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.gpu_memory import free_memory
from vsr.errors import BackendError, OutOfMemoryError, UsageError
from vsr.inference.cuda import CUDA_LIBRARIES, Cuda, PinnedPool, load_cuda

pytestmark = pytest.mark.gpu

MIB = 1 << 20
Bytes = npt.NDArray[np.uint8]
_MODULES = {"cuda-bindings": "cuda.bindings", "pycuda": "pycuda"}


@pytest.fixture(params=list(CUDA_LIBRARIES))
def cuda(request: pytest.FixtureRequest) -> Iterator[Cuda]:
    """Yield the first GPU, with its context current on the test's thread."""
    name: str = request.param
    try:
        found = importlib.util.find_spec(_MODULES[name])
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"{name} is not installed")
    gpu = load_cuda(prefer=name)
    gpu.activate()
    yield gpu
    gpu.synchronize()


def noise(nbytes: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)


def test_the_gpu_is_described(cuda: Cuda) -> None:
    assert (cuda.index, cuda.name != "", "\0" in cuda.name) == (0, True, False)
    assert cuda.compute_capability >= (5, 0)
    assert float(cuda.driver) >= 12
    assert 0 < free_memory(cuda) <= cuda.total_memory


def test_a_gpu_that_is_not_there_is_refused(cuda: Cuda) -> None:
    with pytest.raises(UsageError, match=f"no GPU 99; available: 0 .{cuda.name}"):
        load_cuda(99, prefer=cuda.library.split()[0].lower())


def test_bytes_go_to_the_gpu_and_back(cuda: Cuda) -> None:
    size = 3 * MIB + 17
    source, target, stream = cuda.alloc_pinned(size), cuda.alloc_pinned(size), cuda.new_stream()
    device = cuda.alloc_device(size)
    assert device.address % 256 == 0
    source.array((size,))[:] = noise(size)
    target.array((size,))[:] = 0
    cuda.copy_in(device.address, source.address, size, stream)
    cuda.copy_out(target.address, device.address, size, stream)
    stream.synchronize()
    assert np.array_equal(target.array((size,)), noise(size))


def test_a_stream_waits_for_the_event_of_another(cuda: Cuda) -> None:
    size = 64 * MIB
    source, target, device = cuda.alloc_pinned(size), cuda.alloc_pinned(64), cuda.alloc_device(size)
    before, after, ready = cuda.new_stream(), cuda.new_stream(), cuda.new_event()
    data = source.array((size,))
    for value in (1, 2, 3):  # without the wait, `after` overtakes the long copy
        data[-64:] = value
        cuda.copy_in(device.address, source.address, size, before)
        ready.record(before)
        after.wait(ready)
        cuda.copy_out(target.address, device.address + size - 64, 64, after)
        after.synchronize()
        assert ready.is_done()
        assert target.array((64,)).tolist() == [value] * 64


def test_events_tell_how_long_it_took(cuda: Cuda) -> None:
    size = 32 * MIB
    source, device, stream = cuda.alloc_pinned(size), cuda.alloc_device(size), cuda.new_stream()
    start, end = cuda.new_event(timing=True), cuda.new_event(timing=True)
    start.record(stream)
    cuda.copy_in(device.address, source.address, size, stream)
    end.record(stream)
    end.synchronize()
    assert start.is_done()
    assert end.is_done()
    took = end.elapsed_ms(start)
    assert size / 4e12 * 1e3 < took < 10_000  # no bus carries 4 TB/s
    untimed = cuda.new_event()
    untimed.record(stream)
    untimed.synchronize()
    with pytest.raises(BackendError, match="CUDA failed in cuEventElapsedTime"):
        untimed.elapsed_ms(start)


def test_a_captured_graph_copies_whatever_is_there_when_launched(cuda: Cuda) -> None:
    size = MIB
    source, target, device = (
        cuda.alloc_pinned(size),
        cuda.alloc_pinned(size),
        cuda.alloc_device(size),
    )
    stream, other = cuda.new_stream(), cuda.new_stream()
    if not cuda.can_capture:
        with pytest.raises(BackendError, match="cannot capture"):
            stream.begin_capture()
        return
    target.array((size,))[:] = 0
    stream.begin_capture()
    cuda.copy_in(device.address, source.address, size, stream)
    cuda.alloc_device(MIB).close()  # allowed by relaxed capture mode
    cuda.copy_out(target.address, device.address, size, stream)
    graph = stream.end_capture()
    stream.synchronize()
    assert not target.array((size,)).any()
    for seed in (1, 2, 3):
        source.array((size,))[:] = noise(size, seed)
        graph.launch(other)
        other.synchronize()
        assert np.array_equal(target.array((size,)), noise(size, seed))


def test_ending_a_capture_that_never_began_is_an_error(cuda: Cuda) -> None:
    with pytest.raises(BackendError):
        cuda.new_stream().end_capture()


def test_things_are_freed_on_a_thread_without_a_context(cuda: Cuda) -> None:
    before = free_memory(cuda)
    things: list[Any] = [
        cuda.alloc_device(64 * MIB),
        cuda.alloc_pinned(MIB),
        cuda.new_event(),
        cuda.new_stream(),
    ]
    assert free_memory(cuda) <= before - 64 * MIB
    thread = threading.Thread(target=things.clear)
    thread.start()
    thread.join()
    assert free_memory(cuda) > before - 32 * MIB
    cuda.new_stream().synchronize()  # this thread's own context is still current


def test_a_second_thread_activates_and_copies(cuda: Cuda) -> None:
    source, target, device = cuda.alloc_pinned(64), cuda.alloc_pinned(64), cuda.alloc_device(64)
    source.array((64,))[:] = 5
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(100):
                cuda.activate()
            stream = cuda.new_stream()
            cuda.copy_in(device.address, source.address, 64, stream)
            cuda.copy_out(target.address, device.address, 64, stream)
            stream.synchronize()
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []
    assert target.array((64,)).tolist() == [5] * 64


def test_too_much_memory_is_refused_and_a_little_still_there(cuda: Cuda) -> None:
    with pytest.raises(OutOfMemoryError, match=r"MiB of GPU memory \(\d+ MiB free\)"):
        cuda.alloc_device(2 * cuda.total_memory)
    assert cuda.alloc_device(MIB).address
    cuda.synchronize()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def test_two_thousand_frames_leave_no_memory_behind(cuda: Cuda) -> None:
    pool, stream = PinnedPool(cuda.alloc_pinned, 8 * MIB), cuda.new_stream()

    def frames(count: int) -> None:
        for number in range(count):
            device, ready = cuda.alloc_device(MIB), cuda.new_event()
            flat = pool.take(MIB)
            flat[:4096] = number % 256
            cuda.copy_in(device.address, flat.ctypes.data, MIB, stream)
            cuda.copy_out(flat.ctypes.data, device.address, MIB, stream)
            ready.record(stream)
            ready.synchronize()
            assert flat[4095] == number % 256

    frames(50)
    free, resident = free_memory(cuda), _resident()
    frames(2000)
    assert abs(free - free_memory(cuda)) <= 32 * MIB
    assert _resident() - resident <= 32 * MIB
    assert pool.allocated == 2 * MIB  # one is in use while the next is taken


def test_torch_shares_the_context(cuda: Cuda) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    size = MIB
    tensor = torch.arange(size, device="cuda:0", dtype=torch.int32).to(torch.uint8)
    torch.cuda.synchronize()
    pinned, stream = cuda.alloc_pinned(size), cuda.new_stream()
    cuda.copy_out(pinned.address, tensor.data_ptr(), size, stream)
    stream.synchronize()
    assert np.array_equal(pinned.array((size,)), np.arange(size).astype(np.uint8))
    pinned.array((size,))[:] = noise(size)
    cuda.copy_in(tensor.data_ptr(), pinned.address, size, stream)
    stream.synchronize()
    assert np.array_equal(tensor.cpu().numpy(), noise(size))
    copied = cuda.alloc_pinned(size)
    cuda.copy_out(copied.address, tensor.data_ptr(), size, stream)
    on_ours = torch.cuda.ExternalStream(stream.handle)
    with torch.cuda.stream(on_ours):
        tensor.add_(1)  # after the copy, in our stream
    stream.synchronize()
    assert np.array_equal(copied.array((size,)), noise(size))
    assert np.array_equal(tensor.cpu().numpy(), noise(size) + np.uint8(1))
