"""Builds engines from ONNX into the user's cache, and finds cached ones that fit."""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from onnx import load_model_from_string

from vsr.errors import UsageError
from vsr.inference.cuda import Cuda
from vsr.inference.kernels import plugin
from vsr.inference.tensorrt.cache import DamagedError, EngineCache, EngineKey, Entry
from vsr.inference.tensorrt.library import BuildOptions, Library, Sizes, StepCallback
from vsr.media.colour import RGB
from vsr.media.plane_format import YUV420
from vsr.media.whole_file import write_atomically
from vsr.network.graph import PlaneGraph
from vsr.network.onnx_inputs import flatten
from vsr.network.rewrite.gpu import for_tensorrt, make_dense

log = logging.getLogger(__name__)

DEFAULT_TARGETS: Final = ("sm75", "sm86", "sm89", "sm120")
"""Default targets of `vsr build-engine --runtime tensorrt-rtx`: GeForce RTX 20 to 50."""
_SIDE_LIMITS: Final = (16, 16384)
_SLOWER_ON: Final = "slower_on"
"""Key in an engine's facts: names of the GPUs on which another form of its network is faster."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The GPU an engine is built on or runs on."""

    name: str
    target: str
    """Compute capability, such as `sm86`."""

    @classmethod
    def of(cls, cuda: Cuda) -> "Gpu":
        """Return the GPU that `cuda` drives."""
        return cls(name=cuda.name, target=cuda.target)


@dataclass(frozen=True, kw_only=True)
class CachedEngine:
    """An engine's plan and its file in the cache."""

    plan: bytes
    path: Path
    cached: bool
    key: EngineKey


def check_sizes(sizes: Sizes) -> None:
    """Raise UsageError for sizes that no engine supports."""
    low, high = _SIDE_LIMITS
    for width, height in (sizes.min_size, sizes.opt_size, sizes.max_size):
        if not (low <= width <= high and low <= height <= high):
            raise UsageError(
                f"picture size {width}x{height} is outside {low}x{low} to {high}x{high}"
            )
        if not sizes.is_fixed and (width % 2 or height % 2):
            raise UsageError(f"--min, --opt and --max must be even: {width}x{height} is not")
    if not sizes.contains(sizes.opt_size):
        raise UsageError("--opt must be between --min and --max")


def rewrite_for_tensorrt(graph: PlaneGraph) -> tuple[PlaneGraph, tuple[str, ...]]:
    """Rewrite a graph for TensorRT; also return descriptions of the changes."""
    result = for_tensorrt(graph.network, graph.precision)
    return replace(graph, network=result.network), result.notes


def equivalent_forms(graph: PlaneGraph) -> list[PlaneGraph]:
    """Return the graph and, if it has grouped convolutions, an equivalent with dense ones.

    Grouped convolutions are a quarter of the work of dense ones, but slower on some devices
    (PCARN paper, section 5.3), so both are built, and timed on the GPU that runs them.
    """
    flat = flatten(graph.network)
    network = make_dense(flat)
    if network is flat:
        return [graph]
    return [graph, replace(graph, network=network, label=f"{graph.label}-dense")]


def file_label(graph: PlaneGraph) -> str:
    """Return a file label of model, scale, precision, colour and planes; matrix only for RGB."""
    rgb = graph.colour.matrix == RGB
    matrix = f"-matrix{graph.colour.matrix}" if graph.facts.colour == "rgb" and not rgb else ""
    full = "-full" if graph.colour.full_range and not rgb else ""
    planes = "" if graph.planes == YUV420 and not rgb else f"-{graph.planes.pixel_format(rgb)}"
    siting = f"-{graph.planes.siting}" if graph.planes.siting != YUV420.siting else ""
    return f"{graph.label}-{graph.precision}{matrix}{full}{planes}{siting}"


