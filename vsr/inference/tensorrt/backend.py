"""Runs engines of TensorRT and TensorRT-RTX on NVIDIA GPUs; builds missing ones."""

import logging
from collections.abc import Sequence
from typing import Final

from vsr.errors import BackendError, PlanError, UsageError
from vsr.inference.cuda import load_cuda
from vsr.inference.openvino import OpenVinoBackend
from vsr.inference.tensorrt.builder import Builder, CachedEngine, Gpu, equivalent_forms
from vsr.inference.tensorrt.engine import TensorRtEngine
from vsr.inference.tensorrt.library import (
    RTX_TARGETS,
    BuildOptions,
    Library,
    Sizes,
    choose_precision,
    load_library,
)
from vsr.network.graph import PlaneGraph

log = logging.getLogger(__name__)

MIN_COMPUTE_CAPABILITY: Final = (7, 5)
"""Minimum compute capability that TensorRT 11 and TensorRT-RTX support: Turing."""
_TIMED_BATCHES: Final = 20
"""Number of batches that are timed to compare two forms of a network."""


class TensorRtBackend:
    """See `vsr.inference.backend.Backend`; one for each GPU and library."""

    on_cpu = False

    def __init__(self, name: str, device: str | None) -> None:
        if device and not device.isdecimal():
            raise UsageError(f"--device must be a GPU number for {name}, not '{device}'")
        self.name = name
        self._library = load_library(name)
        self._cuda = load_cuda(int(device or 0))
        self._gpu = Gpu.of(self._cuda)
        check_gpu(self._library, self._gpu, self._cuda.compute_capability)
        self.device = f"{self._gpu.name} ({self._gpu.target}, {self._library.title})"
        self._builder = Builder(self._library)

    def choose_precision(self, precision: str, has_int8: bool) -> str:
        """See `vsr.inference.backend.Runner.choose_precision`."""
        return choose_precision(precision)

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        """See `Runner.run`; runs on the CPU, as building an engine for one run takes too long."""
        return OpenVinoBackend("CPU").run(model, inputs)

    def compile(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> TensorRtEngine:
        """See `Backend.compile`; takes seconds to minutes if the engine is not built."""
        self._cuda.activate()
        # after a CUDA fault every call fails until the process ends: raise it here, rather than
        # reject cached engines or spend minutes on a build
        self._cuda.synchronize()
        forms = equivalent_forms(graph)
        found = self._builder.find(forms, size, batch, self._gpu)
        loaded = [(e, s) for e in found if (s := self._load_cached(e, size)) is not None]
        return self._fastest(loaded) if loaded else self._build_fastest(forms, size, batch)

    def is_built(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> bool:
        """See `vsr.inference.backend.Backend.is_built`."""
        return bool(self._builder.find(equivalent_forms(graph), size, batch, self._gpu))

    def _load_cached(self, engine: CachedEngine, size: tuple[int, int]) -> TensorRtEngine | None:
        """Load a cached engine; remove it and return None if it does not load."""
        try:
            return self._create_engine(engine.plan, size)
        except PlanError as exc:  # other errors are the device's, not the engine's
            log.warning("cannot load the cached engine (%s): rebuilding it", exc)
            engine.path.unlink(missing_ok=True)  # else it would be found again
            return None

    def _fastest(self, loaded: Sequence[tuple[CachedEngine, TensorRtEngine]]) -> TensorRtEngine:
        """Time equivalent engines on this GPU, mark the slower ones, return the fastest."""
        if len(loaded) == 1:
            return loaded[0][1]
        times = [running.batch_time_ms(_TIMED_BATCHES) for _, running in loaded]
        log.debug("%s: %s ms", [engine.key.label for engine, _ in loaded], times)
        best = times.index(min(times))
        for index, (engine, _) in enumerate(loaded):
            if index != best:
                self._builder.mark_slower(engine, self._gpu)
        return loaded[best][1]

    def _create_engine(self, plan: bytes, size: tuple[int, int]) -> TensorRtEngine:
        invalid_reason = self._library.why_invalid(plan)
        if invalid_reason:
            raise PlanError(f"{self._library.title} cannot use this engine: {invalid_reason}")
        folder = self._builder.cache.folder
        cache_file = folder / f"runtime-{self._library.version}-{self._gpu.target}.cache"
        return TensorRtEngine(self._library, self._cuda, plan, size, cache_file)

    def _build_fastest(
        self, forms: Sequence[PlaneGraph], size: tuple[int, int], batch: int
    ) -> TensorRtEngine:
        """Build every form; return the engine that is fastest on this GPU."""
        log.info("building the engine of %s for %dx%d and caching it", forms[0].label, *size)
        targets = (self._gpu.target,) if self._library.rtx else ()
        options = BuildOptions(sizes=Sizes.fixed(size), batch=batch, targets=targets)
        built = [self._builder.build(form, options, self._gpu) for form in forms]
        return self._fastest([(engine, self._create_engine(engine.plan, size)) for engine in built])


def check_gpu(library: Library, gpu: Gpu, capability: tuple[int, int]) -> None:
    """Raise BackendError, with alternatives, if the library has no kernels for this GPU."""
    if capability < MIN_COMPUTE_CAPABILITY:
        raise BackendError(
            f"{gpu.name} ({gpu.target}) is too old for {library.title}, which requires sm75 "
            "(GeForce RTX 20, GTX 16) or newer: use --backend openvino"
        )
    if library.rtx and gpu.target not in RTX_TARGETS:
        raise BackendError(
            f"{library.title} does not support {gpu.name} ({gpu.target}); supported: "
            f"{', '.join(RTX_TARGETS)}; use --backend tensorrt or --backend openvino"
        )
