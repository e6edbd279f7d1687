"""Builds engines ahead of time, for `vsr build-engine`, with the installed library."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import onnx

from vsr.errors import BackendError, OutputError, UsageError, reason
from vsr.inference import models
from vsr.inference.backend import load_backend
from vsr.inference.cuda import load_cuda
from vsr.inference.tensorrt.builder import (
    DEFAULT_TARGETS,
    Builder,
    Gpu,
    check_sizes,
    equivalent_forms,
    parse_size,
    rewrite_for_tensorrt,
)
from vsr.inference.tensorrt.cache import EngineCache
from vsr.inference.tensorrt.library import (
    RUNTIMES,
    BuildOptions,
    Library,
    Sizes,
    StepCallback,
    choose_precision,
    load_library,
)
from vsr.inference.tensorrt.rtx_plan import read_plan
from vsr.media.colour import RGB, UNSPECIFIED, Colour
from vsr.media.plane_format import YUV420, PlaneFormat, is_rgb, planes_for
from vsr.media.whole_file import write_atomically
from vsr.network.graph import PlaneGraph

MATRICES: Final = {"bt601": 6, "bt709": 1, "bt2020": 9}


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What to build; every field is an option of `vsr build-engine`."""

    model: str
    scale: int | None = None
    precision: str = "auto"
    sizes: Sizes
    batch: int = 1
    matrix: str = "auto"
    """A key of `MATRICES`, or `auto` for the matrix assumed for untagged video of the size."""
    full_range: bool = False
    pixel_format: str = "yuv420p"
    """Pixel format of the video, as FFmpeg's name."""
    siting: str = YUV420.siting
    """A key of `vsr.media.plane_format.SITINGS`."""
    runtime: str | None = None
    targets: tuple[str, ...] = ()
    fused: bool = False
    """Whether our kernel computes residual-E blocks, as a TensorRT plugin."""
    output: Path | None = None
    """File to which the plan is written in addition to the cache, or None."""


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """One engine that was built or found in the cache."""

    path: Path
    bytes: int
    cached: bool
    seconds: float


class _PrebuildRunner:
    """A `Runner` for engines that other machines will run."""

    def choose_precision(self, precision: str, has_int8: bool) -> str:
        return choose_precision(precision)

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        return load_backend("openvino").run(model, inputs)


def parse_size_options(
    size: str | None, bounds: tuple[str | None, str | None, str | None]
) -> Sizes:
    """Parse `--size`, or `--min`, `--opt` and `--max`. Raises UsageError."""
    bounds_given = [text for text in bounds if text]
    if size and not bounds_given:
        return Sizes.fixed(parse_size(size))
    if size or len(bounds_given) != len(bounds):
        raise UsageError("use --size WxH, or all of --min, --opt and --max")
    least, best, most = (parse_size(text) for text in bounds_given)
    return Sizes(min_size=least, opt_size=best, max_size=most)


def build(
    request: BuildRequest, cache: EngineCache, on_step: StepCallback | None = None
) -> list[BuildResult]:
    """Build every form of the network that is not in the cache; `vsr run` uses the faster one.

    With an `output` or `fused`, only the original form is built. Raises VsrError.
    """
    library = _library(request.runtime)
    graph = _graph(request)
    targets, gpu = _targets(request.targets, library)
    options = BuildOptions(
        sizes=request.sizes, batch=request.batch, targets=targets, fused=request.fused
    )
    forms = [graph] if request.fused or request.output else equivalent_forms(graph)
    results = []
    for form in forms:
        started = time.perf_counter()
        engine = Builder(library, cache).build(form, options, gpu, on_step)
        results.append(
            BuildResult(
                path=request.output or engine.path, bytes=len(engine.plan), cached=engine.cached,
                seconds=time.perf_counter() - started,
            )
        )  # fmt: skip
    if request.output:
        _write(request.output, engine.plan)
    return results


def _write(path: Path, data: bytes) -> None:
    try:
        with write_atomically(path) as part:
            part.write_bytes(data)
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {reason(exc)}") from exc


def write_graph(request: BuildRequest, path: Path) -> int:
    """Write the planes-to-planes ONNX that an engine is built from; return its size in bytes.

    For `trtexec`, Netron or another runtime: inputs y, u, v, outputs y_out, u_out, v_out, uint8.
    """
    ready, _ = rewrite_for_tensorrt(_graph(request))
    data = ready.onnx(request.sizes.opt_size if request.sizes.is_fixed else None, request.batch)
    _write(path, data)
    return len(data)


