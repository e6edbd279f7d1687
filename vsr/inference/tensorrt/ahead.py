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
    forms_of,
    parse_size,
    rewritten,
)
from vsr.inference.tensorrt.cache import EngineCache
from vsr.inference.tensorrt.library import (
    RUNTIMES,
    BuildOptions,
    Library,
    Sizes,
    Step,
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


class _Runner:
    """A `Runner` for engines that other machines will run."""

    def choose_precision(self, wanted: str, int8: bool) -> str:
        return choose_precision(wanted)

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        return load_backend("openvino").run(model, inputs)


def sizes(only: str | None, bounds: tuple[str | None, str | None, str | None]) -> Sizes:
    """Parse `--size`, or `--min`, `--opt` and `--max`. Raises UsageError."""
    given = [text for text in bounds if text]
    if only and not given:
        return Sizes.only(parse_size(only))
    if only or len(given) != len(bounds):
        raise UsageError("give --size WxH, or all of --min, --opt and --max")
    least, best, most = (parse_size(text) for text in given)
    return Sizes(least=least, best=best, most=most)


def build(
    order: BuildRequest, cache: EngineCache, on_step: Step | None = None
) -> list[BuildResult]:
    """Build every form of the network that is not in the cache; `vsr run` uses the faster one.

    With an `output` or `fused`, only the original form is built. Raises VsrError.
    """
    library = _library(order.runtime)
    graph = _graph(order)
    targets, gpu = _targets(order.targets, library)
    options = BuildOptions(sizes=order.sizes, batch=order.batch, targets=targets, fused=order.fused)
    forms = [graph] if order.fused or order.output else forms_of(graph)
    done = []
    for form in forms:
        began = time.perf_counter()
        engine = Builder(library, cache).build(form, options, gpu, on_step)
        done.append(
            BuildResult(
                path=order.output or engine.path, bytes=len(engine.plan), cached=engine.cached,
                seconds=time.perf_counter() - began,
            )
        )  # fmt: skip
    if order.output:
        _write(order.output, engine.plan)
    return done


def _write(path: Path, data: bytes) -> None:
    try:
        with write_atomically(path) as part:
            part.write_bytes(data)
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {reason(exc)}") from exc


def write_graph(order: BuildRequest, path: Path) -> int:
    """Write the planes-to-planes ONNX that an engine is built from; return its size in bytes.

    For `trtexec`, Netron or another runtime: inputs y, u, v, outputs y_out, u_out, v_out, uint8.
    """
    ready, _ = rewritten(_graph(order))
    data = ready.onnx(order.sizes.best if order.sizes.fixed else None, order.batch)
    _write(path, data)
    return len(data)


def _graph(order: BuildRequest) -> PlaneGraph:
    check_sizes(order.sizes)
    model = models.find(order.model, order.scale, _Runner(), order.precision)
    if model.fixed_size and not (order.sizes.fixed and order.sizes.holds(model.fixed_size)):
        width, height = model.fixed_size
        raise UsageError(f"'{order.model}' takes pictures of {width}x{height} only")
    planes = replace(_planes(order), siting=order.siting)
    return model.graph(_colour(order), planes)


def _planes(order: BuildRequest) -> PlaneFormat:
    """Return the plane format of the video. Raises UsageError for an unknown pixel format."""
    try:
        return planes_for(order.pixel_format)
    except ValueError as exc:
        raise UsageError(
            f"unknown pixel format '{order.pixel_format}': names are FFmpeg's, as yuv420p10le"
        ) from exc


def _colour(order: BuildRequest) -> Colour:
    if is_rgb(order.pixel_format):
        return Colour(matrix=RGB, full_range=True)
    return Colour.from_tags(
        matrix=MATRICES.get(order.matrix, UNSPECIFIED), range_=2 if order.full_range else 1,
        primaries=UNSPECIFIED, transfer=UNSPECIFIED, height=order.sizes.best[1], pix_fmt="",
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


def _targets(asked: tuple[str, ...], library: Library) -> tuple[tuple[str, ...], Gpu | None]:
    """Return the targets for the library, and this machine's GPU if the engine is only for it.

    By default, TensorRT builds for this GPU and TensorRT-RTX for `DEFAULT_TARGETS`.
    """
    if asked == ("current",) or (not asked and not library.rtx):
        gpu = Gpu.of(load_cuda())
        return ((gpu.target,) if library.rtx else ()), gpu
    if "current" in asked:
        asked = tuple(load_cuda().target if t == "current" else t for t in asked)
    return tuple(dict.fromkeys(asked)) or DEFAULT_TARGETS, None


def explain(order: BuildRequest) -> list[str]:
    """Return lines that list the rewrites, and layers and activation memory before and after.

    Kernels and their memory are read from the plan, which is possible for TensorRT-RTX only.
    """
    graph = _graph(order)
    after, notes = rewritten(graph)
    size = order.sizes.most
    lines = [f"{graph.label}, {graph.precision}, {size[0]}x{size[1]}"]
    lines += [f"  rewritten: {note}" for note in notes or ("nothing",)]
    forms = {"before": graph, "after": after}
    rows: dict[str, list[str]] = {
        "layers": [str(_layers(form)) for form in forms.values()],
    }
    try:
        library = _library(order.runtime)
    except BackendError as exc:
        lines.append(f"  kernels and memory are not known: {exc}")
        library = None
    if library is not None and library.rtx:
        targets, _ = _targets(order.targets, library)
        before, found = ("-", "-"), _plan_facts(library, after, order, targets)
        with suppress(BackendError):  # e.g. 8-bit codes are not symmetric before
            before = _plan_facts(library, graph, order, targets)
        rows["kernels"], rows["activation memory, MB"] = map(list, zip(before, found, strict=True))
    lines.append(f"  {'':<24}{'before':>10}{'after':>10}")
    lines += [
        f"  {name:<24}" + "".join(f"{v:>10}" for v in values) for name, values in rows.items()
    ]
    return lines


def _layers(graph: PlaneGraph) -> int:
    return len(onnx.load_model_from_string(graph.onnx(None)).graph.node)


def _plan_facts(
    library: Library, graph: PlaneGraph, order: BuildRequest, targets: tuple[str, ...]
) -> tuple[str, str]:
    """Build a graph for the first target; return its number of kernels and MB of activations."""
    sizes = Sizes.only(order.sizes.most)
    options = BuildOptions(sizes=sizes, batch=order.batch, targets=targets[:1])
    facts: Any = read_plan(library.build(graph.onnx(sizes.best, order.batch), options).plan)
    program = facts.programs[0]
    return str(len(program.kernels)), f"{program.activation_bytes / 1e6:.1f}"
