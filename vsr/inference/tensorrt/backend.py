"""TensorRT and TensorRT-RTX: engines on NVIDIA GPUs, built when they are missing."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from vsr.errors import BackendError, PlanError, UsageError
from vsr.inference.cuda import load_cuda
from vsr.inference.openvino import OpenVinoBackend
from vsr.inference.tensorrt.builder import Builder, Gpu
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
from vsr.network.onnx_inputs import inlinable
from vsr.network.rewrite.gpu import dense

log = logging.getLogger(__name__)

OLDEST: Final = (7, 5)
"""Compute capability of the oldest GPUs that TensorRT 11 and TensorRT-RTX run on: Turing."""
_TIMED: Final = 20
"""Pictures by which two forms of a network are compared."""


class TensorRtBackend:
    """See `vsr.inference.backend.Backend`; one for each GPU and library."""

    def __init__(self, name: str, device: str | None) -> None:
        if device and not device.isdecimal():
            raise UsageError(f"--device is the number of the GPU for {name}, not '{device}'")
        self.name = name
        self._library = load_library(name)
        self._cuda = load_cuda(int(device or 0))
        self._gpu = Gpu.of(self._cuda)
        check_gpu(self._library, self._gpu, self._cuda.compute_capability)
        self.device = f"{self._gpu.name} ({self._gpu.target}, {self._library.title})"
        self._builder = Builder(self._library)

    def choose_precision(self, wanted: str, int8: bool) -> str:
        """See `vsr.inference.backend.Runner.choose_precision`."""
        return choose_precision(wanted)

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        """As `Runner.run`; on the CPU, as no engine is worth building for one run."""
        return OpenVinoBackend("CPU").run(model, inputs)

    def compile(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> TensorRtEngine:
        """As `Backend.compile`; takes seconds to minutes when the engine is not built."""
        self._cuda.activate()
        # after a fault every call fails until the process ends: no engine is to be blamed for it,
        # nor minutes to be spent on one
        self._cuda.synchronize()
        forms = _forms(graph)
        found = self._builder.find(forms, size, batch, self._gpu)
        if found is not None:
            try:
                return self._start(found.plan, size)
            except PlanError as exc:  # what else fails is the device's, and no engine's fault
                log.warning("the cached engine does not load (%s): rebuilding it", exc)
                found.path.unlink(missing_ok=True)  # or it would be found again
        return self._start(self._build_fastest(forms, size, batch), size)

    def is_built(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> bool:
        """See `vsr.inference.backend.Backend.is_built`."""
        return self._builder.find(_forms(graph), size, batch, self._gpu) is not None

    def _start(self, plan: bytes, size: tuple[int, int]) -> TensorRtEngine:
        wrong = self._library.why_invalid(plan)
        if wrong:
            raise PlanError(f"{self._library.title} cannot use this engine: {wrong}")
        folder = self._builder.cache.folder
        kept = folder / f"runtime-{self._library.version}-{self._gpu.target}.cache"
        return TensorRtEngine(self._library, self._cuda, plan, size, kept)

    def _build_fastest(
        self, forms: Sequence[PlaneGraph], size: tuple[int, int], batch: int
    ) -> bytes:
        """Build every form, keep the one that this GPU computes fastest.

        Grouped convolutions are a quarter of the work of dense ones and yet slower on some devices
        (PCARN paper, section 5.3), so it is measured where the engine will run.
        """
        log.info("building the engine of %s for %dx%d; it is kept", forms[0].label, *size)
        targets = (self._gpu.target,) if self._library.rtx else ()
        options = BuildOptions(sizes=Sizes.only(size), batch=batch, targets=targets)
        built = [self._builder.build(form, options, self._gpu) for form in forms]
        if len(built) == 1:
            return built[0].plan
        times = [self._start(engine.plan, size).milliseconds(_TIMED) for engine in built]
        log.debug("%s: %s ms", [engine.key.label for engine in built], times)
        best = built[times.index(min(times))]
        for engine in built:
            if engine is not best:
                engine.path.unlink(missing_ok=True)  # so that the next start finds one only
        return best.plan


def _forms(graph: PlaneGraph) -> list[PlaneGraph]:
    """The graph as it is and, with grouped convolutions, as dense ones: equal, one is faster."""
    flat = inlinable(graph.network)
    network = dense(flat)
    if network is flat:
        return [graph]
    return [graph, replace(graph, network=network, label=f"{graph.label}-dense")]


def check_gpu(library: Library, gpu: Gpu, capability: tuple[int, int]) -> None:
    """Raises BackendError, naming the GPU and what would do, where the library has no kernels."""
    if capability < OLDEST:
        raise BackendError(
            f"{gpu.name} ({gpu.target}) is too old for {library.title}, which begins with sm75 "
            "(GeForce RTX 20, GTX 16): use --backend openvino"
        )
    if library.rtx and gpu.target not in RTX_TARGETS:
        raise BackendError(
            f"{library.title} does not support {gpu.name} ({gpu.target}), only "
            f"{', '.join(RTX_TARGETS)}: use --backend tensorrt or --backend openvino"
        )
