"""Tests of the TensorRT backend on a GPU simulated in host memory, and marked `gpu`, a real one."""

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest

from tests.gpu_memory import free_memory
from tests.host_gpu import (
    COLOUR,
    CPU,
    SIZE,
    Machine,
    cubic,
    equal,
    machine,
    noise,
    right,
    stream,
)
from vsr.errors import BackendError, UsageError, VsrError
from vsr.inference import models, tiles
from vsr.inference.backend import Backend, load_backend
from vsr.inference.cuda import load_cuda
from vsr.inference.models import Model
from vsr.inference.tensorrt import backend as tensorrt
from vsr.inference.tensorrt.backend import TensorRtBackend, check_gpu
from vsr.inference.tensorrt.builder import Builder, Gpu, equivalent_forms
from vsr.inference.tensorrt.cache import EngineCache
from vsr.inference.tensorrt.library import BuildOptions, Library, Sizes, load_library
from vsr.inference.upscaler import Upscaler
from vsr.media.colour import Colour
from vsr.media.frame import Frame, Planes, now
from vsr.media.plane_format import PlaneFormat
from vsr.network.graph import NetworkFacts, PlaneGraph, bicubic_network

without_gpu = pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    return machine(tmp_path)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# ---- the backend


@pytest.fixture
def backend(host: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TensorRtBackend:
    return over(host, monkeypatch)


def over(host: Machine, monkeypatch: pytest.MonkeyPatch) -> TensorRtBackend:
    monkeypatch.setattr(tensorrt, "load_library", lambda _: host.library)
    monkeypatch.setattr(tensorrt, "load_cuda", lambda _: host.cuda)
    return TensorRtBackend(host.library.name, None)


def entries() -> list[str]:
    return [entry.path.name for entry in EngineCache().entries()]


def test_an_engine_is_built_once_and_then_found(
    backend: TensorRtBackend, host: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert backend.device == "NVIDIA GeForce RTX 3080 (sm86, TensorRT 11.4.0.106)"
    for _ in range(3):
        engine = backend.compile(cubic(), SIZE)
        assert equal(engine.submit(noise(5)).result(), right(cubic(), noise(5)))
    assert host.trt.builds == 1
    assert caplog.text.count("building the engine of cubic-x2 for 48x32 and caching it") == 1
    assert entries() == ["cubic-x2-fp32-full-48x32-tensorrt-sm86-nvidia-geforce-rtx-3080.engine"]


@pytest.mark.parametrize("bits", [8, 16])
def test_full_planes_of_any_depth_go_through(backend: TensorRtBackend, bits: int) -> None:
    """16-bit R, G and B are pairs of bytes inside the engine and uint16 outside."""
    form = PlaneFormat(bits=bits, chroma_x=1, chroma_y=1)
    graph = replace(cubic(), planes=form, colour=Colour(matrix=0, full_range=True))
    rng = np.random.default_rng(bits)
    g, b, r = rng.integers(0, 2**bits, (3, *SIZE[::-1]), dtype=form.dtype)
    result = backend.compile(graph, SIZE).submit((g, b, r)).result()
    assert {plane.dtype for plane in result} == {form.dtype}
    assert equal(result, right(graph, (g, b, r)))


def test_an_engine_for_a_range_is_used_for_the_even_sizes_in_it(
    backend: TensorRtBackend, host: Machine
) -> None:
    sizes = Sizes(min_size=(32, 32), opt_size=SIZE, max_size=(64, 64))
    gpu = Gpu(name=host.cuda.name, target="sm86")
    Builder(host.library).build(cubic(), BuildOptions(sizes=sizes), gpu)
    for size, builds in (((64, 40), 1), ((33, 33), 2), ((66, 40), 3)):
        engine = backend.compile(cubic(), size)
        assert equal(engine.submit(noise(1, size)).result(), right(cubic(), noise(1, size)))
        assert host.trt.builds == builds, size


def test_an_engine_of_another_gpu_is_not_used(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    over(host, monkeypatch).compile(cubic(), SIZE)
    for name, capability in (("NVIDIA A10", (8, 6)), ("NVIDIA L4", (8, 9))):
        host.cuda.name, host.cuda.compute_capability = name, capability
        over(host, monkeypatch).compile(cubic(), SIZE)
    assert host.trt.builds == 3
    assert len(entries()) == 3


def test_an_engine_that_no_longer_loads_is_rebuilt_with_a_word(
    backend: TensorRtBackend, host: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    backend.compile(cubic(), SIZE)
    (entry,) = EngineCache().entries()
    host.trt.broken_plans.add(EngineCache().load(entry))
    built = host.trt.Builder

    def newer(logger: Any) -> Any:
        builder = built(logger)
        build = builder.build_serialized_network
        builder.build_serialized_network = lambda *args: build(*args).replace(b"plan{", b"plan {")
        return builder

    host.trt.Builder = newer  # type: ignore[method-assign]
    engine = backend.compile(cubic(), SIZE)
    assert equal(engine.submit(noise(5)).result(), right(cubic(), noise(5)))
    assert "cannot load the cached engine (TensorRT 11.4.0.106 cannot load" in caplog.text
    assert host.trt.builds == 2
    backend.compile(cubic(), SIZE)
    assert host.trt.builds == 2


def test_a_device_that_fails_costs_no_engine(
    backend: TensorRtBackend, host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates an illegal memory access, after which nothing works until the process ends."""
    backend.compile(cubic(), SIZE)

    def fail() -> None:
        raise BackendError("CUDA failed: an illegal memory access was encountered")

    with monkeypatch.context() as broken:
        broken.setattr(host.cuda, "new_stream", fail)
        with pytest.raises(BackendError, match="illegal memory access"):
            backend.compile(cubic(), SIZE)
    assert host.trt.builds == 1
    assert backend.is_built(cubic(), SIZE)
    assert len(entries()) == 1


def test_an_engine_that_does_not_load_even_when_new_is_an_error(
    backend: TensorRtBackend, host: Machine
) -> None:
    backend.compile(cubic(), SIZE)
    (entry,) = EngineCache().entries()
    host.trt.broken_plans.add(EngineCache().load(entry))
    with pytest.raises(BackendError, match="cannot load this engine: Serialization assertion"):
        backend.compile(cubic(), SIZE)
    assert host.trt.builds == 2


def test_a_damaged_engine_is_rebuilt_with_a_word(
    backend: TensorRtBackend, host: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    backend.compile(cubic(), SIZE)
    (entry,) = EngineCache().entries()
    entry.path.write_bytes(entry.path.read_bytes()[:-7])
    engine = backend.compile(cubic(), SIZE)
    assert equal(engine.submit(noise(5)).result(), right(cubic(), noise(5)))
    assert "is truncated" in caplog.text
    assert host.trt.builds == 2


GROUPED = """<ir_version: 8, opset_import: ["" : 17]>
a (float[N,3,H,W] lr) => (float[N,3,sH,sW] sr)
<float[12,1,1,1] w = {1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0}> {
    four = Conv <group = 3> (lr, w)
    sr = DepthToSpace <blocksize = 2, mode = "CRD"> (four)
}"""
"""Network that repeats each pixel 2x2, with one group per colour."""


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("faster", ["grouped", "dense"])
def test_grouped_convolutions_are_run_in_the_faster_form(
    faster: str, ahead: bool, backend: TensorRtBackend, host: Machine,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Both forms are timed once, by the first run, even if both were built ahead of time."""
    caplog.set_level(logging.DEBUG)
    facts = NetworkFacts(scale=2, colour="rgb")
    network = onnx.parser.parse_model(GROUPED)
    graph = PlaneGraph(network=network, facts=facts, colour=COLOUR, label="grouped-x2")
    host.trt.slow = lambda model: 0.01 if (b"dense" in model) == (faster == "grouped") else 0.0
    if ahead:
        gpu = Gpu(name=host.cuda.name, target="sm86")
        options = BuildOptions(sizes=Sizes.fixed(SIZE))
        for form in equivalent_forms(graph):
            Builder(host.library).build(form, options, gpu)
    result = backend.compile(graph, SIZE).submit(noise(3)).result()
    assert max(int(np.abs(a.astype(int) - b).max()) for a, b in
               zip(result, right(graph, noise(3)), strict=True)) <= 1  # fmt: skip
    slower = {e.path.name for e in EngineCache().entries() if e.facts.get("slower_on")}
    (kept,) = set(entries()) - slower
    assert kept.startswith("grouped-x2-dense-" if faster == "dense" else "grouped-x2-fp32-")
    assert [e.facts["slower_on"] for e in EngineCache().entries() if e.path.name in slower] == [
        [host.cuda.name]
    ]
    backend.compile(graph, SIZE)
    assert host.trt.builds == 2
    assert caplog.text.count(" ms") == 1, "timed once"


def test_a_timing_cache_makes_the_next_build_quicker(
    backend: TensorRtBackend, host: Machine
) -> None:
    given: list[bytes] = []
    built = host.trt.Builder

    def watched(logger: Any) -> Any:
        builder = built(logger)
        config = builder.create_builder_config()
        start = config.create_timing_cache

        def create(data: bytes) -> Any:
            given.append(data)
            return start(data)

        config.create_timing_cache = create
        return builder

    host.trt.Builder = watched  # type: ignore[method-assign]
    for size in (SIZE, (64, 48)):
        backend.compile(cubic(), size)
    assert given == [b"", b"timings"]


def test_the_kernels_of_rtx_are_kept_beside_the_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = over(machine(tmp_path, rtx=True), monkeypatch)
    backend.compile(cubic(), SIZE)
    assert entries() == ["cubic-x2-fp32-full-48x32-tensorrt-rtx-sm86.engine"]
    kept = EngineCache().folder / "runtime-11.4.0.106-sm86.cache"
    assert kept.read_bytes() == b"kernels"


# ---- an upscaler on the backend


def frames(count: int, size: tuple[int, int]) -> Iterator[Frame | str]:
    for k in range(count):
        yield Frame(planes=noise(k, size), index=k, pts=k, time_base=Fraction(1, 25), duration=1)
        yield from (f"packet {k}.{j}" for j in range(3 * (k % 3)))


def model(small_tiles: bool = True) -> Model:
    facts = NetworkFacts(scale=2, colour="y")
    network = bicubic_network(2)
    return Model(name="cubic", facts=facts, radius=2, network=network, small_tiles=small_tiles)


def same(backend: Backend, size: tuple[int, int], count: int, batch: int) -> Upscaler:
    """Assert that the output equals that of OpenVINO; return the upscaler."""
    wanted = Upscaler(model(), CPU, COLOUR, size)
    found = Upscaler(model(), backend, COLOUR, size, batch)
    pairs = zip(
        wanted.process(frames(count, size)), found.process(frames(count, size)), strict=True
    )
    for a, b in pairs:
        if isinstance(a, str) or isinstance(b, str):
            assert a == b
        else:
            assert (a.index, a.rung) == (b.index, b.rung)
            assert equal(a.planes, b.planes)
            assert 0 < b.stamps.infer_start <= b.stamps.infer_end <= now()
    return found


@pytest.mark.parametrize("batch", [1, 4])
def test_the_upscaler_makes_what_openvino_makes(batch: int, backend: TensorRtBackend) -> None:
    assert same(backend, SIZE, 30, batch).tiles == 1


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("size", [(144, 96), (145, 97)])
def test_tiles_leave_no_trace(
    size: tuple[int, int], batch: int, backend: TensorRtBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "MAX_TILE_PIXELS", 80 * 64)
    assert same(backend, size, 4, batch).tiles > 1


def test_packets_between_frames_do_not_exhaust_a_batch(backend: TensorRtBackend) -> None:
    """After many packets, the upscaler waits for a picture whose batch is not full."""
    found = Upscaler(model(), backend, COLOUR, SIZE, 4)

    pictures = (item for item in frames(40, SIZE) if isinstance(item, Frame))
    items = (item for frame in pictures for item in (frame, *["packet"] * 31))
    done = [
        (item.index, equal(item.planes, right(cubic(), noise(item.index))))
        for item in found.process(items)
        if isinstance(item, Frame)
    ]
    assert done == [(k, True) for k in range(40)]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("batch", [1, 4])
def test_openvino_goes_on_where_the_gpu_fails_for_good(
    batch: int, precision: str, backend: TensorRtBackend, host: Machine,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Simulates an illegal memory access: no picture is lost, no engine is deleted or built."""
    backend.compile(replace(model(), precision="fp32").graph(COLOUR), SIZE, batch)  # is cached
    found = Upscaler(
        replace(model(), precision=precision), backend, COLOUR, SIZE, batch, fall_back=True
    )
    builds, copies, copy = host.trt.builds, iter(range(1000)), host.cuda.copy_in

    def fail(*_: object) -> None:
        raise BackendError("CUDA failed in cuMemcpyHtoDAsync: an illegal memory access")

    def dying(*arguments: Any) -> None:
        if next(copies) < 6:
            copy(*arguments)
            return
        monkeypatch.setattr(host.cuda, "synchronize", fail)
        host.trt.broken_plans |= {EngineCache().load(e) for e in EngineCache().entries()}
        fail()

    monkeypatch.setattr(host.cuda, "copy_in", dying)
    done = list(found.process(frames(40, SIZE)))
    for before, after in zip(frames(40, SIZE), done, strict=True):
        if isinstance(before, str) or isinstance(after, str):
            assert after == before
            continue
        assert after.index == before.index
        pairs = zip(after.planes, right(cubic(), before.planes), strict=True)
        assert max(int(np.abs(a.astype(int) - b).max()) for a, b in pairs) <= 1  # fp16 rounding
    assert caplog.messages[-1].endswith(": using cubic on openvino in fp32")
    assert host.trt.builds == builds
    assert len(entries()) == builds


def test_without_memory_smaller_batches_and_then_tiles_are_taken(
    backend: TensorRtBackend, host: Machine
) -> None:
    host.trt.no_memory = 2
    upscaler_ = Upscaler(model(), backend, COLOUR, (320, 192), 4)
    assert upscaler_.tiles > 1
    assert host.trt.no_memory == 0
    (result,) = upscaler_.process(item for item in frames(1, (320, 192)))
    assert isinstance(result, Frame)
    assert equal(result.planes, right(cubic(), noise(0, (320, 192))))


def _in_half(network: bytes) -> bool:
    half = onnx.TensorProto.FLOAT16
    weights = onnx.load_model_from_string(network).graph.initializer
    return any(weight.data_type == half for weight in weights)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("next_way", ["tensorrt in fp32", "openvino in fp32"])
def test_an_engine_that_makes_no_pictures_is_replaced_while_others_are_under_way(
    next_way: str, batch: int, backend: TensorRtBackend, host: Machine,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    to_openvino = next_way.startswith("openvino")
    host.trt.flips = lambda graph: 255 if to_openvino or _in_half(graph) else 0  # inverts
    noisy = [replace_luma(noise(k)) for k in range(40)]
    found = Upscaler(replace(model(), precision="fp16"), backend, COLOUR, SIZE, batch)
    items = [
        Frame(planes=planes, index=k, pts=k, time_base=Fraction(1, 25), duration=1)
        for k, planes in enumerate(noisy)
    ]
    done = [
        (f.index, equal(f.planes, right(cubic(), noisy[f.index]))) for f in found.process(items)
    ]
    assert f"): using cubic on {next_way}" in caplog.text
    assert done == [(k, True) for k in range(40)]


def replace_luma(planes: Planes) -> Planes:
    """Return a darker picture, which differs strongly from its negative."""
    return planes[0] // 4, planes[1], planes[2]


# ---- choice of GPU and library


@pytest.mark.parametrize(
    ("name", "capability", "rtx", "words"),
    [
        ("NVIDIA GeForce GTX 1080", (6, 1), True, "GTX 1080 (sm61) is too old for TensorRT-RTX"),
        ("NVIDIA GeForce GTX 1080", (6, 1), False, "GTX 1080 (sm61) is too old for TensorRT 11"),
        ("Tesla V100-SXM2-16GB", (7, 0), False, "(sm70) is too old for TensorRT 11"),
        ("NVIDIA H200", (9, 0), True, "does not support NVIDIA H200 (sm90); supported: sm75, sm80"),
        ("NVIDIA B200", (10, 0), True, "does not support NVIDIA B200 (sm100); supported: sm75"),
        ("Orin", (8, 7), True, "does not support Orin (sm87); supported:"),
        ("NVIDIA H200", (9, 0), False, ""),
        ("NVIDIA GeForce GTX 1650", (7, 5), True, ""),
        ("NVIDIA GeForce RTX 5090", (12, 0), True, ""),
        ("NVIDIA A100", (8, 0), True, ""),
    ],
)
def test_a_gpu_that_the_library_does_not_run_on_is_named(
    name: str, capability: tuple[int, int], rtx: bool, words: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    host = machine(tmp_path, rtx)
    host.cuda.name, host.cuda.compute_capability = name, capability
    gpu = Gpu(name=name, target=f"sm{capability[0]}{capability[1]}")
    if not words:
        check_gpu(host.library, gpu, capability)
        assert over(host, monkeypatch).device.startswith(name)
        return
    for check in (
        lambda: check_gpu(host.library, gpu, capability), lambda: over(host, monkeypatch)
    ):  # fmt: skip
        with pytest.raises(BackendError) as caught:
            check()
        text = str(caught.value)
        assert words in text
        assert "\n" not in text
        assert "--backend openvino" in text


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("device", ["CPU", "-1", "0.5", "²"])
def test_a_device_that_is_no_number_is_refused(name: str, device: str) -> None:
    with pytest.raises(UsageError, match=f"must be a GPU number for {name}, not '{device}'"):
        load_backend(name, device)


@pytest.fixture
def _no_libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    load_library.cache_clear()
    yield
    load_library.cache_clear()


@pytest.mark.usefixtures("_no_libraries")
def test_a_missing_library_is_told_with_the_command_that_installs_it() -> None:
    for name, line in (
        (
            "tensorrt",
            "pip install 'vsr-stream[tensorrt]' --extra-index-url https://pypi.nvidia.com",
        ),
        ("tensorrt-rtx", "pip install 'vsr-stream[tensorrt-rtx]'"),
    ):
        with pytest.raises(BackendError) as caught:
            load_backend(name)
        assert str(caught.value) == f"{name} is not installed: {line}"


def test_a_library_that_is_broken_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates `tensorrt` without its shared libraries."""
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.11: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    load_library.cache_clear()
    with pytest.raises(BackendError, match=r"^tensorrt cannot be loaded \(libnvinfer.so.11: .*pip"):
        load_library("tensorrt")


@pytest.mark.usefixtures("_no_libraries")
def test_auto_is_openvino_without_a_word_where_no_gpu_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vsr.inference.backend._NVIDIA_DRIVER_FILES", ("/no/such/file",))
    assert load_backend().name == load_backend("auto", "cpu").name == "openvino"
    assert caplog.text == ""


@pytest.mark.usefixtures("_no_libraries")
def test_auto_says_why_a_gpu_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vsr.inference.backend._NVIDIA_DRIVER_FILES", ("/dev/null",))
    assert load_backend().name == "openvino"
    assert "cannot use the NVIDIA GPU (tensorrt" in caplog.text
    assert "pip install" in caplog.text
    caplog.clear()
    assert load_backend("auto", "CPU").name == "openvino"
    assert caplog.text == ""


def test_auto_takes_tensorrt_before_rtx_where_both_are(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsr.inference.backend._NVIDIA_DRIVER_FILES", ("/dev/null",))
    monkeypatch.setattr(tensorrt, "load_cuda", lambda _: host.cuda)
    found = {"tensorrt": host.library, "tensorrt-rtx": machine(host.folder, rtx=True).library}

    def load(name: str) -> Library:
        if name not in found:
            raise BackendError(f"{name} is not installed")
        return found[name]

    monkeypatch.setattr(tensorrt, "load_library", load)
    assert load_backend().name == "tensorrt"
    del found["tensorrt"]
    assert load_backend("auto", "0").name == "tensorrt-rtx"


def test_an_unknown_backend_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="'cuda'; known: auto, openvino, tensorrt, tensorrt-rtx"):
        load_backend("cuda")


# ---- TensorRT-RTX itself, without a driver


@without_gpu
def test_without_a_driver_an_engine_is_not_loaded_and_that_is_said() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    library = load_library("tensorrt-rtx")
    options = BuildOptions(sizes=Sizes.fixed(SIZE), targets=("sm86",))
    plan = library.build(cubic().onnx(SIZE), options).plan
    assert library.why_invalid(plan) == "NVIDIA driver or GPU not found"
    assert library.why_invalid(plan[:64]) is not None
    assert library.why_invalid(b"") == library.why_invalid(b"rubbish" * 99) == "it is damaged"
    for data in (plan, b"rubbish" * 99, b""):
        with pytest.raises(BackendError, match=r"^TensorRT-RTX [\d.]+ cannot load this engine: "):
            library.deserialize(data)


@without_gpu
def test_without_a_driver_the_backend_says_so_in_one_line() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    with pytest.raises(VsrError) as caught:
        load_backend("tensorrt-rtx")
    text = str(caught.value)
    assert "\n" not in text
    assert "NVIDIA" in text or "pip install" in text
    assert "--backend openvino" in text


# ---- on a GPU: `pytest -m gpu tests/inference/test_tensorrt.py`


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def gpu(request: pytest.FixtureRequest) -> TensorRtBackend:
    """Return a backend on the first GPU, for each installed library that supports the GPU."""
    try:
        found = load_backend(request.param)
    except BackendError as exc:
        if "is not installed" in str(exc) or "does not support" in str(exc):
            pytest.skip(str(exc))
        raise
    assert isinstance(found, TensorRtBackend)
    return found


def built_in(name: str, precision: str) -> PlaneGraph:
    """Return the fp32 form of a network, which OpenVINO runs too, set to `precision`."""
    return replace(models.find(name, 2, CPU, "fp32").graph(Colour()), precision=precision)


def smooth(size: tuple[int, int], phase: float = 0.0) -> Planes:
    """Return a picture with edges and slopes, like those of videos."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    wave = 128 + 60 * np.sin(x / 5 + phase) * np.cos(y / 7) + 40 * ((x + 2 * y) % 32 > 15)
    luma = np.clip(wave, 16, 235).astype(np.uint8)
    return luma, luma[::2, ::2] // 2 + 64, 255 - luma[::2, ::2]


def differences(a: Planes, b: Planes) -> npt.NDArray[np.int16]:
    return np.concatenate(
        [np.abs(x.astype(np.int16) - y).ravel() for x, y in zip(a, b, strict=True)]
    )


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["bicubic", "c-dcscn", "carn-m"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gpu_an_engine_makes_what_openvino_makes(
    precision: str, name: str, gpu: TensorRtBackend
) -> None:
    picture = smooth((160, 96))
    result = gpu.compile(built_in(name, precision), (160, 96)).submit(picture).result()
    off = differences(result, right(built_in(name, "fp32"), picture))
    if precision == "fp32":
        assert off.max() <= 1
    else:
        assert off.mean() < 0.1


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [1, 4])
def test_gpu_two_hundred_frames_come_out_in_order(batch: int, gpu: TensorRtBackend) -> None:
    graph = built_in("c-dcscn", "fp16")
    alone = gpu.compile(graph, SIZE)
    ring = gpu.compile(graph, SIZE, batch)
    most = 0 if batch == 1 else 1  # batches may use other kernels
    for k, planes in stream(ring, 200):
        assert differences(planes, alone.submit(noise(k)).result()).max() <= most, k


@pytest.mark.gpu
def test_gpu_two_thousand_frames_leak_nothing(gpu: TensorRtBackend) -> None:
    cuda = load_cuda()
    engine = gpu.compile(built_in("c-dcscn", "fp16"), (320, 180))
    for _ in stream(engine, 50, (320, 180)):
        pass
    before = free_memory(cuda)
    for _ in stream(engine, 2000, (320, 180)):
        pass
    assert abs(before - free_memory(cuda)) <= 64 << 20


@pytest.mark.gpu
def test_gpu_engines_that_are_gone_leave_no_memory(gpu: TensorRtBackend) -> None:
    cuda, graph = load_cuda(), built_in("c-dcscn", "fp16")
    gpu.compile(graph, (320, 180))
    before = free_memory(cuda)
    for _ in range(10):
        gpu.compile(graph, (320, 180)).submit(noise(0, (320, 180))).result()
    assert before - free_memory(cuda) <= 64 << 20


@pytest.mark.gpu
def test_gpu_two_engines_share_a_card(gpu: TensorRtBackend) -> None:
    graphs = [built_in(name, "fp16") for name in ("bicubic", "c-dcscn")]
    engines = [gpu.compile(graph, (160, 96)) for graph in graphs]
    pictures = [smooth((160, 96), phase) for phase in range(8)]
    alone = [[e.submit(p).result() for p in pictures] for e in engines]
    for k, picture in enumerate(pictures):
        tickets = [engine.submit(picture) for engine in engines]
        for ticket, wanted in zip(tickets, alone, strict=True):
            assert equal(ticket.result(), wanted[k])


@pytest.mark.gpu
def test_gpu_the_context_is_shared_with_torch(gpu: TensorRtBackend) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA here")
    before = torch.arange(1 << 20, device="cuda")
    engine = gpu.compile(built_in("c-dcscn", "fp16"), (160, 96))
    picture = smooth((160, 96))
    wanted = engine.submit(picture).result()
    for _ in range(20):
        ticket = engine.submit(picture)
        before = before + 1
        assert equal(ticket.result(), wanted)
    assert int(before[0]) == 20
    assert int(before[-1]) == (1 << 20) + 19


@pytest.mark.gpu
def test_gpu_kernels_are_kept_for_the_next_start(gpu: TensorRtBackend) -> None:
    gpu.compile(built_in("bicubic", "fp16"), SIZE)
    names = {path.name.partition("-")[0] for path in EngineCache().folder.glob("*.cache")}
    assert names == {"runtime" if gpu.name == "tensorrt-rtx" else "timing"}