class Builder:
    """Builds engines with one library into one cache. As thread-safe as the library."""

    def __init__(self, library: Library, cache: EngineCache | None = None) -> None:
        self.library = library
        self.cache = cache or EngineCache()

    def build(
        self,
        graph: PlaneGraph,
        options: BuildOptions,
        gpu: Gpu | None = None,
        on_step: StepCallback | None = None,
    ) -> CachedEngine:
        """Return the engine of a graph (not yet rewritten), from the cache or newly built.

        `gpu` is this machine's, or None when building for others. Raises BackendError.
        """
        check_sizes(options.sizes)
        rewritten, notes = rewrite_for_tensorrt(graph)
        size = options.sizes.opt_size if options.sizes.is_fixed else None
        onnx = rewritten.onnx(size, options.batch)
        if options.fused:
            onnx, blocks = self._insert_plugin(onnx, gpu)
            notes += (f"{blocks} residual-E blocks in vsr's kernel, not yet timed on a GPU",)
        key = self._key(graph, onnx, options, gpu)

        def make() -> tuple[bytes, dict[str, Any]]:
            began = time.perf_counter()
            timing = self._timing_cache(gpu)
            known = timing.read_bytes() if timing and timing.exists() else b""
            full_options = replace(options, timing_cache=known, planes=graph.planes)
            built = self.library.build(onnx, full_options, on_step)
            if timing and built.timing_cache:
                with write_atomically(timing) as part:
                    part.write_bytes(built.timing_cache)
            seconds = round(time.perf_counter() - began, 2)
            return built.plan, {"rewrites": list(notes), "seconds": seconds}

        plan, path, cached = self.cache.get(key, make)
        return CachedEngine(plan=plan, path=path, cached=cached, key=key)

    def _insert_plugin(self, onnx: bytes, gpu: Gpu | None) -> tuple[bytes, int]:
        """Insert our kernel into a graph as a plugin; also return the number of blocks replaced."""
        if self.library.rtx or gpu is None:
            raise UsageError(
                "--fused requires --runtime tensorrt and a GPU: TensorRT-RTX has no plugins"
            )
        plugin.register(int(gpu.target.removeprefix("sm")))
        model, blocks = plugin.fuse_residual_e(load_model_from_string(onnx))
        if not blocks:
            raise UsageError("--fused: the network has no residual-E blocks: use carn-m")
        return model.SerializeToString(), blocks

    def find(
        self, forms: Sequence[PlaneGraph], size: tuple[int, int], batch: int, gpu: Gpu
    ) -> list[CachedEngine]:
        """Find cached engines for pictures of `size` on `gpu`: at most one for each form.

        Includes engines built elsewhere for several GPUs, or for a range of sizes. `forms` are
        equivalent graphs; engines marked as the slower one on this GPU are left out.
        """
        rewritten = [rewrite_for_tensorrt(form)[0] for form in forms]
        hashes: dict[bool, list[str]] = {}
        found: dict[int, CachedEngine] = {}
        # engines for one size first, which are faster
        for entry in sorted(self.cache.entries(), key=lambda entry: entry.key.sizes.count("-")):
            sizes = self._usable_sizes(entry, batch, gpu)
            if sizes is None or not sizes.accepts(size):
                continue
            if sizes.is_fixed not in hashes:
                shape = size if sizes.is_fixed else None
                hashes[sizes.is_fixed] = [_sha256(form.onnx(shape, batch)) for form in rewritten]
            if entry.key.graph not in hashes[sizes.is_fixed]:
                continue
            form = hashes[sizes.is_fixed].index(entry.key.graph)
            if form not in found and (plan := self._load_plan(entry)) is not None:
                found[form] = CachedEngine(plan=plan, path=entry.path, cached=True, key=entry.key)
        return [found[form] for form in sorted(found)]

    def mark_slower(self, engine: CachedEngine, gpu: Gpu) -> None:
        """Remember that another form of the same network is faster on this GPU."""
        self.cache.add_fact(engine.path, _SLOWER_ON, gpu.name)

    def _usable_sizes(self, entry: Entry, batch: int, gpu: Gpu) -> Sizes | None:
        """Return the sizes of an engine that is usable on this GPU; None for others."""
        is_slower = gpu.name in entry.facts.get(_SLOWER_ON, ())
        if is_slower or not self._is_usable(entry.key, batch, gpu):
            return None
        try:
            return parse_sizes(entry.key.sizes)
        except UsageError as exc:  # only vsr writes this text
            log.warning("the cached engine %s is damaged (%s)", entry.path.name, exc)
            return None

    def _load_plan(self, entry: Entry) -> bytes | None:
        try:
            return self.cache.load(entry)
        except DamagedError as exc:
            log.warning("the cached engine %s %s: ignoring it", entry.path.name, exc)
            return None

    def _is_usable(self, key: EngineKey, batch: int, gpu: Gpu) -> bool:
        library = (self.library.name, self.library.version)
        same = (key.runtime, key.version, key.batch) == (*library, batch)
        return same and gpu.target in key.targets and key.gpu in ("", gpu.name)

    def _key(
        self, graph: PlaneGraph, onnx: bytes, options: BuildOptions, gpu: Gpu | None
    ) -> EngineKey:
        tuned = gpu is not None and not self.library.rtx
        targets = options.targets or ((gpu.target,) if gpu else ())
        return EngineKey(
            label=file_label(graph) + ("-fused" if options.fused else ""), graph=_sha256(onnx),
            sizes=str(options.sizes), batch=options.batch,
            runtime=self.library.name, version=self.library.version,
            targets=tuple(sorted(targets, key=_target_number)),
            gpu=gpu.name if gpu and tuned else "",
        )  # fmt: skip

    def _timing_cache(self, gpu: Gpu | None) -> Path | None:
        if self.library.rtx or gpu is None:
            return None
        return self.cache.folder / f"timing-{self.library.version}-{gpu.target}.cache"


def _target_number(target: str) -> int:
    digits = target.removeprefix("sm")
    if not digits.isdecimal():
        raise UsageError(f"invalid target '{target}': use one like sm86, or 'current'")
    return int(digits)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parse_size(text: str) -> tuple[int, int]:
    """Parse `640x360` -> (640, 360). Raises UsageError."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"invalid picture size '{text}': write it like 640x360")
    return int(width), int(height)


def parse_sizes(text: str) -> Sizes:
    """Parse what `str(Sizes)` returned."""
    sizes = [parse_size(part) for part in text.split("-")]
    return Sizes(min_size=sizes[0], opt_size=sizes[len(sizes) // 2], max_size=sizes[-1])


def table(entries: Sequence[Entry]) -> str:
    """Format the cache as a table, one engine per line."""
    if not entries:
        return "no engines in the cache"
    lines = [f"{'engine':<44} {'size':<24} {'runtime':<24} {'GPUs':<22} {'MB':>6}"]
    for entry in entries:
        key = entry.key
        sizes = f"{key.sizes} x{key.batch}" if key.batch > 1 else key.sizes
        lines.append(
            f"{key.label:<44} {sizes:<24} {key.runtime + ' ' + key.version:<24} "
            f"{key.gpu or '+'.join(key.targets):<22} {entry.plan_bytes / 1e6:>6.1f}"
        )
    return "\n".join(lines)
