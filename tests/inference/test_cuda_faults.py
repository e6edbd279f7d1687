"""Tests of the one-line errors for CUDA that is missing, too old, broken or out of memory.

Fakes simulate drivers that fail, and the rules of PyCUDA (its src/cpp/cuda.hpp).
"""

import ctypes
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vsr.errors import BackendError, OutOfMemoryError, UsageError
from vsr.inference.cuda import load_cuda

MIB = 1 << 20


def has_libcuda() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def installed(library: str) -> bool:
    module = {"cuda-bindings": "cuda.bindings", "pycuda": "pycuda"}[library]
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def test_without_a_driver_the_line_names_openvino() -> None:
    if has_libcuda() or not installed("cuda-bindings"):
        pytest.skip("needs cuda-bindings and no NVIDIA driver")
    with pytest.raises(BackendError) as caught:
        load_cuda(prefer="cuda-bindings")
    assert "NVIDIA driver (libcuda) not found" in str(caught.value)
    assert "openvino" in str(caught.value)
    assert "\n" not in str(caught.value)


def replace_modules(monkeypatch: pytest.MonkeyPatch, **modules: object) -> None:
    """Replace imported modules (None: not installed), and unload the modules that import them."""
    for name in ("vsr.inference.cuda.bindings", "vsr.inference.cuda.pycuda"):
        monkeypatch.setitem(sys.modules, name, None)  # is undone even for a new name
        del sys.modules[name]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name.replace("__", "."), module)


def test_without_a_library_the_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VSR_CUDA", raising=False)
    replace_modules(monkeypatch, cuda__bindings=None, cuda__bindings__driver=None, pycuda=None)
    with pytest.raises(BackendError, match=r"pip install 'vsr-stream\[tensorrt-rtx\]'"):
        load_cuda()
    with pytest.raises(BackendError, match="pycuda is not installed: pip install pycuda"):
        load_cuda(prefer="pycuda")
    monkeypatch.setenv("VSR_CUDA", "cuda-bindings")
    with pytest.raises(BackendError, match="cuda-bindings is not installed"):
        load_cuda()


def test_an_unknown_library_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown CUDA library 'cupy'; known: pycuda, cuda-bin"):
        load_cuda(prefer="cupy")


class FakeDriver(ModuleType):
    """Fake `cuda.bindings.driver`; `codes` are the error codes or exceptions of calls that fail."""

    CUDA_VERSION = 13000

    def __init__(self, version: int = 13000, gpus: int = 2, **codes: int | Exception) -> None:
        super().__init__("cuda.bindings.driver")
        self.calls: list[str] = []
        values: dict[str, tuple[Any, ...]] = {
            "cuDriverGetVersion": (version,),
            "cuDeviceGetCount": (gpus,),
            "cuDeviceGetName": (b"Fake GPU\0   ",),
            "cuMemGetInfo": (3 * MIB, 8 * MIB),
        }
        for name in ("CUevent_flags", "CUstream_flags", "CUctx_flags", "CUdevice_attribute"):
            setattr(self, name, _AnyNumber())
        for name in _CALLS.split():
            setattr(self, name, self._function(name, codes.get(name, 0), values.get(name, (1,))))

    def cuGetErrorString(self, code: int) -> tuple[int, bytes]:  # noqa: N802 - the driver's name
        return 0, {100: b"no CUDA-capable device is detected"}.get(code, b"words of the driver")

    def _function(self, name: str, code: int | Exception, values: tuple[Any, ...]) -> Any:
        def function(*_: object) -> tuple[Any, ...]:
            self.calls.append(name)
            if isinstance(code, Exception):
                raise code
            nothing = name in {"cuCtxPushCurrent", "cuInit", "cuDevicePrimaryCtxSetFlags"}
            return (code,) if nothing else (code, *values)

        function.__name__ = name
        return function


class _AnyNumber:
    def __getattr__(self, name: str) -> int:
        return 1


_CALLS = (
    "cuInit cuDriverGetVersion cuDeviceGetCount cuDeviceGet cuDeviceGetName cuDeviceTotalMem "
    "cuDeviceGetAttribute cuDevicePrimaryCtxSetFlags cuDevicePrimaryCtxRetain cuCtxPushCurrent "
    "cuCtxPopCurrent cuMemAlloc cuMemFree cuMemHostAlloc cuMemFreeHost cuMemGetInfo cuEventCreate "
    "cuEventDestroy cuEventQuery cuStreamCreate cuStreamDestroy"
)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeDriver]:
    def use(**how: Any) -> FakeDriver:
        driver, bindings = FakeDriver(**how), ModuleType("cuda.bindings")
        bindings.__dict__.update(__version__="13.0.0", driver=driver, __path__=[])
        cuda = ModuleType("cuda")
        cuda.__dict__.update(__path__=[], bindings=bindings)
        replace_modules(monkeypatch, cuda=cuda, cuda__bindings=bindings)
        monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)
        return driver

    return use