def _graph(request: BuildRequest) -> PlaneGraph:
    check_sizes(request.sizes)
    model = models.find(request.model, request.scale, _PrebuildRunner(), request.precision)
    sizes, size = request.sizes, model.fixed_size
    if size and not (sizes.is_fixed and sizes.contains(size)):
        width, height = size
        raise UsageError(f"'{request.model}' supports only pictures of {width}x{height}")
    planes = replace(_planes(request), siting=request.siting)
    return model.graph(_colour(request), planes)


def _planes(request: BuildRequest) -> PlaneFormat:
    """Return the plane format of the video. Raises UsageError for an unknown pixel format."""
    try:
        return planes_for(request.pixel_format)
    except ValueError as exc:
        raise UsageError(
            f"unknown pixel format '{request.pixel_format}': use an FFmpeg name like yuv420p10le"
        ) from exc


def _colour(request: BuildRequest) -> Colour:
    if is_rgb(request.pixel_format):
        return Colour(matrix=RGB, full_range=True)
    return Colour.from_tags(
        matrix=MATRICES.get(request.matrix, UNSPECIFIED), range_=2 if request.full_range else 1,
        primaries=UNSPECIFIED, transfer=UNSPECIFIED, height=request.sizes.opt_size[1], pix_fmt="",
    )  # fmt: skip


def _library(runtime: str | None) -> Library:
    """Load the requested runtime, or the first that is installed."""
    if runtime:
        return load_library(runtime)
    errors = []
    for name in RUNTIMES:
        try:
            return load_library(name)
        except BackendError as exc:
            errors.append(str(exc))
    raise BackendError(errors[-1])


def _targets(requested: tuple[str, ...], library: Library) -> tuple[tuple[str, ...], Gpu | None]:
    """Return the targets for the library, and this machine's GPU if the engine is only for it.

    By default, TensorRT builds for this GPU and TensorRT-RTX for `DEFAULT_TARGETS`.
    """
    if requested == ("current",) or (not requested and not library.rtx):
        gpu = Gpu.of(load_cuda())
        return ((gpu.target,) if library.rtx else ()), gpu
    if "current" in requested:
        requested = tuple(load_cuda().target if t == "current" else t for t in requested)
    return tuple(dict.fromkeys(requested)) or DEFAULT_TARGETS, None


def explain(request: BuildRequest) -> list[str]:
    """Return lines that list the rewrites, and layers and activation memory before and after.

    Kernels and their memory are read from the plan, which is possible for TensorRT-RTX only.
    """
    graph = _graph(request)
    after, notes = rewrite_for_tensorrt(graph)
    size = request.sizes.max_size
    lines = [f"{graph.label}, {graph.precision}, {size[0]}x{size[1]}"]
    lines += [f"  rewritten: {note}" for note in notes or ("nothing",)]
    forms = {"before": graph, "after": after}
    rows: dict[str, list[str]] = {
        "layers": [str(_layers(form)) for form in forms.values()],
    }
    try:
        library = _library(request.runtime)
    except BackendError as exc:
        lines.append(f"  kernels and memory are unknown: {exc}")
        library = None
    if library is not None and library.rtx:
        targets, _ = _targets(request.targets, library)
        before, found = ("-", "-"), _kernels_and_memory(library, after, request, targets)
        with suppress(BackendError):  # e.g. 8-bit codes are not symmetric before
            before = _kernels_and_memory(library, graph, request, targets)
        rows["kernels"], rows["activation memory, MB"] = map(list, zip(before, found, strict=True))
    lines.append(f"  {'':<24}{'before':>10}{'after':>10}")
    lines += [
        f"  {name:<24}" + "".join(f"{v:>10}" for v in values) for name, values in rows.items()
    ]
    return lines


def _layers(graph: PlaneGraph) -> int:
    return len(onnx.load_model_from_string(graph.onnx(None)).graph.node)


def _kernels_and_memory(
    library: Library, graph: PlaneGraph, request: BuildRequest, targets: tuple[str, ...]
) -> tuple[str, str]:
    """Build a graph for the first target; return its number of kernels and MB of activations."""
    sizes = Sizes.fixed(request.sizes.max_size)
    options = BuildOptions(sizes=sizes, batch=request.batch, targets=targets[:1])
    facts: Any = read_plan(library.build(graph.onnx(sizes.opt_size, request.batch), options).plan)
    program = facts.programs[0]
    return str(len(program.kernels)), f"{program.activation_bytes / 1e6:.1f}"
