"""How the process of a relay allocates memory and returns it to the system, with glibc."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from vsr.live.memory import configure_malloc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's heaps")

BEGIN = """
import ctypes, sys, tempfile, threading, time
from pathlib import Path
from vsr.live import memory
memory._TRIM_INTERVAL_S = 0.2
if sys.argv[1] == "settled":
    memory.configure_malloc()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
def told():
    with tempfile.NamedTemporaryFile() as told:
        file = libc.fopen(told.name.encode(), b"w")
        libc.malloc_info(0, file)
        libc.fclose(file)
        return told.read().decode()
"""
HEAPS = """
together = threading.Barrier(8)
def allocate():
    together.wait()
    for _ in range(100):
        libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(told().count("<heap nr="))
"""
MAPPED = """
libc.free(libc.malloc(16 << 20))  # glibc takes the size of what is freed for its new threshold
blocks = [libc.malloc(1 << 20) for _ in range(10)]
print(told().rpartition('type="mmap" count="')[2].partition('"')[0])
"""
GIVEN_BACK = """
def mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
blocks = [libc.malloc(64 << 10) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 64 << 10)
last = libc.malloc(64 << 10)  # what is free below it is no end of the heap that could be cut off
full = mib()
for block in blocks:
    libc.free(block)
until = time.monotonic() + (10 if sys.argv[1] == "settled" else 0.5)
while mib() > full - 40 and time.monotonic() < until:
    time.sleep(0.05)
print(round(full - mib()))
"""


@pytest.mark.parametrize(
    ("code", "settled", "otherwise"),
    [
        (HEAPS, lambda count: count <= 2, lambda count: count > 2),
        (MAPPED, lambda count: count >= 10, lambda count: count < 10),
        (GIVEN_BACK, lambda mib: mib > 40, lambda mib: mib < 20),
    ],
    ids=["two heaps", "large blocks stay out of them", "what is free goes back"],
)
def test_heaps_are_settled(
    code: str, settled: Callable[[int], bool], otherwise: Callable[[int], bool]
) -> None:
    for how, expected in (("settled", settled), ("own", otherwise)):
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + code, how], capture_output=True, text=True, check=True
        )
        assert expected(int(done.stdout)), (how, done.stdout)


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(_name: Any) -> object:
        return object()

    monkeypatch.setattr("vsr.live.memory.ctypes.CDLL", no_library)
    configure_malloc()