@pytest.mark.parametrize(
    ("driver", "line"),
    [
        ({"cuInit": RuntimeError("no libcuda")}, "NVIDIA driver .libcuda. not found"),
        ({"cuInit": 100}, "no usable NVIDIA GPU found"),
        ({"gpus": 0}, "no usable NVIDIA GPU found"),
        ({"cuInit": 999}, "CUDA cannot start .words of the driver.: restart"),
        ({"version": 12020}, "supports CUDA 12.2 and cuda-bindings 13.0.0 needs CUDA 13: update"),
        ({"version": 12020, "cuInit": 803}, "supports CUDA 12.2"),
        ({"cuDeviceTotalMem": RuntimeError("no function")}, "too old for cuDeviceTotalMem: upd"),
        ({"cuDevicePrimaryCtxRetain": 46}, "failed in cuDevicePrimaryCtxRetain: words of the d"),
        ({"cuDevicePrimaryCtxRetain": 2}, "out of memory in cuDevicePrimaryCtxRetain: close"),
    ],
)
def test_a_driver_that_fails_gets_its_line(
    fake: Callable[..., FakeDriver], driver: dict[str, Any], line: str
) -> None:
    fake(**driver)
    with pytest.raises(BackendError, match=line) as caught:
        load_cuda(prefer="cuda-bindings")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("index", [2, -1])
def test_a_gpu_that_is_not_there_is_refused(fake: Callable[..., FakeDriver], index: int) -> None:
    fake()
    with pytest.raises(UsageError, match=r"no GPU -?\d; available: 0 \(Fake GPU\), 1 \(Fake"):
        load_cuda(index, prefer="cuda-bindings")


def test_flags_are_set_before_the_context_and_may_be_refused(
    fake: Callable[..., FakeDriver],
) -> None:
    driver = fake(cuDevicePrimaryCtxSetFlags=708)
    assert load_cuda(prefer="cuda-bindings").name == "Fake GPU"
    calls = driver.calls
    assert calls.index("cuDevicePrimaryCtxSetFlags") < calls.index("cuDevicePrimaryCtxRetain")


def test_memory_that_runs_out_says_how_much(fake: Callable[..., FakeDriver]) -> None:
    driver = fake(cuMemAlloc=2, cuMemHostAlloc=2)
    cuda = load_cuda(prefer="cuda-bindings")
    with pytest.raises(OutOfMemoryError, match=r"allocate 5 MiB of GPU memory .3 MiB free.: cl"):
        cuda.alloc_device(5 * MIB)
    with pytest.raises(OutOfMemoryError, match="cannot allocate 7 MiB of page-locked memory"):
        cuda.alloc_pinned(7 * MIB)
    assert driver.calls.count("cuCtxPushCurrent") == driver.calls.count("cuCtxPopCurrent")


# --- PyCUDA's rules ---


class FakePyCuda(ModuleType):
    """Fake `pycuda.driver`: making and freeing objects needs a context on the thread's stack."""

    Error = type("Error", (Exception,), {})
    MemoryError = type("MemoryError", (Error,), {})
    event_flags = SimpleNamespace(BLOCKING_SYNC=1, DISABLE_TIMING=2)
    ctx_flags = SimpleNamespace(SCHED_BLOCKING_SYNC=4)
    device_attribute = SimpleNamespace(COMPUTE_CAPABILITY_MAJOR=8, COMPUTE_CAPABILITY_MINOR=9)

    def __init__(self, starts: str = "", version: int = 13000) -> None:
        super().__init__("pycuda.driver")
        self.handle, self.local, self.died = 1, threading.local(), {"inside": 0, "outside": 0}
        self.starts, self.version = starts, version
        fake = self

        class Thing:
            """A stream, an event or memory."""

            handle, ctypes = 77, SimpleNamespace(data=4096)

            def __init__(self, *_: object) -> None:
                assert fake.depth(), "made outside the context"

            def __int__(self) -> int:
                return 512

            def __del__(self) -> None:
                fake.died["inside" if fake.depth() else "outside"] += 1

        self.Stream = self.Event = self.thing = Thing

    def init(self) -> None:
        if self.starts:
            raise self.Error(f"cuInit failed: {self.starts}")

    def mem_alloc(self, nbytes: int, *_: object) -> object:
        if nbytes > MIB:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        return self.thing()

    pagelocked_empty = mem_alloc

    def mem_get_info(self) -> tuple[int, int]:
        return 3 * MIB, 8 * MIB

    def get_version(self) -> tuple[int, int, int]:
        return 13, 0, 0

    def get_driver_version(self) -> int:
        return self.version

    def Device(self, index: int) -> "FakePyCuda":  # noqa: N802 - PyCUDA's name
        return self

    Device.count = lambda: 1  # type: ignore[attr-defined]

    def name(self) -> str:
        return "Fake GPU"

    def total_memory(self) -> int:
        return 8 * MIB

    def get_attribute(self, kind: int) -> int:
        return kind

    def retain_primary_context(self) -> "FakePyCuda":
        return self

    def depth(self) -> int:
        return getattr(self.local, "depth", 0)

    def push(self) -> None:
        self.local.depth = self.depth() + 1

    def pop(self) -> None:
        self.local.depth -= 1

    def detach(self) -> None: ...


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakePyCuda]:
    def use(**how: Any) -> FakePyCuda:
        driver, package = FakePyCuda(**how), ModuleType("pycuda")
        package.__dict__.update(VERSION_TEXT="2026.1", driver=driver, __path__=[])
        replace_modules(monkeypatch, pycuda=package, pycuda__driver=driver)
        with_pycuda = importlib.import_module("vsr.inference.cuda.pycuda")
        library = SimpleNamespace(
            cuDeviceGet=lambda *_: 0,
            cuDevicePrimaryCtxSetFlags_v2=lambda *_: 0,
            cuCtxSetCurrent=lambda _: 0,
        )
        monkeypatch.setattr(with_pycuda, "_libcuda", lambda: library)
        return driver

    return use


