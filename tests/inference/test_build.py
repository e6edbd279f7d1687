"""Tests of engines built without a GPU: networks, kernels, memory, the cache and messages."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from vsr.cli.main import main
from vsr.errors import BackendError, UsageError
from vsr.inference import models
from vsr.inference.tensorrt import prebuild
from vsr.inference.tensorrt.builder import (
    DEFAULT_TARGETS,
    Builder,
    Gpu,
    check_sizes,
    parse_sizes,
    rewrite_for_tensorrt,
)
from vsr.inference.tensorrt.cache import MAGIC, EngineCache, read_entry
from vsr.inference.tensorrt.library import RTX_TARGETS, BuildOptions, Library, Sizes, load_library
from vsr.inference.tensorrt.rtx_plan import PlanFacts, read_plan
from vsr.media.colour import Colour
from vsr.network.graph import PlaneGraph

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")

ROOT = Path(__file__).parents[2]
MEASURED_WITH = "1.7.1.116"
"""Release of TensorRT-RTX with which all figures here were measured."""
SLACK = 1.05
SMALL = Sizes.fixed((128, 96))
RANGE = Sizes(min_size=(64, 64), opt_size=(128, 96), max_size=(192, 128))
GEFORCE = Gpu(name="NVIDIA GeForce RTX 3080", target="sm86")
without_gpu = pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")


class Offline:
    """Runner that chooses precisions as `vsr build-engine` does, and fails if it runs a network."""

    def choose_precision(self, precision: str, has_int8: bool) -> str:
        return precision

    def run(self, model: bytes, inputs: object) -> list[object]:
        raise AssertionError("a built-in network needs no look")


def graph_of(name: str = "bicubic", scale: int = 2, precision: str = "fp16") -> PlaneGraph:
    return models.find(name, scale, Offline(), precision).graph(Colour())


@pytest.fixture(scope="module")
def rtx() -> Library:
    return load_library("tensorrt-rtx")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    """Return the cache that the command uses too."""
    return EngineCache(tmp_path / "cache" / "vsr" / "engines")


def built(library: Library, graph: PlaneGraph, sizes: Sizes, *targets: str) -> PlanFacts:
    onnx = graph.onnx(sizes.opt_size if sizes.is_fixed else None)
    return read_plan(library.build(onnx, BuildOptions(sizes=sizes, targets=targets)).plan)


# ---- every network

FORMS = {
    "fp32": (SMALL, "fp32"),
    "fp16": (SMALL, "fp16"),
    "free fp16": (RANGE, "fp16"),
    "free fp32": (RANGE, "fp32"),
}
"""All are built for scale 2; other scales skip the free sizes, which make no difference there."""
ALL_NETWORKS = bool(os.environ.get("VSR_ALL_NETWORKS"))
"""Whether to build networks that differ from another in weights alone: `-stream`, `-sharp`, and
pcarn-m at scales whose layers are those of carn-m."""


def _differs(name: str, scale: int) -> bool:
    weights_alone = name.endswith(("-stream", "-sharp")) or (name == "pcarn-m" and scale > 2)
    return ALL_NETWORKS or not weights_alone


LIMITS = {
    "bicubic-x2": [(6, 8.6), (7, 8.6), (7, 9.0), (6, 9.0)],
    "bicubic-x3": [(8, 9.0), (8, 8.8), (8, 9.4)],
    "bicubic-x4": [(6, 9.2), (6, 8.8), (6, 9.4)],
    "bicubic-x8": [(10, 11.5), (10, 10.0), (10, 11.8)],
    "c-dcscn-stream-x2": [(19, 23.3), (20, 15.9), (20, 23.5)],
    "c-dcscn-stream-x4": [(19, 23.3), (19, 15.9), (19, 23.5)],
    "c-dcscn-x2": [(19, 23.3), (20, 15.9), (20, 23.5), (19, 35.3)],
    "c-dcscn-x3": [(21, 23.3), (21, 15.9), (21, 23.5)],
    "c-dcscn-x4": [(19, 23.3), (19, 15.9), (19, 23.5)],
    "carn-m-x2": [(80, 44.0), (81, 30.5), (81, 44.0), (80, 88.1)],
    "carn-m-x3": [(80, 59.8), (81, 36.5), (81, 59.8)],
    "carn-m-x4": [(83, 122.7), (84, 66.1), (84, 122.7)],
    "carn-x2": [(62, 44.0), (63, 30.5), (63, 44.0), (62, 88.1)],
    "carn-x3": [(62, 59.8), (63, 36.5)],
    "carn-x4": [(64, 84.9), (65, 49.1)],
    "csrcnn-x8": [(164, 923.6), (166, 464.0)],
    "dcscn-stream-x2": [(19, 38.3), (20, 24.9), (20, 38.5)],
    "dcscn-stream-x4": [(19, 38.3), (19, 24.9), (19, 38.5)],
    "dcscn-x2": [(19, 38.3), (20, 24.9), (20, 38.5), (19, 68.4)],
    "dcscn-x3": [(21, 38.3), (21, 24.9), (21, 38.5)],
    "dcscn-x4": [(19, 38.3), (19, 24.9), (19, 38.5)],
    "pcarn-m-l1-x2": [(80, 47.2), (81, 32.1), (81, 47.2), (80, 94.4)],
    "pcarn-m-x2": [(80, 47.2), (81, 32.1), (81, 47.2), (80, 94.4)],
    "pcarn-m-x4": [(83, 125.8), (84, 67.6), (84, 125.8)],
    "rt-sharp-x2": [(16, 11.5), (17, 10.0), (17, 11.8)],
    "rt-sharp-x4": [(16, 11.5), (16, 10.0)],
    "rt-x2": [(16, 11.5), (17, 10.0), (17, 11.8), (16, 14.9)],
    "rt-x3": [(18, 11.5), (18, 10.0)],
    "rt-x4": [(16, 11.5), (16, 10.0)],
}
"""Measured kernels and MB of activations of each form; a failure prints the line to add."""
NETWORKS = [
    (name, scale)
    for name in models.names()
    for scale in models.scales(name)
    if _differs(name, scale)
]


@pytest.mark.parametrize(("name", "scale"), NETWORKS, ids=[f"{n}-x{s}" for n, s in NETWORKS])
def test_every_network_builds_for_every_geforce(name: str, scale: int, rtx: Library) -> None:
    """For fixed and free sizes, fp32 and fp16, kernels and memory stay within recorded limits."""
    twin = name.endswith(("-stream", "-sharp"))  # the same network with other weights
    found = []
    forms = list(FORMS.values())[: 1 if twin else 4 if scale == 2 else 2]
    for sizes, precision in forms:
        graph, _ = rewrite_for_tensorrt(graph_of(name, scale, precision))
        facts = built(rtx, graph, sizes, *DEFAULT_TARGETS)
        assert facts.targets == DEFAULT_TARGETS == ("sm75", "sm86", "sm89", "sm120")
        found.append((len(facts.programs[0].kernels), round(facts.activation_bytes / 1e6, 1)))
    record = f'"{name}-x{scale}": {found},'
    if rtx.version != MEASURED_WITH:
        pytest.skip(f"limits are for {MEASURED_WITH}; here: {record}")
    assert f"{name}-x{scale}" in LIMITS, f"add to LIMITS: {record}"
    for measured, most in zip(found, LIMITS[f"{name}-x{scale}"][: len(forms)], strict=True):
        assert measured[0] <= most[0] * SLACK, record
        assert measured[1] <= most[1] * SLACK, record


LIMITS_AT_360P = {
    "c-dcscn": (28, 94.8),
    "dcscn": (28, 201.7),
    "carn-m": (72, 333.5),
    "pcarn-m": (72, 362.1),
}
"""Kernels and MB of activations for x2 in fp16 on sm86 at 640x360."""


@pytest.mark.parametrize("name", LIMITS_AT_360P)
def test_kernels_and_memory_at_640x360(name: str, rtx: Library) -> None:
    if rtx.version != MEASURED_WITH:
        pytest.skip(f"limits are for {MEASURED_WITH}")
    graph, _ = rewrite_for_tensorrt(graph_of(name))
    facts = built(rtx, graph, Sizes.fixed((640, 360)), "sm86")
    kernels, megabytes = LIMITS_AT_360P[name]
    assert len(facts.programs[0].kernels) <= kernels * SLACK
    assert facts.activation_bytes / 1e6 <= megabytes * SLACK


@pytest.mark.parametrize(
    ("name", "precision", "memory", "fewer"),
    [("dcscn", "fp32", 0.7, 1), ("c-dcscn", "fp16", 0.45, 1), ("carn-m", "fp16", 0.55, -1)],
)
def test_rewrites_save_memory_and_kernels(
    name: str, precision: str, memory: float, fewer: int, rtx: Library
) -> None:
    """PReLUs need no separate kernels, channels are not copied, half precision adds two casts."""
    before = graph_of(name, 2, precision)
    after, notes = rewrite_for_tensorrt(before)
    assert notes
    plain, better = (built(rtx, form, Sizes.fixed((640, 360)), "sm86") for form in (before, after))
    assert better.activation_bytes <= memory * plain.activation_bytes
    assert len(better.programs[0].kernels) <= len(plain.programs[0].kernels) - fewer


# ---- errors with the library's own message


def refused(library: Library, model: bytes, **options: object) -> str:
    given: dict[str, object] = {"sizes": Sizes.fixed((64, 48)), "targets": ("sm86",), **options}
    with pytest.raises(BackendError) as caught:
        library.build(model, BuildOptions(**given))  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"TensorRT-RTX {library.version} ")
    return text


def network(body: str, size: str = "1,1,48,64") -> bytes:
    head = '<ir_version: 8, opset_import: ["" : 17, "custom" : 1]> a'
    text = f"{head} (float[{size}] x) => (float[{size}] y) {{ {body} }}"
    return onnx.parser.parse_model(text).SerializeToString()


@pytest.mark.parametrize("model", [b"garbage" * 10, graph_of().onnx((64, 48))[:-50]])
def test_garbage_is_refused_in_the_parsers_words(model: bytes, rtx: Library) -> None:
    assert "cannot read this network: " in (text := refused(rtx, model))
    assert "Failed to parse the ONNX model" in text


def test_an_unknown_operator_is_named(rtx: Library) -> None:
    text = refused(rtx, network("y = custom.Wobble (x)"))
    assert "cannot read this network: Wobble: " in text
    assert "Plugin not found" in text


def test_nothing_is_refused_in_the_builders_words(rtx: Library) -> None:
    assert "cannot build this engine: " in (text := refused(rtx, b""))
    assert "Network must have at least one output" in text


def test_free_sizes_without_a_range_are_refused_in_the_builders_words(rtx: Library) -> None:
    text = refused(rtx, network("y = Relu (x)", "1,1,H,W"))
    assert "no optimization profile has been defined" in text


def test_a_fault_is_not_told_of_the_build_before(rtx: Library) -> None:
    refused(rtx, b"")
    assert "Plugin not found" in refused(rtx, network("y = custom.Wobble (x)"))
    assert rtx.build(graph_of().onnx((64, 48)), BuildOptions(sizes=SMALL, targets=("sm86",))).plan
    assert rtx.error_lines == []


@pytest.mark.parametrize("target", ["sm90", "sm70", "sm100", "sm86a", "current", "86"])
def test_a_target_it_does_not_know_is_refused_with_those_it_does(target: str, rtx: Library) -> None:
    options = BuildOptions(sizes=SMALL, targets=("sm86", target))
    with pytest.raises(UsageError, match=f"cannot build for {target}; supported:") as caught:
        rtx.build(graph_of().onnx((128, 96)), options)
    assert str(caught.value).endswith(", ".join(RTX_TARGETS))


def test_the_list_of_targets_is_the_librarys_own(rtx: Library) -> None:
    if rtx.version != MEASURED_WITH:
        pytest.skip(f"the list is that of {MEASURED_WITH}")
    for target in RTX_TARGETS:
        assert built(rtx, graph_of(), Sizes.fixed((64, 48)), target).targets == (target,)
    named = {name.lower() for name in dir(rtx.trt.ComputeCapability) if name.startswith("SM")}
    for target in named - set(RTX_TARGETS):
        with pytest.raises(UsageError, match=f"cannot build for {target}"):
            built(rtx, graph_of(), Sizes.fixed((64, 48)), target)


def test_the_builder_tells_how_far_it_is_and_can_be_stopped(rtx: Library) -> None:
    steps: list[tuple[str, int, int]] = []

    def watch(phase: str, step: int, total: int) -> bool:
        steps.append((phase, step, total))
        return True

    options = BuildOptions(sizes=Sizes.fixed((64, 48)), targets=("sm86",))
    model = graph_of().onnx((64, 48))
    rtx.build(model, options, watch)
    assert len(steps) > 20
    assert any("Building engine" in phase for phase, _, _ in steps)
    assert all(1 <= step <= total for _, step, total in steps)

    for enough in (1, len(steps) // 2):
        left = iter(range(enough))
        with pytest.raises(BackendError, match=r"cannot build this engine: .*cancell?ed by user"):
            rtx.build(model, options, lambda *_: next(left, None) is not None)  # noqa: B023


def test_a_watcher_that_fails_stops_the_build_and_not_the_program(
    rtx: Library, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(phase: str, step: int, total: int) -> bool:
        raise BrokenPipeError("nobody reads")

    options = BuildOptions(sizes=Sizes.fixed((64, 48)), targets=("sm86",))
    with pytest.raises(BackendError, match="cannot build this engine"):
        rtx.build(graph_of().onnx((64, 48)), options, broken)
    assert "nobody reads" in capfd.readouterr().err


# ---- sizes


@pytest.mark.parametrize(
    ("only", "bounds", "words"),
    [
        (None, (None, None, None), "use --size WxH, or all of --min, --opt and --max"),
        (None, ("64x64", None, "128x128"), "use --size WxH, or all of"),
        ("64x64", ("64x64", "96x96", "128x128"), "use --size WxH, or all of"),
        ("64", (None, None, None), "invalid picture size '64': write it like 640x360"),
        ("64x", (None, None, None), "invalid picture size '64x'"),
        ("-64x64", (None, None, None), "invalid picture size '-64x64'"),
        ("6²x64", (None, None, None), "invalid picture size '6²x64'"),
        (None, ("64x64", "64", "128x128"), "invalid picture size '64'"),
        ("8x64", (None, None, None), "picture size 8x64 is outside 16x16 to 16384x16384"),
        ("64x99999", (None, None, None), "picture size 64x99999 is outside 16x16 to 16384x16384"),
        (None, ("64x64", "96x96", "127x128"), "must be even: 127x128 is not"),
        (None, ("64x65", "96x96", "128x128"), "must be even: 64x65 is not"),
        (None, ("64x64", "96x95", "128x128"), "must be even: 96x95 is not"),
        (None, ("64x64", "256x96", "128x128"), "--opt must be between --min and --max"),
        (None, ("128x128", "96x96", "64x64"), "--opt must be between --min and --max"),
        (None, ("64x64", "32x32", "64x64"), "--opt must be between --min and --max"),
    ],
)
def test_sizes_no_engine_can_have_are_refused(
    only: str | None, bounds: tuple[str | None, str | None, str | None], words: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        check_sizes(prebuild.parse_size_options(only, bounds))


def test_sizes_can_be_written_and_read() -> None:
    for sizes in (SMALL, RANGE, Sizes.fixed((33, 17))):
        check_sizes(sizes)
        assert parse_sizes(str(sizes)) == sizes
    assert prebuild.parse_size_options("640X360", (None, None, None)) == Sizes.fixed((640, 360))
    assert (
        str(prebuild.parse_size_options(None, ("64x64", "96x80", "128x96"))) == "64x64-96x80-128x96"
    )


# ---- finding engines


def find(
    builder: Builder, graph: PlaneGraph, size: tuple[int, int], target: str, batch: int = 1
) -> bool:
    gpu = Gpu(name=f"a GPU with {target}", target=target)
    found = builder.find([graph], size, batch, gpu)
    assert all(engine.cached and read_plan(engine.plan) for engine in found)
    return bool(found)


def test_an_engine_for_several_gpus_is_found_on_each_of_them_only(
    rtx: Library, cache: EngineCache
) -> None:
    builder, graph = Builder(rtx, cache), graph_of()
    engine = builder.build(graph, BuildOptions(sizes=SMALL, targets=("sm120", "sm86", "sm89")))
    assert engine.path.name.endswith("-128x96-tensorrt-rtx-sm86+sm89+sm120.engine")
    found = {t for t in RTX_TARGETS if find(builder, graph, (128, 96), t)}
    assert found == {"sm86", "sm89", "sm120"}
    assert not find(builder, graph, (96, 128), "sm86")
    assert not find(builder, graph, (128, 96), "sm86", batch=2)
    assert not find(builder, graph_of(precision="fp32"), (128, 96), "sm86")
    assert not find(builder, graph_of(scale=3), (128, 96), "sm86")
    assert not find(builder, replace(graph, colour=Colour(full_range=True)), (128, 96), "sm86")
    assert find(builder, replace(graph, label="by another name"), (128, 96), "sm86")


def test_an_engine_for_a_range_serves_the_even_sizes_in_it(
    rtx: Library, cache: EngineCache
) -> None:
    builder, graph = Builder(rtx, cache), graph_of()
    builder.build(graph, BuildOptions(sizes=RANGE, targets=("sm86",)))
    for size in (RANGE.min_size, RANGE.opt_size, RANGE.max_size, (66, 128), (192, 64)):
        assert find(builder, graph, size, "sm86")
    for size in ((62, 64), (64, 62), (194, 128), (192, 130), (65, 64), (64, 65), (129, 97)):
        assert not find(builder, graph, size, "sm86")


def test_an_engine_of_one_size_goes_before_one_for_a_range(
    rtx: Library, cache: EngineCache
) -> None:
    builder, graph = Builder(rtx, cache), graph_of()
    wide = Sizes(min_size=(16, 16), opt_size=(128, 96), max_size=(192, 128))  # sorts first by name
    for sizes in (wide, SMALL, RANGE):
        builder.build(graph, BuildOptions(sizes=sizes, targets=("sm86",)))
    (found,) = builder.find([graph], (128, 96), 1, GEFORCE)
    assert found.key.sizes == "128x96"


def test_engines_of_another_version_or_gpu_are_not_found(rtx: Library, cache: EngineCache) -> None:
    builder, graph = Builder(rtx, cache), graph_of()
    engine = builder.build(graph, BuildOptions(sizes=SMALL, targets=("sm86",)))
    for other in (replace(engine.key, version="1.0"), replace(engine.key, gpu="NVIDIA A10")):
        cache.clear()
        cache.get(other, lambda: (engine.plan, {}))
        assert builder.find([graph], (128, 96), 1, GEFORCE) == []
    cache.clear()
    cache.get(replace(engine.key, gpu=GEFORCE.name), lambda: (engine.plan, {}))
    assert builder.find([graph], (128, 96), 1, GEFORCE) != []


def change_header(path: Path, **values: object) -> None:
    line, _, plan = path.read_bytes().partition(b"\n")
    head = json.loads(line[len(MAGIC) :])
    head["key"].update(values)
    path.write_bytes(MAGIC + json.dumps(head).encode() + b"\n" + plan)


def _flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_flip, "its SHA-256 differs"),
        (lambda path: change_header(path, sizes="huge"), "invalid picture size 'huge'"),
        (lambda path: change_header(path, sizes=7), "its first line cannot be read"),
        (lambda path: path.write_bytes(b"plan"), "is not a vsr engine file"),
    ],
    ids=["flipped", "sizes", "types", "foreign"],
)
def test_a_damaged_engine_is_not_found_and_said(
    spoil: Callable[[Path], None], words: str, rtx: Library, cache: EngineCache,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    builder, graph = Builder(rtx, cache), graph_of()
    spoil(builder.build(graph, BuildOptions(sizes=SMALL, targets=("sm86", "sm89"))).path)
    assert builder.find([graph], (128, 96), 1, GEFORCE) == []
    assert words in caplog.text


# ---- the command


def vsr(*words: str) -> Result:
    return CliRunner().invoke(main, ["build-engine", *words])


def told(result: Result) -> str:
    """Return the only line of an error message."""
    (line,) = result.stderr.splitlines()
    assert line.startswith("vsr: error: ")
    assert result.stdout == ""
    return line


BICUBIC = ("--model", "bicubic", "--size", "64x48", "--target", "sm86")


def test_the_second_call_says_cached(cache: EngineCache) -> None:
    first, second = vsr(*BICUBIC), vsr(*BICUBIC)
    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    path = cache.folder / "bicubic-x2-fp16-64x48-tensorrt-rtx-sm86.engine"
    megabytes = read_entry(path).plan_bytes / 1e6
    assert re.fullmatch(
        rf"{re.escape(str(path))}  {megabytes:.1f} MB, built in \d+\.\d s\n", first.stdout
    )
    assert second.stdout == f"{path}  {megabytes:.1f} MB, cached\n"
    assert first.stderr == second.stderr == ""


def test_what_is_built_unasked(cache: EngineCache) -> None:
    result = vsr("--size", "64x48")
    assert result.exit_code == 0, result.output
    (entry,) = cache.entries()
    assert entry.key.label == f"{models.DEFAULT}-x2-fp16"
    assert entry.key.targets == DEFAULT_TARGETS
    assert set(read_plan(cache.load(entry)).targets) == set(DEFAULT_TARGETS)
    assert entry.facts["rewrites"] == list(rewrite_for_tensorrt(graph_of(models.DEFAULT))[1])
    assert entry.facts["seconds"] > 0


def test_the_plan_alone_can_be_written_to_a_file(tmp_path: Path, cache: EngineCache) -> None:
    target = tmp_path / "my.plan"
    for how in ("built in", "cached"):
        result = vsr(*BICUBIC, "-o", str(target))
        assert result.stdout.startswith(f"{target}  ")
        assert how in result.stdout
        assert read_plan(target.read_bytes()).targets == ("sm86",)
        (entry,) = cache.entries()
        assert cache.load(entry) == target.read_bytes()
        target.unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_an_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    result = vsr(*BICUBIC, "-o", str(tmp_path / "no" / "my.plan"))
    assert result.exit_code == 1
    assert told(result).endswith("no/my.plan: No such file or directory")


def test_list_and_clear() -> None:
    assert vsr("--list").stdout == "no engines in the cache\n"
    vsr(*BICUBIC)
    vsr("--model", "bicubic", "--min", "64x64", "--opt", "64x64", "--max", "96x96", "--batch", "2")
    header, *lines = vsr("--list").stdout.splitlines()
    assert header.split() == ["engine", "size", "runtime", "GPUs", "MB"]
    version = load_library("tensorrt-rtx").version
    single, ranged = (line.split() for line in lines)
    assert single[:-1] == ["bicubic-x2-fp16", "64x48", "tensorrt-rtx", version, "sm86"]
    assert ranged[1:4] == ["64x64-64x64-96x96", "x2", "tensorrt-rtx"]
    assert ranged[4:6] == [version, "sm75+sm86+sm89+sm120"]
    assert re.match(r"removed 2 engines, \d\.\d MB, from ", vsr("--clear").stdout)
    assert vsr("--list").stdout == "no engines in the cache\n"
    assert vsr("--clear").stdout.startswith("removed 0 engines, 0.0 MB")


def test_a_stale_engine_is_rebuilt_with_a_word(cache: EngineCache) -> None:
    vsr(*BICUBIC)
    (entry,) = cache.entries()
    change_header(entry.path, version="1.0.0.1")
    result = vsr(*BICUBIC)
    version = load_library("tensorrt-rtx").version
    assert "built in" in result.stdout
    assert result.stderr == (
        f"vsr: the cached engine {entry.path.name} does not fit (it was built by version 1.0.0.1, "
        f"this is version {version}): rebuilding it\n"
    )
    assert read_entry(entry.path).key.version == version


def test_an_engine_renamed_from_another_model_is_rebuilt_with_a_word(cache: EngineCache) -> None:
    vsr(*BICUBIC)
    vsr(*BICUBIC, "--scale", "3")
    two, three = (entry.path for entry in cache.entries())
    good = three.read_bytes()
    two.replace(three)
    result = vsr(*BICUBIC, "--scale", "3")
    assert "does not fit (it is an engine of bicubic-x2-fp16): rebuilding it" in result.stderr
    assert read_entry(three).key.label == "bicubic-x3-fp16"
    assert abs(len(good) - three.stat().st_size) < 8  # the header contains the build time


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("--target", "sm90"), 2, "cannot build for sm90; supported: sm75, sm80, sm86"),
        (("--target", "ampere"), 2, "invalid target 'ampere': use one like sm86, or 'current'"),
        (("--target", "sm8²"), 2, "invalid target 'sm8²'"),
        (("--precision", "int8"), 2, "model 'bicubic' has no int8 form: use fp32 or auto"),
        (("--scale", "5"), 2, "model 'bicubic' has no scale 5; it has: 2, 3, 4, 8"),
        (("--model", "best"), 2, "unknown model 'best'"),
        (("--model", "no.onnx"), 1, "cannot read the model no.onnx: No such file or directory"),
        (("--min", "64x64"), 2, "use --size WxH, or all of --min, --opt and --max"),
        (("--fused",), 2, "--fused requires --runtime tensorrt and a GPU"),
        (("--list", "--clear"), 2, "--list and --clear cannot be combined: use one"),
        (("--explain", "--onnx", "a.onnx"), 2, "--explain and --onnx cannot be combined"),
        (("--clear",), 2, "--model cannot be combined with --clear, which removes all engines"),
        (("--list",), 2, "--model cannot be combined with --list, which shows all engines"),
        (
            ("--explain", "-o", "a.plan"),
            2,
            "--output cannot be combined with --explain, which builds",
        ),
        (("--onnx", "a", "-o", "b"), 2, "--output cannot be combined with --onnx, which builds no"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(
    words: tuple[str, ...], code: int, line: str, cache: EngineCache
) -> None:
    runtime = ("--runtime", "tensorrt-rtx")
    result = vsr("--model", "bicubic", "--size", "64x48", *runtime, *words)
    assert line in told(result)
    assert result.exit_code == code
    assert list(cache.entries()) == []


@without_gpu
@pytest.mark.parametrize("extra", [(), ("--target", "sm86"), ("--explain",)])
def test_the_gpu_in_this_machine_is_missed_in_one_line(extra: tuple[str, ...]) -> None:
    result = vsr("--model", "bicubic", "--size", "64x48", "--target", "current", *extra)
    assert result.exit_code == 1
    assert re.search("NVIDIA (driver|GPU)|neither cuda-bindings nor PyCUDA", told(result))


def test_a_runtime_that_is_not_installed_is_told_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_library.cache_clear()
    for module in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    try:
        for runtime, line in (
            ("tensorrt", "tensorrt is not installed: pip install 'vsr-stream[tensorrt]' --extra"),
            (
                "tensorrt-rtx",
                "tensorrt-rtx is not installed: pip install 'vsr-stream[tensorrt-rtx]",
            ),
        ):
            result = vsr("--size", "64x48", "--runtime", runtime)
            assert (result.exit_code, line in told(result)) == (1, True)
        assert "is not installed: pip install" in told(vsr("--size", "64x48"))
        explained = vsr("--size", "64x48", "--explain").stdout
        assert "kernels and memory are unknown: tensorrt-rtx is not installed" in explained
    finally:
        load_library.cache_clear()


def test_explain_says_what_is_rewritten_and_what_it_gains(cache: EngineCache) -> None:
    words = ("--model", "dcscn", "--size", "160x96", "--target", "sm86", "--explain")
    result = vsr(*words)
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first == "dcscn-x2, fp16, 160x96"
    notes = [line.removeprefix("  rewritten: ") for line in lines if "rewritten" in line]
    assert notes == list(rewrite_for_tensorrt(graph_of("dcscn"))[1])
    table = {line[:26].strip(): line[26:].split() for line in lines[len(notes) :]}
    assert table[""] == ["before", "after"]
    assert list(table) == ["", "layers", "kernels", "activation memory, MB"]
    before, after = (float(cell) for cell in table["activation memory, MB"])
    assert 0 < after < 0.6 * before
    assert int(table["layers"][0]) < int(table["layers"][1])  # a PReLU becomes five nodes
    assert int(table["kernels"][1]) <= int(table["kernels"][0])
    assert list(cache.entries()) == []


def test_explain_says_that_nothing_is_rewritten() -> None:
    words = ("--model", "bicubic", "--precision", "fp32", "--size", "64x48", "--explain")
    assert "  rewritten: nothing\n" in vsr(*words).stdout


def test_nothing_but_errors_is_said_when_quiet(cache: EngineCache) -> None:
    vsr(*BICUBIC)
    (entry,) = cache.entries()
    _flip(entry.path)
    assert vsr(*BICUBIC, "--quiet").stderr == ""


def test_the_librarys_own_words_are_there_when_verbose() -> None:
    assert vsr(*BICUBIC, "--verbose").stderr.count("\n") > 10


# ---- third-party networks


def repeating(folder: Path, channels: int = 1, size: str = "H,W", out: str = "sH,sW") -> str:
    """Save a network that repeats each pixel 2x2, and return its path."""
    twice = "twice = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()"
    text = (
        f'<ir_version: 8, opset_import: ["" : 17]> a (float[N,{channels},{size}] lr) => '
        f'(float[N,{channels},{out}] sr) {{ {twice} sr = Resize <mode = "nearest"> (lr, , twice) }}'
    )
    path = folder / "repeating.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return str(path)


def test_a_network_from_outside_is_built(tmp_path: Path, cache: EngineCache) -> None:
    words = ("--model", repeating(tmp_path, 3), "--size", "64x48", "--target", "sm89")
    assert "built in" in vsr(*words).stdout
    assert "cached" in vsr(*words).stdout
    (entry,) = cache.entries()
    assert entry.path.name == "repeating-x2-fp16-matrix6-64x48-tensorrt-rtx-sm89.engine"


def test_colours_have_engines_of_their_own_where_it_matters(
    tmp_path: Path, cache: EngineCache
) -> None:
    rgb = ("--model", repeating(tmp_path, 3), "--size", "64x48", "--target", "sm86")
    for words in (rgb, BICUBIC):
        for colour in (("--colour", "bt709"), ("--colour", "bt2020"), ("--full-range",)):
            vsr(*words, *colour)
    assert [entry.key.label for entry in cache.entries()] == [
        "bicubic-x2-fp16", "bicubic-x2-fp16-full", "repeating-x2-fp16-matrix1",
        "repeating-x2-fp16-matrix6-full", "repeating-x2-fp16-matrix9",
    ]  # fmt: skip


def test_a_network_for_one_size_is_built_for_that_only(tmp_path: Path) -> None:
    model = repeating(tmp_path, 1, "48,64", "96,128")
    assert vsr("--model", model, "--size", "64x48", "--target", "sm86").exit_code == 0
    result = vsr("--model", model, "--size", "64x64", "--target", "sm86")
    assert f"'{model}' supports only pictures of 64x48" in told(result)
    assert result.exit_code == 2


def test_two_networks_of_one_name_do_not_pass_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = repeating(tmp_path / "a"), repeating(tmp_path / "b")
    other = onnx.load(two)
    other.graph.node[1].attribute.append(helper.make_attribute("nearest_mode", "floor"))
    onnx.save(other, two)
    vsr("--model", one, "--size", "64x48", "--target", "sm86")
    result = vsr("--model", two, "--size", "64x48", "--target", "sm86")
    assert "it was built from another network" in result.stderr


def quantised(folder: Path, zero_point: int = 128) -> str:
    """Save a network that repeats each pixel 2x2 by an 8-bit convolution; return its path."""
    constants = {
        "s": np.float32(1 / 127), "z": np.uint8(zero_point),
        "ws": np.float32(1 / 127), "wz": np.int8(0),
        "w": np.full((4, 1, 1, 1), 127, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["lr", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("Conv", ["d", "wd"], ["four"]),
        helper.make_node("DepthToSpace", ["four"], ["sr"], blocksize=2),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, *size])
        for name, size in (("lr", ("H", "W")), ("sr", ("sH", "sW")))
    )
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "a", [x], [y], weights),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    model.ir_version = 8
    path = folder / "quantised.onnx"
    onnx.save(model, path)
    return str(path)


@pytest.mark.parametrize("zero_point", [0, 128])
def test_a_quantised_network_is_built(zero_point: int, tmp_path: Path, cache: EngineCache) -> None:
    words = ("--model", quantised(tmp_path, zero_point), "--size", "64x48", "--target", "sm86")
    result = vsr(*words)
    assert result.exit_code == 0, result.output
    (entry,) = cache.entries()
    assert entry.key.label == "quantised-x2-int8"
    assert any("symmetric" in note for note in entry.facts["rewrites"])


def test_a_quantised_network_is_explained(tmp_path: Path) -> None:
    """TensorRT cannot build the original network, because its codes are not symmetric."""
    words = ("--model", quantised(tmp_path), "--size", "64x48", "--target", "sm86", "--explain")
    result = vsr(*words)
    assert result.exit_code == 0, result.output
    assert "symmetric" in result.stdout


INT8 = [
    (name, int(scale[1:]))
    for name, scales in models.manifest().items()
    for scale, entry in scales.items()
    if "int8" in entry
]


@pytest.mark.parametrize(("name", "scale"), INT8)
def test_shipped_int8_networks_are_built(name: str, scale: int, rtx: Library) -> None:
    graph, _ = rewrite_for_tensorrt(graph_of(name, scale, "int8"))
    assert built(rtx, graph, SMALL, *DEFAULT_TARGETS).targets == DEFAULT_TARGETS


# ---- processes


def command(*words: str) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "vsr", "build-engine", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def test_two_commands_at_once_build_once(cache: EngineCache) -> None:
    words = ("--model", "carn-m", "--size", "96x64", "--target", "sm86")
    with command(*words) as first, command(*words) as second:
        said = [process.communicate(timeout=120) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], said
    assert len(list(cache.entries())) == 2  # a grouped and a dense form
    # the other command waited for each build, or started after it
    assert sum(out.count("built in") for out, _ in said) == 2
    assert sum(out.count("cached") for out, _ in said) == 2


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_command_that_is_killed_leaves_no_engine(cache: EngineCache) -> None:
    words = ("--model", "carn-m", "--size", "96x64", "--target", "sm86")
    with command(*words) as process:
        deadline = time.monotonic() + 60
        while not list(cache.folder.glob("*.lock")):  # held while it builds
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(cache.entries()) == []
    assert "built in" in vsr(*words).stdout
    assert "cached" in vsr(*words).stdout


def test_one_command_builds_both_forms_for_two_targets(cache: EngineCache) -> None:
    words = "--model carn-m --scale 2 --size 640x360 --runtime tensorrt-rtx"
    with command(*words.split(), "--target", "sm86", "--target", "sm89") as process:
        out, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "sm86+sm89.engine" in out
    grouped, dense = cache.entries()
    assert {"dense" in entry.key.label for entry in (grouped, dense)} == {True, False}
    for entry in (grouped, dense):
        assert read_plan(cache.load(entry)).targets == ("sm86", "sm89")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_writes_the_graph_that_is_built(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "graph.onnx"
    result = vsr("--model", "c-dcscn", "--size", "32x24", "--precision", precision, "--onnx", path)
    assert result.exit_code == 0, result.output
    model = onnx.load_model(str(path))
    onnx.checker.check_model(model)
    assert [tensor.name for tensor in model.graph.output] == ["y_out", "u_out", "v_out"]
    kinds = {constant.data_type for constant in model.graph.initializer}
    assert (onnx.TensorProto.FLOAT16 in kinds) is (precision == "fp16")