def test_pycuda_is_taken_where_it_alone_is_installed(
    pycuda: Callable[..., FakePyCuda], monkeypatch: pytest.MonkeyPatch
) -> None:
    pycuda()
    monkeypatch.delenv("VSR_CUDA", raising=False)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    cuda = load_cuda()
    assert (cuda.library, cuda.name, cuda.driver) == ("PyCUDA 2026.1", "Fake GPU", "13.0")
    assert (cuda.compute_capability, cuda.can_capture) == ((8, 9), False)


def test_pycuda_objects_die_inside_the_context_on_any_thread(
    pycuda: Callable[..., FakePyCuda], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = pycuda()
    monkeypatch.setenv("VSR_CUDA", "pycuda")
    cuda = load_cuda()
    things: list[Any] = [
        cuda.new_stream(),
        cuda.new_event(),
        cuda.alloc_pinned(64),
        cuda.alloc_device(64),
    ]
    thread = threading.Thread(target=things.clear)
    thread.start()
    thread.join()
    assert driver.died == {"inside": 4, "outside": 0}
    buffer = cuda.alloc_device(64)
    buffer.close()
    buffer.close()
    assert driver.died == {"inside": 5, "outside": 0}
    cuda.activate()
    assert driver.depth() == 0, "a thread that ends with a context on the stack aborts the process"


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"starts": "no CUDA-capable device is detected"}, "no usable NVIDIA GPU found"),
        ({"starts": "system has unsupported display driver / cuda"}, "different versions: restart"),
        ({"version": 12040}, "supports CUDA 12.4 and PyCUDA 2026.1 needs CUDA 13"),
    ],
)
def test_pycuda_that_does_not_start_gets_its_line(
    pycuda: Callable[..., FakePyCuda], how: dict[str, Any], line: str
) -> None:
    pycuda(**how)
    with pytest.raises(BackendError, match=line):
        load_cuda(prefer="pycuda")


def test_pycuda_without_memory_graphs_or_such_a_gpu(pycuda: Callable[..., FakePyCuda]) -> None:
    pycuda()
    cuda = load_cuda(prefer="pycuda")
    with pytest.raises(OutOfMemoryError, match=r"cannot allocate 5 MiB of GPU memory .3 MiB free"):
        cuda.alloc_device(5 * MIB)
    with pytest.raises(OutOfMemoryError, match="cannot allocate 5 MiB of page-locked memory"):
        cuda.alloc_pinned(5 * MIB)
    with pytest.raises(BackendError, match="PyCUDA cannot capture CUDA graphs"):
        cuda.new_stream().begin_capture()
    with pytest.raises(UsageError, match=r"no GPU 1; available: 0 \(Fake GPU\)"):
        load_cuda(1, prefer="pycuda")


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("libcuda.so.1: cannot open shared object file", "NVIDIA driver .libcuda. not found"),
        ("undefined symbol: cuCtxCreate_v4", "PyCUDA cannot be loaded .undefined symbol"),
    ],
)
def test_pycuda_that_cannot_be_imported_gets_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: str, line: str
) -> None:
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    (tmp_path / "pycuda" / "driver.py").write_text(f"raise ImportError({reason!r})\n")
    replace_modules(monkeypatch)
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)  # is undone even for a new name
        del sys.modules[name]
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=line):
        load_cuda(prefer="pycuda")
